"""Networks: plain nn.Modules, (N, 3, H, W) float -> (N, classes) logits, and their typed configuration."""

from resnetlab.models.options import MODELS, torchvision_resnet
from resnetlab.models.resnet import ResNetV1, ResNetV2, resnet20v2, resnet56v2, resnet110v2

__all__ = ["MODELS", "ResNetV1", "ResNetV2", "resnet20v2", "resnet56v2", "resnet110v2", "torchvision_resnet"]
