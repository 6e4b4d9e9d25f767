"""What happens to a healthy step: eleven faults, and what only looks like one."""
