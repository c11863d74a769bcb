"""The statistics of one pass over a set of images, kept on the device until they are asked for."""

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

__all__ = ["Meter"]


class Meter(nn.Module):
    """Means over images: loss (with penalty), ce (cross-entropy), acc (top-1), acc5 (top-5, for more than five classes).

    update() reads nothing back from the device; compute() does, once for all figures.
    """

    def __init__(self, classes: int, top5: bool = False) -> None:
        super().__init__()
        # float64: the mean over 50,000 images then does not depend on how they were batched (to about 1e-12)
        self.loss = MeanMetric(nan_strategy="disable").set_dtype(torch.float64)
        self.ce = MeanMetric(nan_strategy="disable").set_dtype(torch.float64)
        self.accuracies = nn.ModuleDict(
            {
                name: MulticlassAccuracy(classes, top_k=k, average="micro", validate_args=False)
                for name, k in {"acc": 1, "acc5": 5}.items()
                if k == 1 or (top5 and classes > k)
            }
        )

    def update(self, loss: Tensor, ce: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Adds a batch: scalar means over it, logits (N, classes), labels (N,)."""
        images = len(labels)
        self.loss.update(loss.detach().double(), images)
        self.ce.update(ce.detach().double(), images)
        for accuracy in self.accuracies.values():
            accuracy.update(logits.detach(), labels)

    def compute(self, prefix: str = "", suffix: str = "") -> dict[str, float]:
        """The means since the last call, as {prefix + name + suffix: value}, and starts anew."""
        metrics = {"loss": self.loss, "ce": self.ce, **self.accuracies}
        values = torch.stack([self.loss.weight, *(metric.compute().double() for metric in metrics.values())]).tolist()
        for metric in metrics.values():
            metric.reset()
        images, figures = round(values[0]), dict(zip(metrics, values[1:], strict=True))
        for name in self.accuracies:  # from float32 back to the exact share, so that 9,200 of 10,000 reach 0.92
            figures[name] = round(figures[name] * images) / images
        return {f"{prefix}{name}{suffix}": value for name, value in figures.items()}
