"""The typed configuration of a run: schema, checks, composition by Hydra, identity."""
