"""Write the comment lines at the top of a preset: what was published, what was filled in, what to try."""

import textwrap
from collections.abc import Iterator

from resnetlab.published.configuration import fill, preset_of
from resnetlab.published.results import Published, rows

TITLES = {
    **{post: f"Post {post} of the series" for post in ("I", "II", "IV", "V", "VI")},
    "atienza": "Atienza's own figures",
    "part1": "Experiments with CIFAR10, part 1",
    "part2": "Experiments with CIFAR10, part 2",
}

PLATEAU = "Atienza's code also has ReduceLROnPlateau(factor=0.316, patience=5)."
NOTES = {
    "atienza-resnet56v2-200": PLATEAU,
    "atienza-resnet56v1-200": f"{PLATEAU} His v1 has biases, and no norm on its shortcuts; this is He's.",
}

BOUNDS = {None: "in epoch", ">": "later than epoch", "<=": "by epoch", "<": "before epoch"}
ATIENZAS_DROPS = (80, 120, 160, 180, 200)


def header(row: Published) -> list[str]:
    """The lines, each beginning with "#", at most 120 characters wide unless an address is longer."""
    others = [other for other in rows() if other.id != row.id and preset_of(other.id) == row.id]
    run = "" if row.run == row.id else f", run {row.run}"
    lines = [f"{TITLES[row.post]}, {row.table}{run}: {_recipe(row)}.", f"  python train.py experiment={row.id}"]
    lines += [f"Published, {_count(row)}: {figures(row)}. Confidence: {row.confidence}."]
    lines += [f"Also {other.id}, {_count(other)}: {figures(other)}." for other in others]
    lines += [f"Source: {row.source}", *_origins(row), *_notes(row)]
    lines += [NOTES[note] for note in (row.id, *(other.id for other in others)) if note in NOTES]
    lines += [f"Remark: {row.comment}"] if row.comment else []
    return [line for text in lines for line in _comment(text)]


def _recipe(row: Published) -> str:
    filled, _ = fill(row)
    parts = [filled.model, filled.optimizer, filled.schedule, f"lr {filled.lr:g}"]
    parts += ["wd lost"] if row.wd is None else [f"wd {row.wd:g}"] if row.wd else []
    parts += [f"l2 {filled.l2:g}"] if filled.l2 else []
    parts += ["nothing that holds the weights"] if row.regularization == "none" else []
    return ", ".join(map(str, parts))


def figures(row: Published) -> str:
    """What was measured, for example "val_acc 0.93 in epoch 50, best 0.933 in epoch 58"; epochs count from 1."""
    return ", ".join(_figures(row))


def _figures(row: Published) -> Iterator[str]:
    if row.epoch_at_threshold is not None:
        value = row.threshold if row.val_acc_at_threshold is None else row.val_acc_at_threshold
        yield f"val_acc {value:g} {BOUNDS[row.bound]} {row.epoch(row.epoch_at_threshold)}"
    elif row.threshold is not None and row.val_acc_best is None:
        yield f"val_acc {row.threshold:g} not reached"
    if row.val_acc_best is not None:
        yield f"best {row.val_acc_best:g}" + (
            "" if row.epoch_best is None else f" in epoch {row.epoch(row.epoch_best)}"
        )
    for name, value in {"loss": row.final_loss, "val_loss": row.final_val_loss}.items():
        if value is not None:
            yield f"{name} {value:g}"
    precision = "" if row.precision is None else f" in {row.precision}"
    for unit, value in {"s an epoch": row.seconds_per_epoch, "W": row.power_w}.items():
        if value is not None:
            yield f"{value:g} {unit}{precision}"


def _count(row: Published) -> str:
    return "n not printed" if row.n is None else f"n = {row.n}"


def _origins(row: Published) -> Iterator[str]:
    """Where the values come from that the row itself does not print."""
    filled, why = fill(row)
    nearby = [field for field in row.inferred if field not in why]
    if nearby:
        yield f"From the text around the row or the code it refers to: {', '.join(nearby)}."
    for reason, fields in _by_reason({field: why[field] for field in why if field != "wd"}).items():
        values = ", ".join(f"{field} {_shown(getattr(filled, field))}" for field in fields)
        yield f"Filled in: {values} ({reason})."
    if row.wd_candidates:
        values = ",".join(f"{wd:g}" for wd in sorted(row.wd_candidates))
        yield f"wd is lost in print, {filled.wd:g} is filled in. The candidates:"
        yield f"  python train.py experiment={row.id} -m wd={values}"


def _by_reason(why: dict[str, str]) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for field, reason in why.items():
        fields.setdefault(reason, []).append(field)
    return fields


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return str([list(point) for point in value])
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _notes(row: Published) -> Iterator[str]:
    if row.ema_momentum is not None:
        yield (
            f"m {row.ema_momentum:g} is printed, Keras' ema_momentum, which does nothing without use_ema=True; no post "
            f"mentions that. To try it: averaging=ema ema_momentum={row.ema_momentum:g}"
        )
    if row.split == "stratified":
        yield "The size of the validation set is not printed: 10,000 of all 60,000 images (data.val_size, data.pool)."
    if row.options.get("data.translate") == "pad_crop":
        yield (
            "The source pads with black (data.fill=black), here it is with the mean. It divides by (0.2023, "
            "0.1994, 0.2010), the mean deviations of an image, here by those of all pixels: the norm after the first "
            "convolution removes the factor but for 7 % between the channels."
        )
    if row.precision == "32-true":
        yield "On a GPU, where trainer.precision=auto is 16-mixed, add trainer.precision=32-true."
    if row.milestones is not None and tuple(epoch for epoch, _ in row.milestones) == ATIENZAS_DROPS:
        later = "schedule.milestones=[[81,1],[121,0.1],[161,0.01],[181,0.001],[200,0.0005]]"
        yield f"Atienza's code asks `epoch > 80` of epochs counted from 0, so each drop comes one epoch later: {later}"
    if "averaging.start" in row.options:
        yield "In the SWA phase the notebook's momentum is 0.9; here it stays where 1cycle leaves it, at 0.95."


def _comment(text: str) -> list[str]:
    indent = "#   " if text.startswith("  ") else "# "
    return textwrap.wrap(
        text.strip(),
        120,
        initial_indent=indent,
        subsequent_indent="#   ",
        break_long_words=False,
        break_on_hyphens=False,
    )
