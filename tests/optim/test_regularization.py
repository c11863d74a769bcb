"""Regularization: penalty, groups, defaults and errors, against sums and numbers made by hand."""

import math
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from resnetlab.errors import ConfigError
from resnetlab.optim import regularization as reg
from resnetlab.optim.regularization import REGULARIZATIONS, Regularization, conv_kernels, decay_groups, penalty, resolve


def net() -> Any:
    """8 tensors, 164 weights: conv 108 + 4, batch norm 4 + 4, conv 24 + 6, dense 12 + 2."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 1), nn.Flatten(), nn.Linear(6, 2))


def test_registry_and_defaults() -> None:
    table = {name: (cls.default_wd, cls.default_l2, cls.decay_kind) for name, cls in REGULARIZATIONS.items()}
    assert table == {
        "none": (None, None, "none"),
        "l2": (None, 1e-4, "none"),
        "weight_decay": (0.2, None, "decoupled"),
        "coupled": (5e-4, None, "coupled"),
        "l2_weight_decay": (4e-3, 1e-4, "decoupled"),
    }
    for name, cls in REGULARIZATIONS.items():
        node = OmegaConf.structured(cls)
        assert dict(node) == {"name": name, "label_smoothing": 0.0, "decay": "all"}
        assert OmegaConf.to_object(node) == cls()
        cls(label_smoothing=0.1).check()
    REGULARIZATIONS["coupled"](decay="kernels").check()


@pytest.mark.parametrize(
    ("name", "given", "resolved"),
    [
        ("none", (None, None), (None, None)),
        ("l2", (None, None), (None, 1e-4)),
        ("l2", (None, 3e-4), (None, 3e-4)),
        ("weight_decay", (None, None), (0.2, None)),
        ("weight_decay", (0.0, None), (0.0, None)),
        ("coupled", (None, None), (5e-4, None)),
        ("l2_weight_decay", (0.1, None), (0.1, 1e-4)),
    ],
)
def test_resolve(name: str, given: Any, resolved: Any) -> None:
    config = REGULARIZATIONS[name]()
    assert resolve(config, *given) == resolved
    assert resolve(config, *resolved) == resolved


@pytest.mark.parametrize(
    ("name", "wd", "l2", "message"),
    [
        (
            "l2",
            0.3,
            None,
            "wd (=0.3) is not used by regularization=l2; take regularization=weight_decay or leave wd out",
        ),
        ("l2", 0.3, 1e-4, "take regularization=l2_weight_decay or leave wd out"),
        ("none", 0.0, None, "wd (=0.0) is not used by regularization=none"),
        (
            "weight_decay",
            None,
            1e-4,
            "l2 (=0.0001) is not used by regularization=weight_decay; take regularization=l2 or",
        ),
        ("weight_decay", -0.1, None, "wd (=-0.1) must be finite and not negative"),
        ("l2", None, math.inf, "l2 (=inf) must be finite"),
        ("coupled", math.nan, None, "wd (=nan) must be finite"),
    ],
)
def test_resolve_refuses(name: str, wd: float | None, l2: float | None, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(REGULARIZATIONS[name](), wd, l2)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (REGULARIZATIONS["none"](label_smoothing=1.0), "label_smoothing (=1.0)"),
        (REGULARIZATIONS["none"](label_smoothing=-0.1), "label_smoothing (=-0.1)"),
        (REGULARIZATIONS["none"](label_smoothing=math.nan), "label_smoothing (=nan)"),
        (REGULARIZATIONS["weight_decay"](decay="conv"), "decay (=conv) must be one of all, kernels"),
        (REGULARIZATIONS["l2"](decay="kernels"), "decay (=kernels) is not used by regularization=l2"),
    ],
)
def test_check_refuses(config: Regularization, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        config.check()
    assert message in str(error.value)


def test_penalty_is_the_sum_over_convolution_kernels_and_nothing_else() -> None:
    model = net().double()
    kernels = conv_kernels(model)
    assert [tuple(k.shape) for k in kernels] == [(4, 3, 3, 3), (6, 4, 1, 1)]
    loss = penalty(kernels, 1e-3)
    by_hand = sum(1e-3 * w * w for i in (0, 2) for w in model[i].weight.detach().flatten().tolist())
    assert loss.shape == ()
    assert loss.item() == pytest.approx(by_hand, rel=1e-12)  # float64: rounding of 132 terms

    loss.backward()
    for name, p in model.named_parameters():
        if name in ("0.weight", "2.weight"):
            torch.testing.assert_close(p.grad, 2e-3 * p.detach(), rtol=1e-15, atol=0.0)
        else:
            assert p.grad is None, name
    assert penalty(conv_kernels(nn.Linear(2, 2)), 1e-4).item() == 0.0


def test_penalty_in_a_loss_agrees_with_autograd_through_the_plain_sum() -> None:
    ours, plain = net().double(), net().double()
    x = torch.randn(5, 3, 3, 3, dtype=torch.float64)
    scale = 2.0**16  # as GradScaler scales the whole loss
    ((ours(x).square().mean() + penalty(conv_kernels(ours), 0.1)) * scale).backward()
    kernels = [plain[0].weight, plain[2].weight]
    ((plain(x).square().mean() + sum(0.1 * k.square().sum() for k in kernels)) * scale).backward()
    for p, q in zip(ours.parameters(), plain.parameters(), strict=True):
        # the same sums in another order; the bias before batch norm has gradient 0 but for rounding
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-10, atol=1e-10)


def test_penalty_keeps_the_memory_format_and_zero_weights() -> None:
    kernel = nn.Parameter(torch.zeros(4, 3, 3, 3).to(memory_format=torch.channels_last))
    penalty([kernel], 1.0).backward()
    assert kernel.grad is not None
    assert kernel.grad.stride() == kernel.stride()
    assert kernel.grad.count_nonzero() == 0  # through a norm alone it would be 0/0


def test_conv_kernels_leaves_out_frozen_and_repeated_ones() -> None:
    model = net()
    model[0].weight.requires_grad_(False)
    twice = nn.Conv2d(4, 6, 1)
    twice.weight = model[2].weight
    model.append(twice)
    assert [id(k) for k in conv_kernels(model)] == [id(model[2].weight)]


def test_decay_groups_hold_each_trainable_tensor_once() -> None:
    model = net()
    groups = decay_groups(model, "all")
    assert {g: len(named) for g, named in groups.items()} == {"all": 8}
    groups = decay_groups(model, "kernels")
    assert {g: [name for name, _ in named] for g, named in groups.items()} == {
        "kernels": ["0.weight", "2.weight", "4.weight"],
        "rest": ["0.bias", "1.weight", "1.bias", "2.bias", "4.bias"],
    }
    assert {g: sum(p.numel() for _, p in named) for g, named in groups.items()} == {"kernels": 144, "rest": 20}
    model[0].bias.requires_grad_(False)
    assert sum(len(named) for named in decay_groups(model, "kernels").values()) == 7


def test_check_groups_refuses_lost_doubled_frozen_and_foreign_tensors() -> None:
    model = net()
    tensors = list(model.parameters())
    reg.check_groups(model, {"a": tensors[:3], "b": tensors[3:]})
    with pytest.raises(ConfigError, match=r"tensor 1.bias is in 0 parameter groups"):
        reg.check_groups(model, {"a": tensors[:3], "b": tensors[4:]})
    with pytest.raises(ConfigError, match=r"tensor 1.bias is in 2 parameter groups \['a', 'b'\]"):
        reg.check_groups(model, {"a": tensors[:4], "b": tensors[3:]})
    with pytest.raises(ConfigError, match=r"1 tensors in the groups are not this model's"):
        reg.check_groups(model, {"a": tensors, "b": [nn.Parameter(torch.zeros(1))]})
    model[0].weight.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"tensor 0.weight is in 1 parameter groups \['a'\] and frozen"):
        reg.check_groups(model, {"a": tensors})
    with pytest.raises(ConfigError, match="no trainable tensor"):
        decay_groups(model.requires_grad_(False), "all")
