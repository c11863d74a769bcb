"""Normalization layers by name, and weight standardization (for norm=group_ws)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnetlab.errors import require, require_one_of

Norm = Callable[[int], nn.Module]  # of a number of channels

# Wu & He 2018, table 3: 16 channels a group do as well as 32 groups, and 16 is our narrowest layer
CHANNELS_PER_GROUP = 16


def norm_factory(
    norm: str, bn_momentum: float, bn_eps: float, channels_per_group: int, *, flat: bool = False, narrowest: int = 16
) -> Norm:
    """Returns a function channels -> layer, for (N, C, H, W), or for (N, C) with `flat`.

    bn_momentum is PyTorch's (the weight of the new batch): Keras' momentum 0.99 is 0.01 here.
    narrowest: channels of the network's narrowest layer, which those of the others are multiples of.
    Group norm keeps no running statistics, so it behaves the same in training and evaluation. group_ws is group norm
    too; the convolutions of the network then have standardized weights, see `standardize_weights`. Raises ConfigError.
    """
    require(0 < bn_momentum <= 1, "model.bn_momentum", bn_momentum, "be in (0, 1]; Keras' 0.99 is 0.01 here")
    require(0 < bn_eps < 1, "model.bn_eps", bn_eps, "be in (0, 1)")
    require_one_of("model.norm", norm, ("batch", "group", "group_ws"))
    divides = channels_per_group >= 1 and narrowest % channels_per_group == 0
    must = f"divide the {narrowest} channels of the narrowest layer"
    require(divides, "model.channels_per_group", channels_per_group, must)
    used = norm != "batch" or channels_per_group == CHANNELS_PER_GROUP
    require(used, "model.channels_per_group", channels_per_group, "be left out with model.norm=batch")
    if norm == "batch":
        layer = nn.BatchNorm1d if flat else nn.BatchNorm2d
        return lambda channels: layer(channels, eps=bn_eps, momentum=bn_momentum)
    return lambda channels: nn.GroupNorm(channels // channels_per_group, channels, eps=bn_eps)


class StandardizedConv2d(nn.Conv2d):
    """A convolution whose kernels have mean 0 and standard deviation 1 over (in, height, width) when they are used.

    Qiao et al. 2019, Micro-Batch Training with Batch-Channel Normalization and Weight Standardization
    (arXiv 1903.10520): what the optimizer moves, and what decay acts on, is the weight before that.
    """

    def standardized(self) -> Tensor:
        deviation, mean = torch.std_mean(self.weight, dim=(1, 2, 3), keepdim=True)
        return (self.weight - mean) / (deviation + 1e-5)  # their epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.standardized(), self.bias, self.stride, self.padding, self.dilation, self.groups)


def standardize_weights(model: nn.Module) -> None:
    """Turns every convolution of the model into a StandardizedConv2d, in place; its parameters stay what they were."""
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = StandardizedConv2d
