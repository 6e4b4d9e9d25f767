"""What GPU, process and host say of themselves, once a second."""
