"""The training step as one function of device tensors, and the ways to run it: plainly, compiled, captured."""
