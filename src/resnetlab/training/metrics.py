"""Metrics of an epoch, of training and of validation, kept on the device until the epoch ends."""

from typing import cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric, SumMetric
from torchmetrics.classification import MulticlassAccuracy

from resnetlab.training.distributed import all_reduce_sum


class TrainMetrics:
    """Means over images of loss (with penalty), ce (cross-entropy) and acc: sums in one tensor, added to in place."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)

    def add(self, loss: Tensor, ce: Tensor, correct: Tensor, images: int) -> None:
        """Adds a batch: scalar means over its `images`, and the number of correct answers."""
        weighted = torch.stack([loss.double(), ce.double(), torch.ones_like(loss, dtype=torch.float64)]) * images
        self.sums.add_(torch.cat([weighted, correct.double().view(1)]))

    def compute(self, prefix: str = "") -> dict[str, float]:
        """The means since the last call, over all processes that train together, and starts anew."""
        loss, ce, images, correct = all_reduce_sum(self.sums).tolist()
        self.sums.zero_()
        return {f"{prefix}loss": loss / images, f"{prefix}ce": ce / images, f"{prefix}acc": correct / images}


class EvalMetrics(nn.Module):
    """Means over images: loss (with penalty), ce (cross-entropy), acc (top-1), acc5 (top-5, above five classes).

    update() reads nothing back from the device; compute() does, once for all of them.
    """

    def __init__(self, classes: int, top5: bool = False) -> None:
        super().__init__()
        # Sums, because MeanMetric (torchmetrics 1.9) drops the weights if its check for NaN, a host sync, is disabled.
        # float64, because the mean over 50,000 images should not depend on how they were batched.
        self.sums = nn.ModuleDict(
            {name: SumMetric(nan_strategy="disable").set_dtype(torch.float64) for name in ("images", "loss", "ce")}
        )
        self.accuracies = nn.ModuleDict(
            {
                name: MulticlassAccuracy(classes, top_k=k, average="micro", validate_args=False)
                for name, k in {"acc": 1, "acc5": 5}.items()
                if k == 1 or (top5 and classes > k)
            }
        )

    def update(self, loss: Tensor, ce: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Adds a batch: scalar means over it, logits (N, classes), labels (N,)."""
        # made on the device: torchmetrics would copy a Python number there, and wait for it
        images = loss.detach().new_full((), len(labels), dtype=torch.float64)
        for name, summand in (("images", images), ("loss", loss.detach() * images), ("ce", ce.detach() * images)):
            cast(Metric, self.sums[name]).update(summand)
        for accuracy in self.accuracies.values():
            cast(Metric, accuracy).update(logits.detach(), labels)

    def compute(self, prefix: str = "", suffix: str = "") -> dict[str, float]:
        """The means since the last call, as {prefix + name + suffix: value}, and starts anew."""
        metrics: dict[str, Metric] = {**self.sums, **self.accuracies}  # type: ignore[dict-item]
        values = torch.stack([metric.compute().double() for metric in metrics.values()]).tolist()
        for metric in metrics.values():
            metric.reset()
        means = dict(zip(metrics, values, strict=True))
        images = round(means.pop("images"))
        for name in means:  # accuracies: from float32 back to the exact share, so that 9,200 of 10,000 reach 0.92
            total = means[name] if name in self.sums else round(means[name] * images)
            means[name] = total / images
        return {f"{prefix}{name}{suffix}": value for name, value in means.items()}
