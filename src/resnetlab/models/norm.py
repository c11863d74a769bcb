"""Normalisation layers by name."""

from collections.abc import Callable

from torch import nn

from resnetlab.errors import ConfigError

__all__ = ["NORMS", "norm_factory"]

NORMS = ("batch", "group")

# Wu & He 2018, table 3: 16 channels a group do as well as 32 groups, and 16 is our narrowest layer
CHANNELS_PER_GROUP = 16


def norm_factory(norm: str, bn_momentum: float, bn_eps: float) -> Callable[[int], nn.Module]:
    """Returns a function channels -> layer.

    bn_momentum is PyTorch's (the weight of the new batch): Keras' momentum 0.99 is 0.01 here.
    Group norm keeps no running statistics, so it behaves the same in training and evaluation.
    """
    if norm == "batch":
        return lambda channels: nn.BatchNorm2d(channels, eps=bn_eps, momentum=bn_momentum)
    if norm == "group":
        return lambda channels: nn.GroupNorm(max(1, channels // CHANNELS_PER_GROUP), channels, eps=bn_eps)
    raise ConfigError(f"model.norm (={norm}) must be one of {', '.join(NORMS)}")
