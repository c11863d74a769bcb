"""Many runs from one command: the launchers, the table of outcomes, the search."""
