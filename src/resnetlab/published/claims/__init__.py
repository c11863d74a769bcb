"""The published claims as data, and the verdict of runs on each: holds, does not hold, cannot tell."""
