"""The competitors: programs that step when they are told to, and say how long it took."""
