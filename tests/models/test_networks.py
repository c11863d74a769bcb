"""ResNet-18 and -9, ResNet v1 and standardized weights, against torchvision, arithmetic, and code written again here.

The v2 networks are in test_models.py and test_parity.py.
"""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from test_models import noise, of_type, trainable
from torch import Tensor, nn
from torch.nn import functional as F

from resnetlab.errors import ConfigError
from resnetlab.models import torchvision_resnet
from resnetlab.models.norm import StandardizedConv2d
from resnetlab.models.options import MODELS as ALL
from resnetlab.models.options import ResNetV1Model
from resnetlab.models.resnet import ACTIVATIONS

MODELS = {name: model for name, model in ALL.items() if name != "custom"}  # that one: training/test_own_parts.py

NEW = ("resnet56v1", "resnet56v1_concat", "resnet18", "resnet9")  # test_models.py has the others


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def named(name: str, **options: Any) -> Any:
    """The configuration of that name with other options."""
    config = copy.deepcopy(MODELS[name])
    for key, value in options.items():
        assert hasattr(config, key)
        setattr(config, key, value)
    return config


def built(name: str, classes: int = 10, seed: int = 0, **options: Any) -> Any:
    return named(name, **options).build(classes, seeded(seed))


def v1(depth: int = 8, classes: int = 10, seed: int = 0, **options: Any) -> Any:
    return ResNetV1Model("mine", depth=depth, **options).build(classes, seeded(seed))


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def stirred(model: Any, seed: int = 5) -> Any:
    """Norms with scales, shifts and running statistics that are not 1 and 0: a mix-up then shows."""
    generator = seeded(seed)
    for norm in of_type(model, nn.BatchNorm2d) + of_type(model, nn.BatchNorm1d):
        for tensor, low in ((norm.weight, 0.5), (norm.bias, -0.5), (norm.running_mean, -0.5), (norm.running_var, 0.5)):
            tensor.data.copy_(low + torch.rand(tensor.shape, generator=generator))
    return model


# --- torchvision's ResNet-18


@pytest.mark.parametrize(("classes", "training"), [(10, False), (100, True)])
def test_resnet18_computes_what_torchvisions_does(classes: int, training: bool) -> None:
    mine = stirred(built("resnet18", classes, stem="imagenet")).train(training)
    assert {(n.eps, n.momentum) for n in of_type(mine, nn.BatchNorm2d)} == {(1e-5, 0.1)}
    theirs = torchvision.models.resnet18(num_classes=classes).train(training)
    assert list(shapes(mine).items()) == list(shapes(theirs).items())
    theirs.load_state_dict(mine.state_dict())
    x = noise(3, 3, 32, 32)
    with torch.no_grad():
        logits, expected = mine(x), theirs(x)
    assert torch.equal(logits, expected)  # the same operations in the same order
    assert logits.std() > 1e-2
    for key, value in theirs.state_dict().items():  # in training: the running statistics moved alike
        assert torch.equal(mine.state_dict()[key], value), key


@pytest.mark.parametrize("zero_init_residual", [False, True])
def test_resnet18_begins_with_torchvisions_weights_for_the_same_seed(zero_init_residual: bool) -> None:
    torch.manual_seed(3)
    mine = torchvision_resnet([2, 2, 2, 2], 10, stem="imagenet", zero_init_residual=zero_init_residual)
    torch.manual_seed(3)
    theirs = torchvision.models.resnet18(num_classes=10, zero_init_residual=zero_init_residual).state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in mine.state_dict().items())


def test_the_cifar_stem_has_3x3_taps_instead_of_7x7() -> None:
    # torchvision's documented 11,689,512 are for 1000 classes; 512 weights and a bias less for each of 990.
    assert 11_689_512 - 990 * (512 + 1) == 11_181_642
    assert 11_181_642 - 3 * 64 * 49 + 3 * 64 * 9 == 11_173_962
    assert trainable(built("resnet18", stem="imagenet")) == 11_181_642
    assert trainable(built("resnet18")) == trainable(built("resnet18", stem="cifar")) == 11_173_962
    cifar, imagenet = shapes(built("resnet18")), shapes(built("resnet18", stem="imagenet"))
    assert {key for key in cifar | imagenet if cifar.get(key) != imagenet.get(key)} == {"conv1.weight"}


def test_the_cifar_stems_kernel_is_drawn_like_the_others() -> None:
    kernel = built("resnet18").conv1.weight
    # He et al.'s normal by fan-out, sd sqrt(2 / (64 * 9)). The sd of 1,728 draws has the relative error
    # 1/sqrt(2 * 1728), 1.7 %: 4.5 of them. torch's own draw for a convolution would be uniform
    # with sd 1/sqrt(3 * 27), 89 % more.
    assert abs(float(kernel.detach().std()) / math.sqrt(2 / 576) - 1) < 4.5 / math.sqrt(2 * 1728)
    assert kernel.detach().abs().max() > 2.5 * math.sqrt(2 / 576)  # no uniform distribution of that sd goes beyond 1.73


def test_resnet9_has_one_block_a_stage() -> None:
    stem = 3 * 64 * 9 + 2 * 64
    first = 2 * 64 * 64 * 9 + 2 * 2 * 64  # two convolutions, two norms
    others = sum(
        (c * 2 * c + 2 * c * 2 * c) * 9 + c * 2 * c + 3 * 2 * 2 * c  # two 3x3, a 1x1 projection, three norms
        for c in (64, 128, 256)
    )
    assert (stem, first, others, 512 * 10 + 10) == (1_856, 73_984, 4_822_272, 5_130)
    assert stem + first + others + 5_130 == 4_903_242
    model = built("resnet9")
    assert trainable(model) == 4_903_242
    assert [len(stage) for stage in (model.layer1, model.layer2, model.layer3, model.layer4)] == [1, 1, 1, 1]
    assert len(of_type(model, nn.Conv2d)) == 1 + 8 + 3


@pytest.mark.parametrize(("stem", "side"), [("cifar", 4), ("imagenet", 1)])
@pytest.mark.parametrize("name", ["resnet18", "resnet9"])
def test_of_a_32x32_image_the_cifar_stem_leaves_4x4_and_the_imagenet_stem_one_pixel(
    name: str, stem: str, side: int
) -> None:
    model, seen = built(name, stem=stem).eval(), []
    model.avgpool.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape)))
    with torch.no_grad():
        assert model(noise(2, 3, 32, 32)).shape == (2, 10)
    assert seen == [(2, 512, side, side)]


def torchvision_blocks(model: Any) -> list[Any]:
    return [block for stage in (model.layer1, model.layer2, model.layer3, model.layer4) for block in stage]


@pytest.mark.parametrize("norm", ["batch", "group", "group_ws"])
@pytest.mark.parametrize("name", ["resnet18", "resnet9"])
def test_with_zero_init_residual_every_block_begins_as_its_shortcut(name: str, norm: str) -> None:
    assert named(name).zero_init_residual is True
    for zero in (True, False):
        blocks = torchvision_blocks(built(name, norm=norm, zero_init_residual=zero))
        assert len(blocks) == {"resnet18": 8, "resnet9": 4}[name]
        for block in blocks:
            x = noise(2, block.conv1.in_channels, 8, 8)
            with torch.no_grad():
                shortcut = x if block.downsample is None else block.downsample(x)
                assert torch.equal(block(x), F.relu(shortcut)) is zero


# --- ResNet v1


def test_resnet56v1_has_855_770_parameters() -> None:
    stem = 3 * 16 * 9 + 2 * 16
    stage1 = 9 * (2 * 16 * 16 * 9 + 2 * 2 * 16)  # nine blocks of two convolutions and two norms
    stage2 = (16 * 32 + 32 * 32) * 9 + 16 * 32 + 3 * 2 * 32 + 8 * (2 * 32 * 32 * 9 + 2 * 2 * 32)  # the first projects
    stage3 = (32 * 64 + 64 * 64) * 9 + 32 * 64 + 3 * 2 * 64 + 8 * (2 * 64 * 64 * 9 + 2 * 2 * 64)
    assert (stem, stage1, stage2, stage3) == (464, 42_048, 163_008, 649_600)
    body = stem + stage1 + stage2 + stage3
    assert body == 855_120
    assert body + 64 * 10 + 10 == 855_770
    assert trainable(built("resnet56v1")) == 855_770
    # norm of 128, 128 units, norm of 128, logits
    concat = 2 * 128 + (128 * 128 + 128) + 2 * 128 + (128 * 100 + 100)
    assert body + concat == 885_044
    assert trainable(built("resnet56v1_concat", 100)) == 885_044


@pytest.mark.parametrize("depth", [8, 14, 56, 110])
def test_depth_counts_the_layers_with_weights_on_the_way_through(depth: int) -> None:
    model = v1(depth)
    projections = [block.shortcut is not None for block in model.blocks]
    assert len(of_type(model, nn.Conv2d)) - sum(projections) + len(of_type(model, nn.Linear)) == depth
    n = (depth - 2) // 6
    assert [i for i, projects in enumerate(projections) if projects] == [n, 2 * n]
    seen: list[Any] = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape[1:])))
    model(noise(2, 3, 32, 32))
    assert seen == n * [(16, 32, 32)] + n * [(32, 16, 16)] + n * [(64, 8, 8)]


class Twin(nn.Module):
    """The notebook's network, from its description: 3x3 convolutions without bias, each with a batch norm, in three
    groups of n two-layer blocks, then maxima and averages side by side and two dense layers. All in one list, in the
    order in which data meet them (a projection after its block), so that weights go over by position."""

    def __init__(self, n: int, classes: int, p1: float, p2: float) -> None:
        super().__init__()
        self.n, self.p1, self.p2 = n, p1, p2
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)]
        before = 16
        for width in (16, 32, 64):
            for _ in range(n):
                step = 2 if width > before else 1
                for fan, stride in ((before, step), (width, 1)):
                    layers += [nn.Conv2d(fan, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)]
                if width != before:
                    layers += [nn.Conv2d(before, width, 1, step, bias=False), nn.BatchNorm2d(width)]
                before = width
        layers += [nn.BatchNorm1d(128), nn.Linear(128, 128), nn.BatchNorm1d(128), nn.Linear(128, classes)]
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        queue = iter(self.layers)

        def convolved(y: Tensor) -> Tensor:
            convolution, norm = next(queue), next(queue)
            return norm(convolution(y))

        x = F.relu(convolved(x))
        for i in range(3 * self.n):
            y = convolved(F.relu(convolved(x)))
            x = F.relu(y + (convolved(x) if i in (self.n, 2 * self.n) else x))
        x = torch.cat([F.adaptive_max_pool2d(x, 1), F.adaptive_avg_pool2d(x, 1)], dim=1).flatten(1)
        norm1, dense1, norm2, dense2 = queue
        x = F.dropout(norm1(x), self.p1, self.training)
        x = F.dropout(norm2(F.relu(dense1(x))), self.p2, self.training)
        return dense2(x)


def twins(depth: int, classes: int, dropout: float) -> tuple[Any, Twin]:
    """Ours and the reference with its weights, in float64."""
    mine = stirred(v1(depth, classes, head="concat", dropout=dropout)).double()
    twin = Twin((depth - 2) // 6, classes, dropout / 2, dropout).double()
    tensors, slots = list(mine.state_dict().values()), list(twin.state_dict().values())
    for tensor, slot in zip(tensors, slots, strict=True):
        assert tensor.shape == slot.shape
        slot.copy_(tensor)
    return mine, twin


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("depth", "classes"), [(14, 7), (56, 100)])
def test_resnet56v1_concat_computes_what_the_notebooks_network_does(depth: int, classes: int, training: bool) -> None:
    mine, twin = (model.train(training) for model in twins(depth, classes, dropout=0.0))
    x = noise(4, 3, 16, 16).double()
    logits, expected = mine(x), twin(x)
    # float64, with 55 norms in a row; the pooled averages may be summed in another order
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
    assert logits.std() > 0.1
    for key, slot in zip(mine.state_dict(), twin.state_dict().values(), strict=True):  # running statistics moved alike
        torch.testing.assert_close(mine.state_dict()[key], slot, rtol=1e-9, atol=1e-9)
    labels = torch.tensor([0, 1, 2, 3])
    gradients = [
        torch.autograd.grad(F.cross_entropy(out, labels), list(m.parameters()))
        for m, out in ((mine, logits), (twin, expected))
    ]
    for p, q in zip(*gradients, strict=True):
        # where a map's maximum is shared, amax spreads the gradient; ties are zeros, behind which ReLU passes nothing
        torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-9)


def test_the_two_dropouts_are_the_notebooks_quarter_and_half() -> None:
    assert [layer.p for layer in of_type(built("resnet56v1_concat"), nn.Dropout)] == [0.25, 0.5]
    mine, twin = (model.train() for model in twins(14, 10, dropout=0.5))
    x, outputs = noise(4, 3, 16, 16).double(), []
    for model in (mine, twin):
        torch.manual_seed(8)  # the same masks, if they are drawn in the same order, shape and frequency
        outputs.append(model(x))
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(mine(x), outputs[0], atol=1e-2)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_v1_puts_the_named_activation_after_the_stem_in_each_block_and_after_each_sum(name: str) -> None:
    model, act = v1(14, activation=name).eval(), ACTIVATIONS[name]
    x = noise(2, 3, 8, 8)
    with torch.no_grad():
        y = act(model.stem_norm(model.stem(x)))
        for block in model.blocks:
            branch = block.norm2(block.conv2(act(block.norm1(block.conv1(y)))))
            y = act(branch + (y if block.shortcut is None else block.shortcut(y)))
        expected = model.head.linear(y.mean((2, 3)))
        # The same operations in the same order; 1e-6 leaves room for a fused kernel.
        torch.testing.assert_close(model(x), expected, rtol=1e-6, atol=1e-6)


def test_the_configuration_of_v1_passes_each_option_on() -> None:
    options = {"activation": "elu", "bn_momentum": 0.5, "bn_eps": 0.1, "norm": "group", "head": "concat"}
    plain = repr(v1()), v1()(noise(2, 3, 8, 8)).tolist()
    for key, value in options.items():
        model = v1(**{key: value})
        assert (repr(model), model(noise(2, 3, 8, 8)).tolist()) != plain, key
    assert {(n.momentum, n.eps) for n in of_type(v1(head="concat", bn_momentum=0.5, bn_eps=0.1), nn.BatchNorm1d)} == {
        (0.5, 0.1)
    }
    assert [layer.p for layer in of_type(v1(head="concat", dropout=0.2), nn.Dropout)] == [0.1, 0.2]


@pytest.mark.parametrize("head", ["average", "concat"])
@pytest.mark.parametrize("size", [(4, 4), (5, 7), (16, 16), (33, 32)])
def test_v1_takes_any_size_from_4_up(size: tuple[int, int], head: str) -> None:
    logits = v1(classes=7, head=head)(noise(3, 3, *size))
    assert logits.shape == (3, 7)
    assert torch.isfinite(logits).all()


# --- group norm and standardized weights


def qiao(weight: Any) -> Any:
    """Weight standardization as its authors have it (arXiv 1903.10520): numpy's mean, the unbiased sd plus 1e-5."""
    rows = weight.detach().numpy().astype(np.float64).reshape(len(weight), -1)
    rows = rows - rows.mean(1, keepdims=True)
    rows = rows / (rows.std(1, ddof=1, keepdims=True) + 1e-5)
    return rows.reshape(weight.shape)


@pytest.mark.parametrize("name", MODELS)
def test_with_group_ws_every_convolution_is_a_standardized_one(name: str) -> None:
    layers = of_type(built(name, norm="group_ws"), nn.Conv2d)
    assert {type(layer) for layer in layers} == {StandardizedConv2d}


def test_a_standardized_convolution_is_the_plain_one_with_qiaos_weights() -> None:
    torch.manual_seed(2)
    layer = StandardizedConv2d(6, 4, 3, stride=2, padding=1, dilation=2, groups=2, bias=True).double()
    x = noise(2, 6, 9, 9).double()
    expected = F.conv2d(x, torch.from_numpy(qiao(layer.weight)), layer.bias, 2, 1, 2, 2)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)  # float64


class AuthorsConv(nn.Conv2d):
    """The notebook's WeightStdConv2d (hemildesai/cifar10-experiments, messing_with_normalization.ipynb, cell 5)."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean(dim=1, keepdim=True).mean(dim=2, keepdim=True).mean(dim=3, keepdim=True)
        std = weight.view(weight.size(0), -1).std(dim=1).view(-1, 1, 1, 1) + 1e-5
        return F.conv2d(x, weight / std.expand_as(weight), None, self.stride, self.padding)


def authors_logits(model: Any, x: Tensor, group_factor: int) -> Tensor:
    """The notebook's forward pass over torchvision's names, with GroupNorm(planes // group_factor, planes)."""

    def normed(conv: nn.Conv2d, norm: nn.GroupNorm, y: Tensor) -> Tensor:
        layer = AuthorsConv(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, bias=False
        )
        layer.weight = conv.weight
        twin = nn.GroupNorm(conv.out_channels // group_factor, conv.out_channels)
        twin.load_state_dict(norm.state_dict())
        return twin(layer(y))

    x = F.relu(normed(model.conv1, model.bn1, x))
    for block in torchvision_blocks(model):
        y = F.relu(normed(block.conv1, block.bn1, x))
        y = normed(block.conv2, block.bn2, y)
        x = F.relu(y + (x if block.downsample is None else normed(*block.downsample, x)))
    return model.fc(x.mean((2, 3)))


@pytest.mark.parametrize(("name", "channels"), [("resnet18", 4), ("resnet9", 4), ("resnet9", 16), ("resnet9", 64)])
def test_group_ws_with_4_channels_a_group_is_the_authors_network(name: str, channels: int) -> None:
    model, x = built(name, norm="group_ws", channels_per_group=channels, zero_init_residual=False), noise(3, 3, 16, 16)
    with torch.no_grad():
        logits, others = (
            model(x),
            [authors_logits(model, x, factor) for factor in (channels, 4 if channels > 4 else 16)],
        )
    scale = float(logits.std())
    assert float((logits - others[0]).abs().max()) < 1e-5 * scale
    assert float((logits - others[1]).abs().max()) > 0.05 * scale  # the number of groups is seen


@pytest.mark.parametrize("channels", [1, 2, 8])
@pytest.mark.parametrize("name", ["resnet20v2", "resnet56v1_concat", "resnet9"])
def test_every_group_norm_has_the_channels_per_group_that_are_asked_for(name: str, channels: int) -> None:
    config = named(name, norm="group", channels_per_group=channels)
    config.check()
    layers = of_type(config.build(10, seeded()), nn.GroupNorm)
    assert {layer.num_channels // layer.num_groups for layer in layers} == {channels}


# --- the smallest batch


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("size", [(4, 4), (8, 8), (16, 16), (32, 32), (8, 64), (12, 20)])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("resnet18", {"stem": stem}) for stem in ("cifar", "imagenet")),
        *(("resnet9", {"stem": stem}) for stem in ("cifar", "imagenet")),
        *(("resnet56v1", {"head": head, "depth": 8}) for head in ("average", "concat")),
        ("resnet20v2", {"depth": 11, "shortcut_kernel": 3}),
    ],
)
def test_the_smallest_batch_is_the_least_that_torch_trains_on(
    name: str, options: dict[str, Any], size: tuple[int, int], norm: str
) -> None:
    config = named(name, norm=norm, **options)
    torch.manual_seed(4)
    before = torch.get_rng_state()
    smallest = config.min_batch_size(*size)
    assert torch.equal(torch.get_rng_state(), before)
    model = config.build(10, seeded()).train()
    model(noise(smallest, 3, *size))
    if smallest > 1:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            model(noise(1, 3, *size))


BEFORE_THE_ZERO = ("conv1.weight", "bn1.weight", "bn1.bias", "conv2.weight")


@pytest.mark.parametrize("size", [16, pytest.param(32, marks=pytest.mark.slow)])
@pytest.mark.parametrize("norm", ["group", "group_ws"])
@pytest.mark.parametrize("name", [n if n != "resnet110v2" else pytest.param(n, marks=pytest.mark.slow) for n in MODELS])
def test_every_network_steps_with_group_norm_and_keeps_no_running_statistics(name: str, norm: str, size: int) -> None:
    model = built(name, 10, norm=norm)
    assert list(model.buffers()) == []
    assert of_type(model, nn.modules.batchnorm._BatchNorm) == []
    assert {layer.num_channels // layer.num_groups for layer in of_type(model, nn.GroupNorm)} == {16}
    logits = model(noise(2, 3, size, size))
    assert logits.shape == (2, 10)
    F.cross_entropy(logits, torch.tensor([0, 1])).backward()
    gradients = {key: p.grad for key, p in model.named_parameters()}
    assert all(g is not None and torch.isfinite(g).all() for g in gradients.values())
    # Before a scale that begins at zero (zero_init_residual) nothing moves in the first step; everything else does.
    waiting = {f"layer{i}.{j}.{part}" for i in (1, 2, 3, 4) for j in (0, 1) for part in BEFORE_THE_ZERO}
    assert {key for key, g in gradients.items() if not g.any()} == waiting & set(gradients)
    torch.optim.SGD(model.parameters(), lr=1e-4).step()
    with torch.no_grad():
        assert torch.isfinite(model(noise(2, 3, size, size))).all()


@pytest.mark.parametrize("name", ["resnet20v2", *NEW])
def test_the_norms_have_the_same_parameters_and_plain_ones_leave_the_convolutions_plain(name: str) -> None:
    batch, group, standardized = (built(name, norm=norm) for norm in ("batch", "group", "group_ws"))
    assert trainable(batch) == trainable(group)
    assert list(group.state_dict()) == list(standardized.state_dict())
    assert all(torch.equal(group.state_dict()[key], value) for key, value in standardized.state_dict().items())
    for model in (batch, group):
        assert {type(layer) for layer in of_type(model, nn.Conv2d)} == {nn.Conv2d}


# --- randomness


def kernels(model: nn.Module) -> dict[str, Tensor]:
    return {key: p.detach() for key, p in model.named_parameters() if p.ndim > 1}


@pytest.mark.parametrize("name", [n if n != "resnet110v2" else pytest.param(n, marks=pytest.mark.slow) for n in MODELS])
def test_the_weights_follow_from_the_generators_seed_alone(name: str) -> None:
    torch.manual_seed(1)
    first = built(name, seed=5)
    torch.manual_seed(2)
    again, other = built(name, seed=5), built(name, seed=6)
    drawn = [tuple(value.flatten()[:16].tolist()) for value in kernels(first).values()]
    assert len(set(drawn)) == len(drawn)  # no two kernels are alike
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in first.state_dict().items())
    assert not any(torch.equal(value, kernels(other)[key]) for key, value in kernels(first).items())


@pytest.mark.parametrize("name", MODELS)
def test_building_leaves_torchs_global_generators_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seeded_devices = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded_devices.append)
    torch.manual_seed(4)
    seeded_devices.clear()
    before = torch.get_rng_state()
    built(name)
    assert torch.equal(torch.get_rng_state(), before)
    assert seeded_devices == []


@pytest.mark.parametrize("name", ["resnet20v2", *NEW])
def test_without_a_generator_torchs_global_one_is_used(name: str) -> None:
    torch.manual_seed(9)
    first, second = kernels(MODELS[name].build(10)), kernels(MODELS[name].build(10))
    torch.manual_seed(9)
    again = kernels(MODELS[name].build(10))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], second[key]) for key in first)


# --- values that make no sense


REFUSED = [
    *(("resnet56v1", "depth", value) for value in (-4, 0, 2, 7, 9, 11, 55, 57, 2006)),
    *(("resnet20v2", "depth", value) for value in (-7, 0, 2, 10, 12, 55, 57)),
    *(("resnet20v2", "bn_momentum", value) for value in (-0.1, 1.5, math.nan)),
    *(("resnet20v2", "bn_eps", value) for value in (-1e-3, 1.0, math.nan)),
    *(("resnet20v2", "shortcut_kernel", value) for value in (0, -1, 2, 4)),
    *(("resnet20v2", "activation", value) for value in ("swish", "ReLU", "")),
    *(("resnet20v2", "norm", value) for value in ("Batch", "")),
    *(("resnet56v1", "head", value) for value in ("mean", "Concat", "")),
    *(("resnet56v1_concat", "dropout", value) for value in (-0.1, 1.0, 1.5, math.nan)),
    *((name, "stem", value) for name in ("resnet18", "resnet9") for value in ("cifar10", "ImageNet", "")),
    *((name, "norm", "layer") for name in MODELS),
    *((name, "bn_momentum", 0.0) for name in MODELS),
    *((name, "bn_eps", 0.0) for name in MODELS),
    *((name, "channels_per_group", value) for name in MODELS for value in (4, 0, -1, 3, 128)),
    *(("resnet20v2", "channels_per_group", value) for value in (32, 64)),
]


CHOICES = {"stem": "cifar, imagenet", "head": "average, concat", "norm": "batch, group, group_ws"}
CHOICES["activation"] = ", ".join(sorted(ACTIVATIONS))


@pytest.mark.parametrize(("name", "key", "value"), REFUSED)
def test_an_impossible_value_is_refused_by_key_and_value(name: str, key: str, value: Any) -> None:
    config = named(name, **{key: value})
    for attempt in (config.check, lambda: config.build(10)):
        with pytest.raises(ConfigError) as caught:
            attempt()
        must = "must " if key == "channels_per_group" else "must be "  # must divide each number of channels
        assert str(caught.value).startswith(f"model.{key} (={value}) {must}")
        assert key not in CHOICES or str(caught.value).endswith(f" must be one of {CHOICES[key]}")
        assert "\n" not in str(caught.value)


def test_an_unknown_activation_of_v1_is_refused_before_it_is_built() -> None:
    with pytest.raises(ConfigError, match=rf"model\.activation \(=swish\) must be one of {CHOICES['activation']}"):
        named("resnet56v1", activation="swish").check()


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_a_dropout_without_a_head_that_uses_it_is_refused(dropout: float) -> None:
    with pytest.raises(ConfigError, match=rf"model\.dropout \(={dropout:g}\) is used by model\.head=concat only"):
        named("resnet56v1", dropout=dropout).check()
    named("resnet56v1", dropout=dropout, head="concat").check()
    named("resnet56v1", dropout=0.5).check()  # the default, spelt out


@pytest.mark.parametrize(
    ("depth", "head", "dropout"), [(8, "average", 0.5), (2000, "average", 0.5), (8, "concat", 0.0)]
)
def test_the_edges_of_what_is_possible_are_accepted(depth: int, head: str, dropout: float) -> None:
    ResNetV1Model("mine", depth=depth, head=head, dropout=dropout).check()
