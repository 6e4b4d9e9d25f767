"""From records to steps: whose work each record is, in which tree, under which name."""
