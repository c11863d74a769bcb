"""How far a figure swings in the epochs in which the series sees its validation loss swing."""

from collections.abc import Mapping, Sequence
from statistics import linear_regression

__all__ = ["EPOCHS", "fluctuation", "swing", "within"]

EPOCHS = (10, 36)  # post IV: the swings set in at 10 to 14, and end when lr falls; claims name 10 to 36
FEWEST = 5  # of these epochs, for a figure


def within(rows: Sequence[Mapping[str, float]], column: str, epochs: tuple[int, int] = EPOCHS) -> list[float]:
    """The column's values in those epochs; nothing where fewer than five of them are there."""
    first, last = epochs
    values = [row[column] for row in rows if first <= row["epoch"] <= last and column in row]
    return values if len(values) >= FEWEST else []


def fluctuation(rows: Sequence[Mapping[str, float]], column: str = "val/ce") -> float | None:
    """max - min over epochs 10 to 36, as the series reads it off its plots; None with fewer than five of them."""
    values = within(rows, column)
    return max(values) - min(values) if values else None


def swing(rows: Sequence[Mapping[str, float]], column: str) -> float | None:
    """The same of what is left when the straight line through these epochs is taken out.

    A loss that falls evenly does not swing, however far it falls; None with fewer than five epochs.
    """
    values = within(rows, column)
    if not values:
        return None
    slope, _ = linear_regression(range(len(values)), values)
    left = [value - slope * place for place, value in enumerate(values)]
    return max(left) - min(left)
