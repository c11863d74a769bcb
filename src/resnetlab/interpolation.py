"""Loss and accuracy along the straight line through the weights of two checkpoints.

w(alpha) = alpha * A + (1 - alpha) * B, so alpha 1 is A and alpha 0 is B (Goodfellow et al. 2014, arXiv 1412.6544; Smith
& Topin 2017, arXiv 1702.04283). A network with batch norm has running statistics too, and there are two answers to what
they should be in between: on the same line as the weights, or re-estimated for each set of weights. On the line the
running variances turn negative when alpha is far enough outside of [0, 1]; once they are below minus the norm's eps,
the square root is not a number, and neither is the loss. Re-estimated variances are never negative.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from resnetlab.averaging import batch_norms, reestimated_statistics
from resnetlab.config import Config
from resnetlab.data import ImageData, Images
from resnetlab.errors import ConfigError, DataError
from resnetlab.evaluation import evaluate, open_checkpoint
from resnetlab.module import Lab
from resnetlab.speech import Countdown, speak
from resnetlab.trainer import TrainerOptions

__all__ = ["interpolate", "line", "negative_variances"]

Row = dict[str, float]
State = dict[str, Tensor]


def line(a: State, b: State, alpha: float) -> State:
    """alpha * a + (1 - alpha) * b of every floating-point tensor, a and b themselves at 1 and 0; others are a's."""
    if alpha in (0, 1):
        return a if alpha else b
    return {key: alpha * a[key] + (1 - alpha) * b[key] if a[key].is_floating_point() else a[key] for key in a}


def negative_variances(model: nn.Module) -> int:
    """The number of channels whose running variance has no root, the norm's eps added."""
    return sum(
        int((norm.running_var + norm.eps <= 0).sum()) for norm in batch_norms(model) if norm.running_var is not None
    )


def interpolate(
    first: Path, second: Path, alphas: Sequence[float], limit: int | None = None, root: str | None = None
) -> Iterator[Row]:
    """A row for each alpha: train/* and val/* loss, ce, acc with statistics on the line, and *_recal re-estimated.

    limit: only the first N training and N/5 validation images. Training images are not augmented here; a penalty in the
    loss is A's. Where a variance on the line is negative its figures are nan, and negative_variances counts them.
    Statistics are re-estimated on the batches of the nearer end's epoch, so that at 0 and 1 they are those of the
    checkpoints' own val/*_recal. Raises DataError and ConfigError.
    """
    a, b = open_checkpoint(first, root), open_checkpoint(second, root)
    refuse_different(first, second, a.config, b.config)
    if limit is not None and limit < 10:
        raise ConfigError(f"--limit (={limit}) must be at least 10 images")
    module, data, device = a.module, a.data, TrainerOptions().device
    states = [{k: v.clone() for k, v in found.module.model.state_dict().items()} for found in (a, b)]
    parts = {"train": head(data.train, limit), "val": head(data.val, limit and limit // 5)}
    counts = " and ".join(f"{len(images):,} {part}" for part, images in parts.items())
    subset = limit is not None or data.limited
    speak(f"{len(alphas)} alphas, {counts} images each{': a subset' if subset else ''}")
    module.to(device)
    countdown = Countdown("alpha", len(alphas))
    for alpha in alphas:
        module.model.load_state_dict(line(states[0], states[1], alpha))
        row: Row = {"alpha": alpha, **figures(module, data, parts, device)}
        if batch_norms(module.model):
            row["negative_variances"] = negative_variances(module.model)
            epoch = a.epoch if alpha >= 0.5 else b.epoch
            inputs = data.recalibration_inputs(module.recalibration_images, epoch, device)
            with reestimated_statistics(module.model, inputs):
                row |= {f"{key}_recal": value for key, value in figures(module, data, parts, device).items()}
        yield row
        countdown.tick()


def refuse_different(first: Path, second: Path, a: Config, b: Config) -> None:
    """Raises DataError unless both are the same network on the same images, wherever those lie."""
    for group in ("model", "data"):
        part, other = asdict(getattr(a, group)), asdict(getattr(b, group))
        for key, value in part.items():
            if (group, key) != ("data", "root") and value != other.get(key):
                raise DataError(
                    f"{first} and {second} differ in {group}.{key} ({value} and {other.get(key)}); interpolate between "
                    f"two checkpoints of one network on the same data"
                )


def head(images: Images, count: int | None) -> Images:
    """The first `count` of them; all with None."""
    return images if count is None else replace(images, pixels=images.pixels[:count], labels=images.labels[:count])


def figures(module: Lab, data: ImageData, parts: dict[str, Images], device: torch.device) -> Row:
    """{part/name: value}; an accuracy is nan where the loss is, because it would be that of guessing class 0."""
    row: Row = {}
    for part, images in parts.items():
        found, _ = evaluate(module, data, images, device)
        bad = found["ce"] != found["ce"]
        row |= {f"{part}/{name}": float("nan") if bad else found[name] for name in ("loss", "ce", "acc")}
    return row
