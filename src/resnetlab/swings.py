"""How far a figure swings in the epochs in which the series sees its validation loss swing."""

from collections.abc import Mapping, Sequence

__all__ = ["EPOCHS", "fluctuation", "within"]

EPOCHS = (10, 36)  # post IV: the swings set in at 10 to 14, and end when lr falls; claims name 10 to 36
FEWEST = 5  # of these epochs, for a figure


def within(rows: Sequence[Mapping[str, float]], column: str, epochs: tuple[int, int] = EPOCHS) -> list[float]:
    """The column's values in those epochs; nothing where fewer than five of them are there."""
    first, last = epochs
    values = [row[column] for row in rows if first <= row["epoch"] <= last and column in row]
    return values if len(values) >= FEWEST else []


def fluctuation(rows: Sequence[Mapping[str, float]], column: str = "val/ce") -> float | None:
    """max - min over epochs 10 to 36; None with fewer than five of them."""
    values = within(rows, column)
    return max(values) - min(values) if values else None
