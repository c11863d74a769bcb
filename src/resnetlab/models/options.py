"""The networks' options: one dataclass each, its fields the keys of the group `model`, and what builds it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from resnetlab.dotted import call, error_in_one_line, import_callable
from resnetlab.errors import ConfigError, require, require_one_of
from resnetlab.models.norm import CHANNELS_PER_GROUP, norm_factory, standardize_weights
from resnetlab.models.resnet import ACTIVATIONS, ResNetV1, ResNetV2, check_v1, check_v2

STEMS = ("cifar", "imagenet")
BLOCKS = {"resnet18": [2, 2, 2, 2], "resnet9": [1, 1, 1, 1]}  # basic blocks of 64, 128, 256, 512 channels


@dataclass
class Model:
    """Base config of the group `model`: the keys that every network has."""

    name: str = "?"
    bn_momentum: float = 0.1  # weight of the new batch in batch norm's running statistics, in (0, 1]
    bn_eps: float = 1e-5  # added to the variance by batch norm and group norm
    norm: str = "batch"  # batch | group | group_ws: group norm with standardized weights
    channels_per_group: int = CHANNELS_PER_GROUP  # of norm=group and group_ws, a divisor of the narrowest layer's

    narrowest: ClassVar[int] = 16  # channels of the narrowest layer
    device: ClassVar[str] = "meta"  # of `skeleton`: shapes alone, nothing is computed

    def skeleton(self) -> nn.Module:
        """The network for 10 classes, to look at; no random number is drawn."""
        with torch.device(self.device), torch.random.fork_rng(devices=[]):
            return self._build(10, None).eval()

    def min_batch_size(self, height: int, width: int) -> int:
        """Smallest training batch of such images: 2 where a batch norm sees one value of a channel. Or ConfigError."""
        sizes: list[int] = []
        model = self.skeleton()
        for norm in (module for module in model.modules() if isinstance(module, _BatchNorm)):
            norm.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0][0, 0].numel()))
        must = f"return (2, 10) for images of (2, 3, {height}, {width})"
        with torch.no_grad(), error_in_one_line("model", self.name, f"{must}:"):
            shape = tuple(model(torch.zeros(2, 3, height, width, device=self.device)).shape)
        require(shape == (2, 10), "model", self.name, f"{must}, not {shape}")
        return 2 if 1 in sizes else 1

    def check(self) -> None:
        """Raises ConfigError, naming the key and the value, for what no network can be built from."""
        norm_factory(self.norm, self.bn_momentum, self.bn_eps, self.channels_per_group, narrowest=self.narrowest)

    def build(self, classes: int, generator: torch.Generator | None = None) -> nn.Module:
        """The network, its weights drawn from `generator` (None: torch's global one)."""
        model = self._build(classes, generator)
        if self.norm == "group_ws":
            standardize_weights(model)
        return model

    def arguments(self) -> dict[str, Any]:
        """The keys, which are the network's keyword arguments, without the name."""
        return {key.name: getattr(self, key.name) for key in fields(self) if key.name != "name"}

    def _build(self, classes: int, generator: torch.Generator | None) -> nn.Module:
        raise NotImplementedError(f"{type(self).__name__} has no _build")


@dataclass
class ResNetV2Model(Model):
    """Atienza's ResNet v2, with Keras' constants; data=digits takes PyTorch's bn_momentum 0.1."""

    name: str = "resnet56v2"
    depth: int = 56  # layers, 9n + 2
    bn_momentum: float = 0.01
    bn_eps: float = 1e-3
    shortcut_kernel: int = 1  # side of the convolutions in the shortcuts, in pixels; odd
    activation: str = "relu"  # relu | leaky_relu | elu | gelu | silu | mish
    # the last kernel of each block starts at 0, the block as its shortcut (Goyal et al. 2017, arXiv 1706.02677)
    zero_init_residual: bool = False

    def check(self) -> None:
        super().check()
        must = "be false with model.norm=group_ws, which divides each kernel by its deviation"
        divided = self.zero_init_residual and self.norm == "group_ws"
        require(not divided, "model.zero_init_residual", "true", must)
        check_v2(self.depth, self.shortcut_kernel, self.activation)

    def _build(self, classes: int, generator: torch.Generator | None) -> nn.Module:
        return ResNetV2(classes=classes, generator=generator, **self.arguments())


@dataclass
class ResNetV1Model(Model):
    """The ResNet v1 for CIFAR of He et al. 2015; head "concat", with its dropout, as in the fastai notebook."""

    name: str = "resnet56v1"
    depth: int = 56  # layers, 6n + 2
    activation: str = "relu"  # relu | leaky_relu | elu | gelu | silu | mish
    head: str = "average"  # average: global average pooling | concat: average and maximum, two dense layers, dropout
    dropout: float = 0.5  # of head=concat, in [0, 1): before the logits; half of it before the 128 units

    def check(self) -> None:
        super().check()
        check_v1(self.depth, self.head, self.dropout)
        require_one_of("model.activation", self.activation, sorted(ACTIVATIONS))
        if self.head == "average" and self.dropout != type(self).dropout:
            raise ConfigError(f"model.dropout (={self.dropout:g}) is used by model.head=concat only; leave it out")

    def _build(self, classes: int, generator: torch.Generator | None) -> nn.Module:
        with seeded_by(generator):
            return ResNetV1(classes=classes, **self.arguments() | {"activation": ACTIVATIONS[self.activation]})


@dataclass
class TorchvisionModel(Model):
    """torchvision's ResNet-18, or the ResNet-9 with one block a stage of "Experiments with CIFAR10"."""

    name: str = "resnet18"
    stem: str = "cifar"  # cifar: one 3x3 convolution of stride 1 | imagenet: 7x7 of stride 2, and a max pooling
    zero_init_residual: bool = True  # the last batch norm of each block starts at 0, the block as the identity

    narrowest: ClassVar[int] = 64

    def check(self) -> None:
        super().check()
        require_one_of("model.stem", self.stem, STEMS)

    def _build(self, classes: int, generator: torch.Generator | None) -> nn.Module:
        with seeded_by(generator):
            return torchvision_resnet(BLOCKS[self.name], classes, **self.arguments())


@dataclass
class CustomModel(Model):
    """A network of the user's: function(classes=10, **parameters) or (num_classes=10, ...), (N, 3, H, W) -> logits."""

    name: str = "custom"
    function: str = "???"  # dotted path of the class or function, such as my_module.Net; must be given
    parameters: Any = None  # its other keyword arguments, such as 'model.parameters={width: 32}'; null: none

    device: ClassVar[str] = "cpu"  # not all code can do without values

    def check(self) -> None:
        for key in fields(Model)[1:]:
            must = "be left out with model=custom, whose own keys are in model.parameters"
            require(getattr(self, key.name) == key.default, f"model.{key.name}", getattr(self, key.name), must)
        import_callable("model.function", self.function, "class or function")  # before images are decoded

    def _build(self, classes: int, generator: torch.Generator | None) -> nn.Module:
        names = import_callable("model.function", self.function, "class or function")[1]
        key = "classes" if "classes" in names else "num_classes"
        with seeded_by(generator):
            return call("model.function", self.function, self.parameters, nn.Module, **{key: classes})


def torchvision_resnet(
    blocks: list[int],
    classes: int,
    *,
    stem: str = "cifar",
    zero_init_residual: bool = True,
    bn_momentum: float = 0.1,
    bn_eps: float = 1e-5,
    norm: str = "batch",
    channels_per_group: int = CHANNELS_PER_GROUP,
) -> nn.Module:
    """(N, 3, H, W) -> (N, classes), its weights drawn from torch's global generator. Raises ConfigError.

    stem: "imagenet", torchvision's 7x7 convolution of stride 2 and max-pooling, which leave 8x8 of a CIFAR image, or
    "cifar", one 3x3 convolution of stride 1. zero_init_residual: blocks begin as the identity (Goyal et al. 2017).
    """
    from torchvision.models.resnet import BasicBlock, ResNet  # takes seconds to import

    require_one_of("model.stem", stem, STEMS)
    make_norm = norm_factory(norm, bn_momentum, bn_eps, channels_per_group, narrowest=64)
    model = ResNet(BasicBlock, blocks, classes, zero_init_residual, norm_layer=make_norm)
    if stem == "cifar":
        model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    return model


@contextmanager
def seeded_by(generator: torch.Generator | None) -> Iterator[None]:
    """Seeds torch's global generator from `generator`, and restores it on exit. None: no change."""
    with torch.random.fork_rng(devices=[], enabled=generator is not None):
        if generator is not None:  # not torch.manual_seed, which would seed the GPU's generator as well, for good
            torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        yield


_V2 = [ResNetV2Model(f"resnet{depth}v2", depth=depth) for depth in (20, 56, 110)]
_V1 = [ResNetV1Model("resnet56v1"), ResNetV1Model("resnet56v1_concat", head="concat")]
_OTHERS = [*map(TorchvisionModel, BLOCKS), CustomModel()]
MODELS: dict[str, Model] = {model.name: model for model in (*_V2, *_V1, *_OTHERS)}
