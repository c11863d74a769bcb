"""Typed rows of published.csv: values as they were printed, under the lab's names for keys and options.

Values that contradict each other are left as they are; the comment says so. What is not printed in the row itself but
in the text around it, or in the code that it links to, is named in `inferred`; what nobody says is None.
"""

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from resnetlab.errors import ConfigError, require_one_of

FILE = Path(__file__).with_name("published.csv")

Milestones = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Published:
    """One row of a published table, or one run described in a text. None: not said.

    n: runs behind the figures; None: not printed, for averages and success rates of several.
    options: further keys of the lab, such as {"model.stem": "imagenet"}.
    lr_initial: the lr of the first step, so not one_cycle's peak, which is `lr`. milestones: [epoch, lr];
    piecewise_constant holds a value until its epoch, piecewise_linear the first one up to its epoch, one_cycle and the
    cosines are cosines between them.
    wd: None is lost in print; wd_candidates: what it may have been, the likeliest first (as read here).
    momentum: SGD's momentum, or beta1. ema_momentum: the posts' m; Keras ignores it unless use_ema=True, of which the
    posts say nothing; post IV's is lost in all rows but 1, 2, 10 and 11.
    threshold, epoch_at_threshold, val_acc_at_threshold: as printed, also where val_acc is still below the threshold;
    see `reached`. bound: ">" the epoch is a lower bound, "<" or "<=" an upper one.
    Accuracies are the best or the stated one on the test images. final_loss, final_val_loss: post IV's are the lowest;
    with an l2, Keras' losses contain the penalty. seconds_per_epoch: s. power_w: W, of the GPU.
    counts_from: the number of the first epoch in epoch_at_threshold and epoch_best, 0 or 1.
    precision: only where the text says it. confidence: high, medium or low, in the row as a whole.
    """

    id: str
    source: str
    post: str
    table: str
    run: str
    n: int | None
    dataset: str
    model: str
    options: Mapping[str, Any]
    optimizer: str
    epochs: int | None
    batch_size: int | None
    lr_initial: float | None
    schedule: str | None
    milestones: Milestones | None
    regularization: str
    l2: float | None
    wd: float | None
    wd_candidates: tuple[float, ...]
    momentum: float | None
    ema_momentum: float | None
    shift: float | None
    augmentation: bool | None
    normalization: str | None
    split: str | None
    precision: str | None
    threshold: float | None
    bound: str | None
    epoch_at_threshold: int | None
    val_acc_at_threshold: float | None
    train_acc: float | None
    epoch_best: int | None
    val_acc_best: float | None
    final_loss: float | None
    final_val_loss: float | None
    seconds_per_epoch: float | None
    power_w: float | None
    counts_from: int
    comment: str
    inferred: tuple[str, ...]
    confidence: str

    @property
    def lr(self) -> float | None:
        """The top-level key lr: the highest of the run."""
        return self.lr_initial if self.milestones is None else max(value for _, value in self.milestones)

    @property
    def reached(self) -> bool | None:
        """Whether the threshold was reached at epoch_at_threshold; None if the row has no threshold's epoch."""
        if self.threshold is None or self.epoch_at_threshold is None:
            return None
        return self.val_acc_at_threshold is None or self.val_acc_at_threshold >= self.threshold

    def epoch(self, printed: int | None) -> int | None:
        """epoch_at_threshold or epoch_best as the lab counts epochs: from 1."""
        return None if printed is None else printed + 1 - self.counts_from


@cache
def rows() -> tuple[Published, ...]:
    """All published rows, in the order of the posts."""
    with FILE.open(newline="", encoding="utf-8") as file:
        return tuple(
            Published(**{field.name: _READ[field.type](cells[field.name]) for field in fields(Published)})
            for cells in csv.DictReader(file)
        )


def one(row_id: str) -> Published:
    """The row of that id. Raises ConfigError if there is none."""
    for row in rows():
        if row.id == row_id:
            return row
    raise ConfigError(f"{row_id} is no published row; `resnetlab published` lists them")


def find(post: str | None = None, id: str | None = None) -> list[Published]:
    """The rows of a source, and of ids like a pattern such as "post4-*"; None: any.

    Raises ConfigError for a source or a pattern that no row has.
    """
    found = [row for row in rows() if id is None or fnmatchcase(row.id, id)]
    if not found:
        raise ConfigError(f"--id (={id}) matches no row; ids look like post4-table1-09, patterns like 'post4-*'")
    if post is not None:
        require_one_of("--post", post, dict.fromkeys(row.post for row in rows()))
    return [row for row in found if post in (None, row.post)]


_READ: dict[Any, Callable[[str], Any]] = {  # a field's type -> how its cell is read
    str: str,
    int: int,
    str | None: lambda cell: cell or None,
    int | None: lambda cell: int(cell) if cell else None,
    float | None: lambda cell: float(cell) if cell else None,
    bool | None: lambda cell: cell == "true" if cell else None,
    Milestones | None: lambda cell: tuple(map(tuple, json.loads(cell))) if cell else None,
    Mapping[str, Any]: lambda cell: json.loads(cell) if cell else {},
    tuple[float, ...]: lambda cell: tuple(json.loads(cell)) if cell else (),
    tuple[str, ...]: lambda cell: tuple(cell.split()),
}
