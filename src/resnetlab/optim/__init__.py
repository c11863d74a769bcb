"""Optimizers, learning-rate schedules, regularization and weight averaging."""
