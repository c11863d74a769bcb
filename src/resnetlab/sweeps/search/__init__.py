"""A search for the largest objective with Optuna, which no other room needs: hydra/sweeper=optuna."""
