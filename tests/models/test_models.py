"""The networks: counts and layout as literals, initialisation against scipy, forward passes against identities.

That they compute what Keras computes is in test_parity.py.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import scipy.stats
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from resnetlab.errors import ConfigError
from resnetlab.models import ResNetV2, resnet20v2, resnet56v2, resnet110v2
from resnetlab.models.options import MODELS as ALL
from resnetlab.models.options import ResNetV2Model
from resnetlab.models.resnet import ACTIVATIONS, TRUNCATED_STD, he_normal_

MODELS = {name: model for name, model in ALL.items() if name != "custom"}  # that one: training/test_own_parts.py

TABLE = [  # (name, network, trainable, batch-norm statistics, convolutions, batch norms)
    ("resnet20v2", resnet20v2, 570_602, 3_488, 22, 19),
    ("resnet56v2", resnet56v2, 1_663_338, 10_400, 58, 55),
    ("resnet110v2", resnet110v2, 3_302_442, 20_768, 112, 109),
]


def made(depth: int = 11, seed: int = 0, **options: Any) -> ResNetV2:
    return ResNetV2(depth, generator=torch.Generator().manual_seed(seed), **options)


def of_type(model: nn.Module, kind: type[nn.Module]) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, kind)]


def trainable(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- counts


@pytest.mark.parametrize(("name", "function", "weights", "statistics", "convs", "norms"), TABLE)
def test_parameters_statistics_convolutions_and_norms_are_atienzas(
    name: str, function: Callable[[], ResNetV2], weights: int, statistics: int, convs: int, norms: int
) -> None:
    assert trainable(function(100)) == weights + 90 * (256 + 1)  # type: ignore[call-arg]
    for model in (function(), MODELS[name].build(10)):
        assert trainable(model) == weights
        floats = {key: value for key, value in model.named_buffers() if not key.endswith("num_batches_tracked")}
        assert {key.rpartition(".")[2] for key in floats} == {"running_mean", "running_var"}
        assert sum(value.numel() for value in floats.values()) == statistics
        assert len(of_type(model, nn.Conv2d)) == convs
        assert len(of_type(model, nn.BatchNorm2d)) == norms


def test_every_convolution_and_the_head_have_a_bias_that_starts_at_zero() -> None:
    layers = of_type(made(20), nn.Conv2d) + of_type(made(20), nn.Linear)
    assert len(layers) == 23
    for layer in layers:
        assert torch.equal(layer.bias, torch.zeros(len(layer.weight)))


@pytest.mark.parametrize("depth", [11, 20])
def test_shortcut_kernel_3_adds_eight_taps_to_each_of_three_projections(depth: int) -> None:
    unit: Any = made(depth, shortcut_kernel=3).units[(depth - 2) // 9]
    assert unit(noise(1, 64, 16, 16)).shape == (1, 128, 8, 8)
    added = trainable(made(depth, shortcut_kernel=3)) - trainable(made(depth))
    assert added == 8 * (16 * 64 + 64 * 128 + 128 * 256) == 335_872
    assert len(of_type(made(depth, shortcut_kernel=3), nn.Conv2d)) == len(of_type(made(depth), nn.Conv2d))


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_with_zero_init_residual_every_unit_begins_as_its_shortcut_and_trains(norm: str) -> None:
    plain, zeroed = made(20, norm=norm), made(20, norm=norm, zero_init_residual=True)
    for (name, first), second in zip(plain.named_parameters(), zeroed.parameters(), strict=True):
        assert torch.equal(second, torch.zeros_like(first) if name.endswith("conv3.weight") else first)
    for unit in zeroed.units:
        x = noise(2, unit.conv1.in_channels, 8, 8)  # type: ignore[operator,union-attr]
        assert torch.equal(unit(x), x if unit.shortcut is None else unit.shortcut(x))  # type: ignore[operator]
    zeroed(noise(4, 3, 8, 8)).square().sum().backward()
    assert all(unit.conv3.weight.grad.abs().max() > 0 for unit in zeroed.units)  # type: ignore[operator,union-attr]
    for unit in plain.units:  # which a scale of 0 would not: the reason for taking the kernel
        nn.init.zeros_(unit.norm3.weight)  # type: ignore[arg-type,union-attr]
    plain(noise(4, 3, 8, 8)).square().sum().backward()
    assert not any(unit.norm3.weight.grad.any() or unit.conv3.weight.grad.any() for unit in plain.units)  # type: ignore


def test_a_zero_kernel_cannot_be_standardized() -> None:
    with pytest.raises(
        ConfigError, match=r"model\.zero_init_residual \(=true\) must be false with model.norm=group_ws"
    ):
        ResNetV2Model("mine", norm="group_ws", zero_init_residual=True).check()


def test_forward_cost_is_0_386_gflop_an_image() -> None:
    # Convolutions and head alone, multiply and add apart, counted by hand from the layer table; exact integers.
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        resnet56v2()(torch.zeros(1, 3, 32, 32))
    macs = 32 * 32 * 27 * 16
    channels = 16
    for side, width, out in ((32, 16, 64), (16, 64, 128), (8, 128, 256)):
        for unit in range(6):
            macs += side * side * (channels * width + 9 * width * width + width * out)
            macs += side * side * channels * out * (unit == 0)
            channels = out
    assert counter.get_total_flops() == 2 * (macs + 2560)
    assert round(counter.get_total_flops() / 1e9, 3) == 0.386


# --- layout


def test_strides_and_projections_sit_in_the_first_unit_of_each_stage() -> None:
    model = made(29)
    assert [unit.norm1 is None for unit in model.units] == [True] + 8 * [False]
    assert [unit.conv1.stride for unit in model.units] == [(1, 1)] * 3 + [(2, 2), (1, 1), (1, 1)] * 2
    projections = [None if unit.shortcut is None else unit.shortcut.stride for unit in model.units]
    assert projections == [(1, 1), None, None, (2, 2), None, None, (2, 2), None, None]
    others = [model.stem, *(conv for unit in model.units for conv in (unit.conv2, unit.conv3))]
    assert {conv.stride for conv in others} == {(1, 1)}


def test_stages_have_64_128_256_channels_on_halved_sides() -> None:
    model, x, shapes = made(20), noise(1, 3, 32, 32), []
    x = model.stem(x)
    for unit in model.units:
        x = unit(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == 2 * [(64, 32, 32)] + 2 * [(128, 16, 16)] + 2 * [(256, 8, 8)]


@pytest.mark.parametrize(("index", "channels"), [(0, 16), (1, 64), (2, 64), (3, 128)])
def test_with_a_silent_branch_a_unit_is_its_shortcut_negative_values_too(index: int, channels: int) -> None:
    unit: Any = made(20).units[index]
    for p in unit.conv3.parameters():
        nn.init.zeros_(p)
    x = noise(2, channels, 8, 8)
    with torch.no_grad():
        y, expected = unit(x), x if index in (1, 3) else unit.shortcut(x)  # raw x: no norm, no activation before
    assert (expected < 0).any()
    assert torch.equal(y, expected)


@pytest.mark.parametrize("size", [(16, 16), (32, 32), (36, 36), (16, 24)])
@pytest.mark.parametrize("classes", [10, 7])
def test_any_size_that_is_a_multiple_of_4_gives_finite_logits(size: tuple[int, int], classes: int) -> None:
    logits = made(11, classes=classes)(noise(3, 3, *size))
    assert logits.shape == (3, classes)
    assert torch.isfinite(logits).all()


def test_evaluation_treats_each_image_by_itself() -> None:
    model, x = made(11).eval(), noise(4, 3, 16, 16)
    with torch.no_grad():
        together, alone = model(x), torch.cat([model(image[None]) for image in x])
    # Float32 sums in another order, logits of size 1: 1e-5 is 100 units in the last place.
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3  # else the comparison says nothing


# --- activation and norm

MODULES = {
    "relu": nn.ReLU(),
    "leaky_relu": nn.LeakyReLU(0.01),
    "elu": nn.ELU(),
    "gelu": nn.GELU(),
    "silu": nn.SiLU(),
    "mish": nn.Mish(),
}


def written_out(model: Any, x: Tensor, act: nn.Module) -> Tensor:
    """The forward pass from the layers alone, with `act` wherever a norm has gone before."""
    x = act(model.stem_norm(model.stem(x)))
    for u in model.units:
        y = u.conv1(x if u.norm1 is None else act(u.norm1(x)))
        y = u.conv3(act(u.norm3(u.conv2(act(u.norm2(y))))))
        x = y + (x if u.shortcut is None else u.shortcut(x))
    return model.head(act(model.norm(x)).mean((2, 3)))


@pytest.mark.parametrize("name", MODULES)
def test_the_named_activation_follows_every_norm(name: str) -> None:
    model, x = made(20, activation=name).eval(), noise(2, 3, 8, 8)
    with torch.no_grad():
        logits = model(x)
        assert sorted(ACTIVATIONS) == sorted(MODULES)
        expected = {other: written_out(model, x, module) for other, module in MODULES.items()}
    # The same operations in the same order; 1e-6 leaves room for a fused kernel. The nearest two differ by > 1e-3.
    torch.testing.assert_close(logits, expected[name], rtol=1e-6, atol=1e-6)
    assert all((logits - value).abs().max() > 1e-3 for other, value in expected.items() if other != name)


def test_batch_norms_take_keras_constants_by_default_and_others_on_demand() -> None:
    assert {(n.momentum, n.eps) for n in of_type(resnet20v2(), nn.BatchNorm2d)} == {(0.01, 1e-3)}
    config = ResNetV2Model("mine", depth=20, bn_momentum=0.1, bn_eps=1e-5)
    assert {(n.momentum, n.eps) for n in of_type(config.build(10), nn.BatchNorm2d)} == {(0.1, 1e-5)}


def test_group_norm_has_the_same_output_in_training_and_evaluation() -> None:
    model, x = made(11, norm="group"), noise(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(model.train()(x), model.eval()(x))
        batch = made(11, norm="batch")  # the comparison above means something: batch norm does differ
        assert not torch.allclose(batch.train()(x), batch.eval()(x), atol=1e-2)


# --- initialisation


def test_the_std_of_a_truncated_normal_is_scipys() -> None:
    # float64 on both sides; the constant is Keras' (and TensorFlow's) with 17 digits.
    assert math.isclose(TRUNCATED_STD, scipy.stats.truncnorm(-2, 2).std(), rel_tol=1e-12)


@pytest.mark.parametrize(("shape", "fan_in"), [((512, 64, 3, 3), 576), ((2000, 128, 1, 1), 128), ((1000, 256), 256)])
def test_he_normal_is_a_normal_truncated_at_2_sd_with_variance_2_over_fan_in(shape: Any, fan_in: int) -> None:
    weight = torch.empty(shape)
    he_normal_(weight, torch.Generator().manual_seed(3))
    sample, n = weight.double().flatten(), weight.numel()
    std = math.sqrt(2 / fan_in)
    # Standard errors with the truncated normal's kurtosis 2.37: std*sqrt((2.37-1)/4n), mean std/sqrt(n); 4.5 of them
    # are 0.5 % of the std at n = 256,000. Without the correction the std were 12 % low, untruncated 14 % high.
    assert abs(float(sample.std()) / std - 1) < 4.5 * math.sqrt((2.37 - 1) / (4 * n))
    assert abs(float(sample.mean())) < 4.5 * std / math.sqrt(n)
    # The bound is 2 sd of the normal before it is cut, in float32; 256,000 draws come within 1 % of it.
    bound = 2 * std / scipy.stats.truncnorm(-2, 2).std()
    assert 0.99 * bound < float(sample.abs().max()) <= bound * (1 + 1e-6)
    # Cut, not clipped: the whole distribution, at the 0.1 % level (fixed generator, so never by chance).
    expected = scipy.stats.truncnorm(-2, 2, scale=bound / 2)
    assert scipy.stats.kstest(sample.numpy(), expected.cdf).pvalue > 1e-3


def test_every_kernel_of_the_network_is_drawn_from_he_normal() -> None:
    layers = of_type(made(20), nn.Conv2d) + of_type(made(20), nn.Linear)
    for layer in layers:
        fan_in = layer.weight[0].numel()
        share = float((layer.weight.detach().square().mean() * fan_in / 2).sqrt())
        # 4.5 standard errors as above: 13 % for the stem's 432 weights, 0.4 % for the largest kernel.
        assert abs(share - 1) < 4.5 * math.sqrt((2.37 - 1) / (4 * layer.weight.numel())), layer


def test_reset_parameters_draws_the_weights_of_a_new_network() -> None:
    model = made(11, seed=1)
    with torch.no_grad():
        model.stem.bias.fill_(1.0)
    model.reset_parameters(torch.Generator().manual_seed(2))
    for p, q in zip(model.parameters(), made(11, seed=2).parameters(), strict=True):
        assert torch.equal(p, q)


# --- configuration

OPTIONS = {"depth": 20, "bn_momentum": 0.5, "bn_eps": 0.1, "shortcut_kernel": 3, "activation": "elu", "norm": "group"}
OPTIONS["zero_init_residual"] = True


@pytest.mark.parametrize("key", OPTIONS)
def test_the_configuration_passes_each_option_on(key: str) -> None:
    def traits(model: nn.Module) -> tuple[str, list[float]]:
        return repr(model), model(noise(2, 3, 8, 8)).flatten().tolist()

    option = {key: OPTIONS[key]}
    configured, plain = (
        traits(ResNetV2Model("mine", **{"depth": 11, **keys}).build(7, torch.Generator().manual_seed(0)))
        for keys in (option, {})
    )
    assert configured == traits(made(**{"depth": 11, "classes": 7, **option}))
    assert configured != plain


@pytest.mark.parametrize("options", [{"depth": 11}, {"bn_momentum": 1.0}, {"shortcut_kernel": 3}, {"norm": "group"}])
def test_the_edges_of_what_is_possible_are_accepted(options: dict[str, Any]) -> None:
    config = ResNetV2Model("mine", **{"depth": 20, **options})
    config.check()
    assert config.build(10)(noise(2, 3, 8, 8)).shape == (2, 10)


def test_models_is_keyed_by_name_with_the_depth_in_it() -> None:
    assert {name: model.name for name, model in MODELS.items()} == {name: name for name in MODELS}
    depths = {name: model.depth for name, model in MODELS.items() if hasattr(model, "depth")}
    assert depths == {name: int("".join(filter(str.isdigit, name.split("v")[0]))) for name in depths}
