"""Translates published rows to the lab's keys, and finds rows with the same configuration."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

from resnetlab.published.results import Published, one, rows

GROUPS = ("model", "data", "optimizer", "schedule", "regularization", "averaging")

# What a row leaves open is taken from another one: {row: (that row, why it)}
LIKE = {
    "post1-mixed-precision-bs64": ("post1-bs64", "the same run in 32-bit floats"),
    "post1-mixed-precision-bs64-noaug": ("post1-bs64", "the same run in 32-bit floats, augmented"),
    "post4-plot-adam-l2-8e-5": ("post4-table1-00", "the same without l2"),
    "post5-headline-cosine": ("post4-table3-25", "the fastest run of the post before"),
    "post6-headline-20ep": ("post5-headline-cosine", "the post before"),
    "post6-headline-0.924": ("post5-headline-cosine", "the post before"),
}

# ... or from a hint in the text: {row: {field: (value, why)}}
HINTED: dict[str, dict[str, tuple[Any, str]]] = {
    "post2-trial1-01": {
        "milestones": (((60, 1e-3), (83, 1e-4)), "only 1e-3 until epoch 60 is printed, and 1e-4 in epoch 64's log line")
    },
    "post5-headline-cosine": {
        "milestones": (
            ((10, 8e-4), (21, 0.0)),
            "ends with epoch 21; 10 epochs of constant lr are a guess: post IV's fluctuations set in at 10 to 14",
        )
    },
}
HINTED["post6-headline-20ep"] = HINTED["post6-headline-0.924"] = {
    "milestones": (((10, 8e-4), (25, 0.0)), "as post5-headline-cosine, ending with epoch 25"),
    "options": (
        {"model.shortcut_kernel": 3, "schedule.shape": "quarter"},
        "'a larger kernel' is said, not its size; the network's two other changes are unknown, and missing here",
    ),
}

OPEN = (
    *("batch_size", "lr_initial", "schedule", "milestones"),
    *("wd", "shift", "augmentation", "normalization", "split"),
)


def fill(row: Published) -> tuple[Published, dict[str, str]]:
    """Fills in all that a run needs; returns the row, and {field: why this value} of what was filled."""
    values: dict[str, tuple[Any, str]] = dict(HINTED.get(row.id, {}))
    if row.wd is None:
        values["wd"] = row.wd_candidates[0], "not printed; see the candidates"
    if row.id in LIKE:
        name, reason = LIKE[row.id]
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
    keys: dict[str, Any] = {
        "model": row.model,
        "data": row.dataset,
        "optimizer": row.optimizer,
        "schedule": row.schedule,
        "regularization": row.regularization,
        **({"averaging": "swa"} if "averaging.start" in row.options else {}),
        "epochs": row.epochs,
        "batch_size": row.batch_size,
        "lr": row.lr,
    }
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
    return _presets()[one(row_id).id]


@cache
def _presets() -> dict[str, str]:
    firsts: dict[str, str] = {}
    return {row.id: firsts.setdefault(_fingerprint(row), row.id) for row in rows()}


def _fingerprint(row: Published) -> str:
    if row.post == "fastai":
        return row.id
    return json.dumps([configuration(row), row.wd_candidates, row.ema_momentum], sort_keys=True)
