"""Loss and accuracy along the straight line through the weights of two checkpoints.

w(alpha) = alpha * A + (1 - alpha) * B, so alpha 1 is A and alpha 0 is B (Goodfellow et al. 2014, arXiv 1412.6544; Smith
& Topin 2017, arXiv 1702.04283). The statistics of a batch norm are on the same line, or re-estimated for each set of
weights. On the line variances turn negative far enough outside of [0, 1]: below minus the norm's eps the loss is nan.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from torch import Tensor, nn

from resnetlab.config.identity import NOT_IDENTITY
from resnetlab.config.schema import Config
from resnetlab.config.trainer import TrainerOptions
from resnetlab.console import Countdown, say
from resnetlab.data import ImageData, Images
from resnetlab.errors import ConfigError, DataError
from resnetlab.optim.averaging import batch_norms, reestimated_statistics
from resnetlab.runs.files import digest, make_folder, write_rows
from resnetlab.runs.summary import Row
from resnetlab.training.evaluate import evaluate, open_checkpoint, without_guesses
from resnetlab.training.module import ImageClassifier
from resnetlab.training.plots import draw_interpolation, write_even_if_interrupted

State = dict[str, Tensor]


def between(a: State, b: State, alpha: float) -> State:
    """alpha * a + (1 - alpha) * b of every floating-point tensor, a and b themselves at 1 and 0; others are a's."""
    if alpha in (0, 1):
        return a if alpha else b
    return {key: alpha * a[key] + (1 - alpha) * b[key] if a[key].is_floating_point() else a[key] for key in a}


def negative_variances(model: nn.Module) -> int:
    """The number of channels whose running variance has no root, the norm's eps added."""
    variances = [(norm.running_var, norm.eps) for norm in batch_norms(model)]
    return sum(int((variance + eps <= 0).sum()) for variance, eps in variances if variance is not None)


def interpolate(
    first: Path, second: Path, alphas: Sequence[float], limit: int | None = None, **opened: str | None
) -> Iterator[Row]:
    """A row for each alpha: train/* and val/* loss, ce, acc with statistics on the line, and *_recal re-estimated.

    limit: only the first N training and N/5 validation images. opened: root and model, as for read_config. Training
    images are not augmented here; a penalty in the loss is A's. Where a variance on the line is negative its metrics
    are nan, and negative_variances counts them. Statistics are re-estimated on the batches of the nearer end's epoch:
    at 0 and 1 they are those of the checkpoints' own val/*_recal. Raises DataError and ConfigError.
    """
    (module, data, end), (other, _, start) = (open_checkpoint(path, **opened) for path in (first, second))
    refuse_different(first, second, module.config, other.config)
    if limit is not None and limit < 10:
        raise ConfigError(f"--limit (={limit}) must be at least 10 images")
    states = [{k: v.clone() for k, v in found.model.state_dict().items()} for found in (module, other)]
    module.to(TrainerOptions().device)
    parts = {"train": data.train[:limit], "val": data.val[: limit and limit // 5]}
    counts = " and ".join(f"{len(images):,} {part}" for part, images in parts.items())
    subset = ": a subset" if limit is not None or data.limited else ""
    say(f"{len(alphas)} alphas, {counts} images each{subset}")
    countdown = Countdown("alpha", len(alphas))
    for alpha in alphas:
        module.model.load_state_dict(between(states[0], states[1], alpha))
        row: Row = {"alpha": alpha, **evaluate_parts(module, data, parts)}
        if batch_norms(module.model):
            row["negative_variances"] = negative_variances(module.model)
            images, epoch = module.config.trainer.recalibration_images, (end if alpha >= 0.5 else start)["epoch"] + 1
            with reestimated_statistics(module.model, data.recalibration_inputs(images, epoch, module.device)):
                row |= {f"{key}_recal": value for key, value in evaluate_parts(module, data, parts).items()}
        yield row
        countdown.tick()


def refuse_different(first: Path, second: Path, a: Config, b: Config) -> None:
    """Raises DataError unless both are the same network on the same images, wherever those lie."""
    for group in ("model", "data"):
        part, other = asdict(getattr(a, group)), asdict(getattr(b, group))
        for key, value in part.items():
            if f"{group}.{key}" not in NOT_IDENTITY and value != other.get(key):
                found = f"{group}.{key} ({value} and {other.get(key)})"
                advice = "interpolate between two checkpoints of one network on the same data"
                raise DataError(f"{first} and {second} differ in {found}; {advice}")


def evaluate_parts(module: ImageClassifier, data: ImageData, parts: dict[str, Images]) -> Row:
    """{part/name: value}."""
    row: Row = {}
    for part, images in parts.items():
        metrics = without_guesses(evaluate(module, data, images, module.device)[0])
        row |= {f"{part}/{name}": metrics[name] for name in ("loss", "ce", "acc")}
    return row


def interpolate_command(
    first: Path, second: Path, alpha: str, limit: int | None, out: Path | None, **opened: str | None
) -> Path:
    """Writes interpolation.png and .csv, into A's run unless `out` says where; returns their folder."""
    along = alphas(alpha)
    if first.resolve() == second.resolve():
        raise ConfigError(f"{first} and {second} are one file; interpolate between two")
    if out is not None:
        make_folder(out)
    other = "" if first.resolve().parent == second.resolve().parent else f"-{digest(str(second.resolve()))}"
    folder = out or first.parent.parent / f"interpolation-{first.stem}-{second.stem}{other}"
    names = (first.stem, second.stem) if first.stem != second.stem else (f"A, {first.stem}", f"B, {second.stem}")
    rows: list[Row] = []
    with write_even_if_interrupted(lambda: write_interpolation(folder, rows, *names), rows):
        for row in interpolate(first, second, along, limit, **opened):
            rows.append(row)  # list.extend would keep none of them if it is interrupted
    return folder


def write_interpolation(folder: Path, rows: Sequence[Row], first: str, second: str) -> None:
    """Writes both files, and prints where the validation cross-entropy is least."""
    write_rows(folder / "interpolation.csv", rows)
    draw_interpolation(rows, first, second, folder / "interpolation.png")
    key, how = "val/ce", ""
    if "val/ce_recal" in rows[0]:
        key, how = "val/ce_recal", " with re-estimated batch-norm statistics"
    if finite := [row for row in rows if math.isfinite(row[key])]:
        best = min(finite, key=lambda row: row[key])
        place = f"{best[key]:.4f} at alpha {best['alpha']:g}"
        say(f"least validation cross-entropy {place}{how}; {first} is at 1, {second} at 0")
    if negative := sum(row.get("negative_variances", 0) > 0 for row in rows):
        say(f"at {negative} of {len(rows)} alphas running variances on the line are negative, with no loss there")
    say(f"picture, metrics: {folder / 'interpolation.png'}, {folder / 'interpolation.csv'}")


def alphas(text: str) -> list[float]:
    """ "-0.5:1.5:41" is 41 numbers from -0.5 to 1.5; "0,0.5,1" these three. Raises ConfigError."""
    try:
        numbers = arithmetic_sequence(*text.split(":")) if ":" in text else [float(part) for part in text.split(",")]
    except (ValueError, TypeError):
        numbers = []
    if not numbers or not all(abs(alpha) < 1e6 for alpha in numbers):
        shape = "start:stop:count, such as -0.5:1.5:41 (count is at least 2), or numbers: 0,0.5,1"
        raise ConfigError(f"--alpha (={text}) must be {shape}; all of them below a million in size")
    return [round(alpha, 12) for alpha in numbers]  # so that the ends are 0 and 1 where they are meant


def arithmetic_sequence(start: str, stop: str, count: str) -> list[float]:
    first, last, n = float(start), float(stop), int(count)
    return [first + (last - first) * i / (n - 1) for i in range(n)] if 2 <= n <= 100_000 else []
