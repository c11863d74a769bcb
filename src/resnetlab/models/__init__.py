"""Networks: plain nn.Modules, (N, 3, H, W) float -> (N, classes) logits, and their typed configuration."""

from dataclasses import dataclass

import torch
from torch import nn

from resnetlab.models.resnet_v2 import ResNetV2, check_arguments, resnet20v2, resnet56v2, resnet110v2

__all__ = ["MODELS", "Model", "ResNetV2", "resnet20v2", "resnet56v2", "resnet110v2"]


@dataclass
class Model:
    """A ResNet v2. The constants are Keras'; data=digits takes PyTorch's bn_momentum 0.1."""

    name: str = "resnet56v2"
    depth: int = 56
    bn_momentum: float = 0.01
    bn_eps: float = 1e-3
    shortcut_kernel: int = 1
    activation: str = "relu"
    norm: str = "batch"

    def check(self) -> None:
        check_arguments(self.depth, self.bn_momentum, self.bn_eps, self.shortcut_kernel, self.activation, self.norm)

    def build(self, classes: int, generator: torch.Generator | None = None) -> nn.Module:
        """The network, its weights drawn from `generator`."""
        return ResNetV2(
            self.depth,
            classes,
            bn_momentum=self.bn_momentum,
            bn_eps=self.bn_eps,
            shortcut_kernel=self.shortcut_kernel,
            activation=self.activation,
            norm=self.norm,
            generator=generator,
        )


MODELS: dict[str, Model] = {
    model.name: model for model in (Model("resnet20v2", 20), Model("resnet56v2", 56), Model("resnet110v2", 110))
}
