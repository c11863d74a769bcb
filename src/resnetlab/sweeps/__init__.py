"""Many runs from one command: what became of each, a process for each, and one display and one table for all."""
