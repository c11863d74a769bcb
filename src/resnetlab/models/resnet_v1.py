"""Post-activation ResNets of depth 6n + 2 for small images, with an average-pooling head or the fastai notebook's.

The body is the CIFAR network of He et al. 2015 (arXiv 1512.03385, section 4.2), with 1x1 projections where the shape
changes (their option B), as the fastai notebook on Leslie Smith's papers has it. Convolutions have no bias, weights
begin as PyTorch draws them. ResNet56v1 for 10 classes: 855,770 parameters.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnetlab.errors import require, require_one_of
from resnetlab.models.norm import CHANNELS_PER_GROUP, Norm, norm_factory

HEADS = ("average", "concat")
WIDTHS = (16, 32, 64)
Activation = Callable[[Tensor], Tensor]


class BasicBlock(nn.Module):
    """x -> 3x3 (stride) -> 3x3, each with its norm, plus the shortcut; activation after the first and after the sum."""

    def __init__(self, channels: int, out: int, stride: int, norm: Norm, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.conv1 = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = norm(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = norm(out)
        projects = stride != 1 or channels != out
        self.shortcut = (
            nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), norm(out)) if projects else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.activation(self.norm1(self.conv1(x)))))
        return self.activation(y + (x if self.shortcut is None else self.shortcut(x)))


class ConcatHead(nn.Module):
    """Maximum and average over the image side by side, then norm, dropout, 128 units, norm, dropout, logits.

    fastai v1's head for convolutional networks; the first dropout is half the second.
    """

    def __init__(self, channels: int, classes: int, dropout: float, norm: Norm) -> None:
        super().__init__()
        wide = 2 * channels
        units = [norm(wide), nn.Dropout(dropout / 2), nn.Linear(wide, 128), nn.ReLU()]
        self.layers = nn.Sequential(*units, norm(128), nn.Dropout(dropout), nn.Linear(128, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(torch.cat([x.amax((2, 3)), x.mean((2, 3))], 1))


class AverageHead(nn.Module):
    """The average over the image, then logits."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((2, 3)))


class ResNetV1(nn.Module):
    """(N, 3, H, W) float -> (N, classes) logits, for any H and W from 4 up.

    Weights are drawn from torch's global generator. Raises ConfigError for impossible arguments.
    """

    def __init__(
        self,
        depth: int = 56,
        classes: int = 10,
        *,
        bn_momentum: float = 0.1,
        bn_eps: float = 1e-5,
        activation: Activation = F.relu,
        norm: str = "batch",
        channels_per_group: int = CHANNELS_PER_GROUP,
        head: str = "average",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_v1(depth, head, dropout)
        norms = norm, bn_momentum, bn_eps, channels_per_group
        make_norm, flat_norm = norm_factory(*norms), norm_factory(*norms, flat=True)
        self.activation = activation
        self.stem = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.stem_norm = make_norm(WIDTHS[0])
        blocks, channels = [], WIDTHS[0]
        for stage, width in enumerate(WIDTHS):
            for block in range((depth - 2) // 6):
                stride = 2 if block == 0 and stage > 0 else 1
                blocks.append(BasicBlock(channels, width, stride, make_norm, activation))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        concat = head == "concat"
        self.head = ConcatHead(channels, classes, dropout, flat_norm) if concat else AverageHead(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.stem_norm(self.stem(x)))
        return self.head(self.blocks(x))


def check_v1(depth: int, head: str, dropout: float) -> None:
    """Raises ConfigError, naming the key and the value."""
    depth_ok = 8 <= depth <= 2000 and (depth - 2) % 6 == 0
    require(depth_ok, "model.depth", depth, "be 6n + 2 with n >= 1: 8, 14, 20, ... 56, ... 110")
    require_one_of("model.head", head, HEADS)
    require(0 <= dropout < 1, "model.dropout", dropout, "be in [0, 1)")
