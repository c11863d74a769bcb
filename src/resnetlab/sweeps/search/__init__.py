"""A search for the largest objective with Optuna, which no other subpackage needs: hydra/sweeper=optuna."""
