"""`python -m benchmarks`: the lab's step, measured in turn against what others would use, and against the machine."""
