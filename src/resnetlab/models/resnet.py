"""ResNets for small images: post-activation of depth 6n + 2 (v1) and pre-activation bottlenecks of depth 9n + 2 (v2).

v1. The body is the CIFAR network of He et al. 2015 (arXiv 1512.03385, section 4.2), with 1x1 projections where the
shape changes (their option B), as the fastai notebook on Leslie Smith's papers has it. Convolutions have no bias,
weights begin as PyTorch draws them. ResNet56v1 for 10 classes: 855,770 parameters.

v2. The layout is Rowel Atienza's (Advanced Deep Learning with Keras, chapter 2, resnet-cifar10-2.2.1.py), layer by
layer, including what distinguishes it from other code: biases in all convolutions, projection shortcuts on the raw
input in every stage, strides on the first 1x1 convolution. ResNet56v2: 1,663,338 trainable parameters + 10,400
batch-norm statistics, 58 convolutions, 0.386 GFLOP an image forward.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnetlab.errors import require, require_one_of
from resnetlab.models.norm import CHANNELS_PER_GROUP, Norm, norm_factory

Activation = Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, Activation] = {f.__name__: f for f in (F.relu, F.leaky_relu, F.elu, F.gelu, F.silu, F.mish)}

WIDTHS = (16, 32, 64)  # of v1

# the standard deviation of a normal distribution truncated at two of its standard deviations
TRUNCATED_STD = 0.87962566103423978


def he_normal_(weight: Tensor, generator: torch.Generator | None = None) -> None:
    """Keras' he_normal, in place: a normal truncated at 2 sd, whose standard deviation after it is sqrt(2 / fan_in)."""
    fan_in = weight[0].numel()
    std = math.sqrt(2.0 / fan_in) / TRUNCATED_STD
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std, generator=generator)


class Bottleneck(nn.Module):
    """x -> 1x1 (width, stride) -> 3x3 (width) -> 1x1 (out), each behind norm and activation, plus the shortcut.

    preactivate=False leaves out the first norm and activation, because the stem has just done them.
    project=True sends the raw input through a convolution of `shortcut_kernel`; otherwise the shortcut is the identity.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        out: int,
        stride: int,
        *,
        preactivate: bool,
        project: bool,
        shortcut_kernel: int,
        norm: Norm,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.norm1 = norm(channels) if preactivate else None
        self.conv1 = nn.Conv2d(channels, width, 1, stride=stride)
        self.norm2 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.norm3 = norm(width)
        self.conv3 = nn.Conv2d(width, out, 1)
        self.shortcut = (
            nn.Conv2d(channels, out, shortcut_kernel, stride=stride, padding=shortcut_kernel // 2) if project else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.norm1 is None else self.activation(self.norm1(x))
        y = self.conv1(y)
        y = self.conv2(self.activation(self.norm2(y)))
        y = self.conv3(self.activation(self.norm3(y)))
        return y + (x if self.shortcut is None else self.shortcut(x))


class ResNetV2(nn.Module):
    """(N, 3, H, W) float -> (N, classes) logits, for any H and W.

    Weights are drawn from `generator` (None: torch's global one). Raises ConfigError for impossible arguments.
    """

    def __init__(
        self,
        depth: int = 56,
        classes: int = 10,
        *,
        bn_momentum: float = 0.01,
        bn_eps: float = 1e-3,
        shortcut_kernel: int = 1,
        activation: str = "relu",
        zero_init_residual: bool = False,
        norm: str = "batch",
        channels_per_group: int = CHANNELS_PER_GROUP,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_v2(depth, shortcut_kernel, activation)
        make_norm = norm_factory(norm, bn_momentum, bn_eps, channels_per_group)
        self.activation, self.zero_init_residual = ACTIVATIONS[activation], zero_init_residual
        with torch.random.fork_rng(devices=[]):  # torch's layers draw weights of their own, which are replaced below
            self.stem = nn.Conv2d(3, 16, 3, padding=1)
            self.stem_norm = make_norm(16)
            block = partial(Bottleneck, shortcut_kernel=shortcut_kernel, norm=make_norm, activation=self.activation)
            units, channels = [], 16
            for stage, (width, out) in enumerate([(16, 64), (64, 128), (128, 256)]):
                for unit in range((depth - 2) // 9):
                    first, stride = unit == 0, 2 if unit == 0 and stage > 0 else 1
                    preactivate = unit > 0 or stage > 0
                    units.append(block(channels, width, out, stride, preactivate=preactivate, project=first))
                    channels = out
            self.units = nn.Sequential(*units)
            self.norm = make_norm(channels)
            self.head = nn.Linear(channels, classes)
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws every kernel anew from he_normal and sets every bias to zero.

        zero_init_residual: also each block's last kernel, so that it begins as its shortcut. Not the scale of its last
        norm, as in v1 (Goyal et al. 2017): the ReLU behind it would be 0 with derivative 0, and the block never train.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                he_normal_(module.weight, generator)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        for unit in self.units if self.zero_init_residual else ():
            nn.init.zeros_(unit.conv3.weight)  # type: ignore[union-attr,arg-type]

    def normalized_convolutions(self) -> list[tuple[object, object]]:
        """(convolution, batch norm) where the norm reads the convolution's output, and nothing else does."""
        units = [pair for unit in self.units for pair in ((unit.conv1, unit.norm2), (unit.conv2, unit.norm3))]
        return [pair for pair in [(self.stem, self.stem_norm), *units] if isinstance(pair[1], nn.BatchNorm2d)]

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.stem_norm(self.stem(x)))
        x = self.activation(self.norm(self.units(x)))
        return self.head(x.mean((2, 3)))


def check_v2(depth: int, shortcut_kernel: int, activation: str) -> None:
    """Raises ConfigError, naming the key and the value, for what no network can be built from."""
    depth_ok = 11 <= depth <= 2000 and (depth - 2) % 9 == 0
    require(depth_ok, "model.depth", depth, "be 9n + 2 with n >= 1: 11, 20, 29, ... 56, ... 110")
    kernel_ok = 1 <= shortcut_kernel <= 7 and shortcut_kernel % 2 == 1
    require(kernel_ok, "model.shortcut_kernel", shortcut_kernel, "be odd: 1 or 3")
    require_one_of("model.activation", activation, sorted(ACTIVATIONS))


# n = 2, 6 (the network of the published series) and 12; options as in ResNetV2
resnet20v2, resnet56v2, resnet110v2 = (partial(ResNetV2, depth) for depth in (20, 56, 110))


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
    """(N, 3, H, W) float -> (N, classes) logits, for any H and W.

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
    require_one_of("model.head", head, ("average", "concat"))
    require(0 <= dropout < 1, "model.dropout", dropout, "be in [0, 1)")
