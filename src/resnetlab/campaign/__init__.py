"""A list of runs, worked off within a budget of time, and again until it is done."""
