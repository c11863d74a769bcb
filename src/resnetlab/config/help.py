"""Placeholder until the config room's own."""


def help_text() -> str:
    return "python train.py [OVERRIDES] [-m] [OVERRIDES]"
