"""Translates published rows to the lab's keys, and finds rows with the same configuration."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

from resnetlab.published.results import Published, one, rows
from resnetlab.runs.files import data_beside

OPEN = ("batch_size", "lr_initial", "schedule", "milestones", "wd", "shift", "augmentation", "normalization", "split")


def fill(row: Published) -> tuple[Published, dict[str, str]]:
    """Fills in all that a run needs; returns the row, and {field: why this value} of what was filled."""
    known = data_beside(__file__, "filled.toml")
    values = {field: (value, reason) for field, (value, reason) in known["hinted"].get(row.id, {}).items()}
    if row.wd is None:
        values["wd"] = row.wd_candidates[0], "not printed; see the candidates"
    if row.id in known["like"]:
        name, reason = known["like"][row.id]
        other = fill(one(name))[0]
        for field in OPEN:
            if field not in values and getattr(row, field) is None and getattr(other, field) is not None:
                values[field] = getattr(other, field), f"as {name}, {reason}"
    row = replace(row, **{field: value for field, (value, _) in values.items()})
    if row.epochs is None:
        ends = [row.milestones[-1][0] if row.milestones else 0, row.epoch_best or 0, row.epoch_at_threshold or 0]
        values["epochs"] = int(max(ends)), "the last epoch of the schedule or of what is reported"
        row = replace(row, epochs=int(max(ends)))
    return row, {field: reason for field, (_, reason) in values.items()}


def configuration(row: Published) -> dict[str, Any]:
    """The row, filled, as keys of the lab: {"model": "resnet56v2", ..., "epochs": 60, ..., "schedule.relative": True}.

    The groups' names come first. Precision, thresholds and the study are not in it.
    """
    row, _ = fill(row)
    keys: dict[str, Any] = {"model": row.model, "data": row.dataset, "optimizer": row.optimizer}
    keys |= {"schedule": row.schedule, "regularization": row.regularization}
    keys |= {"averaging": "swa"} if "averaging.start" in row.options else {}
    keys |= {"epochs": row.epochs, "batch_size": row.batch_size, "lr": row.lr}
    decays = row.regularization in ("weight_decay", "l2_weight_decay", "coupled")
    penalizes = row.regularization in ("l2", "l2_weight_decay")
    keys |= {"wd": row.wd} if decays else {}
    keys |= {"l2": row.l2} if penalizes else {}
    keys |= {"momentum": row.momentum} if row.momentum is not None else {}
    keys |= {"shift": row.shift} if row.shift is not None and row.augmentation else {}
    keys |= {"data.augment": row.augmentation, "data.normalize": row.normalization, "data.split": row.split}
    return keys | dict(_schedule_keys(row)) | dict(row.options)


def _schedule_keys(row: Published) -> Iterator[tuple[str, Any]]:
    """The chosen schedule's keys, from the milestones."""
    points, peak = row.milestones, row.lr
    assert points is not None, row.id
    assert peak is not None, row.id
    (start, first), (end, last) = points[0], points[-1]
    if row.schedule in ("piecewise_constant", "piecewise_linear"):
        yield "schedule.relative", True
        yield "schedule.milestones", [[epoch, ratio(value, peak)] for epoch, value in points]
    elif row.schedule == "cosine_restarts":
        yield "schedule.first", points[1][0]
        yield "schedule.mult", ratio(end - points[1][0], points[1][0])
    elif row.schedule == "cosine":
        yield from {"schedule.constant": start}.items() if start else ()
        yield from {"schedule.final": ratio(last, peak)}.items() if last else ()
    elif row.schedule == "one_cycle":
        yield "schedule.pct_start", ratio(points[1][0], end)
        yield "schedule.div_factor", ratio(peak, first)
        yield "schedule.final_div_factor", ratio(first, last)
    if row.schedule in ("cosine", "one_cycle") and end != row.epochs:
        yield "schedule.length", end


def ratio(a: float, b: float) -> float:
    """a / b without the noise of the 13th digit: 8e-5 / 8e-4 is 0.1."""
    return float(f"{a / b:.12g}")


def preset_of(row_id: str) -> str:
    """The id of the first row with this row's configuration: the name of the preset that trains it.

    Rows whose wd is lost are the same where everything else is and the candidates are. The notebook's rows differ in
    what the table does not show; each has its own. Raises ConfigError for an id that no row has.
    """
    return _preset_of_row()[one(row_id).id]


@cache
def _preset_of_row() -> dict[str, str]:
    found: dict[str, str] = {}
    firsts: dict[str, str] = {}
    for row in rows():
        same = json.dumps([configuration(row), row.wd_candidates, row.ema_momentum], sort_keys=True)
        found[row.id] = row.id if row.post == "fastai" else firsts.setdefault(same, row.id)
    return found
