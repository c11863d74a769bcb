"""Loss and accuracy along the straight line through the weights of two checkpoints.

w(alpha) = alpha * A + (1 - alpha) * B, so alpha 1 is A and alpha 0 is B (Goodfellow et al. 2014, arXiv 1412.6544; Smith
& Topin 2017, arXiv 1702.04283). A network with batch norm has running statistics too, and there are two answers to what
they should be in between: on the same line as the weights, or re-estimated for each set of weights. On the line the
running variances turn negative when alpha is far enough outside of [0, 1], their square root is not a number, and so is
the loss; re-estimated variances cannot.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from resnetlab.averaging import batch_norms, reestimated_statistics
from resnetlab.data import ImageData, Images
from resnetlab.errors import DataError
from resnetlab.evaluation import evaluate, open_checkpoint
from resnetlab.module import Lab
from resnetlab.speech import Countdown
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
    """The number of channels whose running variance is below 0."""
    return sum(int((norm.running_var < 0).sum()) for norm in batch_norms(model) if norm.running_var is not None)


def interpolate(
    first: Path, second: Path, alphas: Sequence[float], limit: int | None = None, root: str | None = None
) -> list[Row]:
    """A row for each alpha: train/* and val/* loss, ce, acc with statistics on the line, and *_recal re-estimated.

    limit: only the first N training and N/5 validation images. Training images are not augmented here. Where a variance
    on the line is negative, its figures are nan, and negative_variances counts them. The statistics are re-estimated on
    the batches of A's epoch, so at alpha 1 they are those of its own val/*_recal. Raises DataError.
    """
    module, data, epoch = open_checkpoint(first, root)
    other, _, _ = open_checkpoint(second, root)
    a, b = ({k: v.clone() for k, v in m.model.state_dict().items()} for m in (module, other))
    if {key: tensor.shape for key, tensor in a.items()} != {key: tensor.shape for key, tensor in b.items()}:
        raise DataError(f"{first} and {second} hold different networks; interpolate between two of the same kind")
    parts = {"train": head(data.train, limit), "val": head(data.val, limit and limit // 5)}
    device = TrainerOptions().device
    module.to(device)
    rows, countdown = [], Countdown("alpha", len(alphas))
    for alpha in alphas:
        module.model.load_state_dict(line(a, b, alpha))
        row: Row = {"alpha": alpha, **figures(module, data, parts, device)}
        if batch_norms(module.model):
            row["negative_variances"] = negative_variances(module.model)
            inputs = data.recalibration_inputs(module.recalibration_images, epoch, device)
            with reestimated_statistics(module.model, inputs):
                row |= {f"{key}_recal": value for key, value in figures(module, data, parts, device).items()}
        rows.append(row)
        countdown.tick()
    return rows


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
