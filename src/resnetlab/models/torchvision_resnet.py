"""torchvision's ResNet-18, and the ResNet-9 that "Experiments with CIFAR10" makes of the same parts."""

from typing import Any

from torch import nn

from resnetlab.errors import require_one_of
from resnetlab.models.norm import norm_factory

STEMS = ("cifar", "imagenet")
BLOCKS = {"resnet18": [2, 2, 2, 2], "resnet9": [1, 1, 1, 1]}  # basic blocks of 64, 128, 256, 512 channels


def torchvision_resnet(
    blocks: list[int], classes: int, *, stem: str = "cifar", zero_init_residual: bool = True, **norm: Any
) -> nn.Module:
    """(N, 3, H, W) -> (N, classes), its weights drawn from torch's global generator. Raises ConfigError.

    stem: "imagenet", torchvision's 7x7 convolution of stride 2 and max-pooling, which leave 8x8 of a CIFAR image, or
    "cifar", one 3x3 convolution of stride 1. zero_init_residual: blocks begin as the identity (Goyal et al. 2017).
    norm: arguments of `norm_factory`.
    """
    from torchvision.models.resnet import BasicBlock, ResNet  # takes seconds to import

    require_one_of("model.stem", stem, STEMS)
    make_norm = norm_factory(**norm, narrowest=64)
    model = ResNet(BasicBlock, blocks, classes, zero_init_residual, norm_layer=make_norm)
    if stem == "cifar":
        model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    return model
