"""Files of a run and of a sweep, written and read; no torch, no Hydra, no Lightning."""
