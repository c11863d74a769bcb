"""The optimizers against formulas written down in NumPy, and against torch's own where that is the claim.

Gradients are drawn, not computed, so that every step is known. Float64 where the two sides do the same sums: 1e-12 is
then their rounding over eight steps. Float32 weights are of size 0.1 ... 1, one unit in the last place 6e-8.
"""

import copy
import importlib.util
import io
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from resnetlab.errors import ConfigError
from resnetlab.optim.optimizers import OPTIMIZERS as ALL
from resnetlab.optim.optimizers.base import FUSED_DEVICES, group_counts, set_lr_momentum
from resnetlab.optim.optimizers.muon import as_matrix
from resnetlab.optim.regularization import REGULARIZATIONS, conv_kernels, penalty

Grads = list[list[Tensor]]
FUSED = [(name, fused) for name in ("adam", "adamw", "sgd", "muon") for fused in (None, False)]
FUSED += [("radam", None), ("nadam", None)]  # torch has no fused kernel for these: no such key
OPTIMIZERS = {name: kind for name, kind in ALL.items() if name != "custom"}  # that one: training/test_own_parts.py
FORMULA_CASES = [(n, {} if f is None else {"fused": f}) for n, f in FUSED if n != "muon"] + [
    ("sgd", {"nesterov": True})
]
STEPS = 8  # RAdam's rectified phase begins at step 6
LRS = [0.1, 0.05, 0.2, 0.1, 0.02, 0.1, 0.1, 0.05]


def net(dtype: torch.dtype = torch.float32) -> Any:
    """8 tensors, 164 weights: conv 108 + 4, batch norm 4 + 4, conv 24 + 6, dense 12 + 2."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 1), nn.Flatten(), nn.Linear(6, 2)
    return nn.Sequential(*layers).to(dtype)


def grads_for(model: nn.Module, steps: int = STEPS, seed: int = 1) -> Grads:
    g = torch.Generator().manual_seed(seed)
    return [[torch.randn(p.shape, generator=g).to(p) for p in model.parameters()] for _ in range(steps)]


def build(name: str, model: nn.Module, regularization: str = "none", **options: Any) -> torch.optim.Optimizer:
    keys = {"lr": options.pop("lr", 0.1), "momentum": options.pop("momentum", 0.9), "wd": options.pop("wd", None)}
    decay = REGULARIZATIONS[regularization](decay=options.pop("decay", "all"))
    return OPTIMIZERS[name](**options).build(model, **keys, regularization=decay)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, grads: list[Tensor]) -> None:
    for p, g in zip(model.parameters(), grads, strict=True):
        p.grad = g.clone().to(memory_format=torch.preserve_format)
    optimizer.step()


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def check_equal(a: nn.Module, b: nn.Module) -> None:
    """To the bit."""
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


# The formulas. f(w, g, t, state) -> w after step t (from 1), before any decay; b1, b2, eps, psi as in the papers.


def sgd(w: Any, g: Any, t: int, lr: float, s: dict[str, Any], mu: float = 0.9, nesterov: bool = False) -> Any:
    s["v"] = mu * s.get("v", 0.0) + g
    return w - lr * (g + mu * s["v"] if nesterov else s["v"])


def moments(g: Any, s: dict[str, Any], b1: float, b2: float) -> tuple[Any, Any]:
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g * g
    return s["m"], s["v"]


def adam(w: Any, g: Any, t: int, lr: float, s: dict[str, Any], b1: float = 0.9, b2: float = 0.999) -> Any:
    m, v = moments(g, s, b1, b2)
    return w - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + 1e-7)


def radam(w: Any, g: Any, t: int, lr: float, s: dict[str, Any], b1: float = 0.9, b2: float = 0.999) -> Any:
    m, v = moments(g, s, b1, b2)
    limit = 2 / (1 - b2) - 1
    rho = limit - 2 * t * b2**t / (1 - b2**t)
    update = m / (1 - b1**t)
    if t > 5:  # rho > 5
        assert rho > 5
        r = math.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
        update = update * r * math.sqrt(1 - b2**t) / (np.sqrt(v) + 1e-7)
    return w - lr * update


def nadam(w: Any, g: Any, t: int, lr: float, s: dict[str, Any], b1: float = 0.9, b2: float = 0.999) -> Any:
    m, v = moments(g, s, b1, b2)
    mu, following = (b1 * (1 - 0.5 * 0.96 ** (k * 4e-3)) for k in (t, t + 1))
    s["product"] = s.get("product", 1.0) * mu
    size = np.sqrt(v / (1 - b2**t)) + 1e-7
    return w - lr * ((1 - mu) * g / (1 - s["product"]) + following * m / (1 - s["product"] * following)) / size


FORMULAS: dict[str, Callable[..., Any]] = {"sgd": sgd, "adam": adam, "adamw": adam, "radam": radam, "nadam": nadam}


@pytest.mark.parametrize("regularization", ["none", "weight_decay", "coupled"])
@pytest.mark.parametrize(("name", "options"), FORMULA_CASES)
def test_against_the_formula(name: str, options: dict[str, Any], regularization: str) -> None:
    """All eight tensors (decay reaches norms and biases too), with an lr that changes every step.

    torch keeps NAdam's product of momenta in float32: off by 3e-9 after these eight steps.
    """
    wd = None if regularization == "none" else 0.3
    formula = partial(sgd, nesterov=True) if "nesterov" in options else FORMULAS[name]
    model = net(torch.float64)
    expected = [w.numpy() for w in weights(model)]
    states: list[dict[str, Any]] = [{} for _ in expected]
    optimizer = build(name, model, regularization, wd=wd, **options)
    for t, (lr, grads) in enumerate(zip(LRS, grads_for(model), strict=True), start=1):
        set_lr_momentum(optimizer, lr, 0.9)
        step(model, optimizer, grads)
        for i, g in enumerate(x.numpy() for x in grads):
            w = expected[i]
            if regularization == "weight_decay":
                w = w - lr * 0.3 * w
            if regularization == "coupled":
                g = g + 0.3 * w
            expected[i] = formula(w, g, t, lr, states[i])
    for p, w in zip(weights(model), expected, strict=True):
        torch.testing.assert_close(p, torch.from_numpy(w), rtol=1e-12, atol=1e-7 if name == "nadam" else 1e-12)


@pytest.mark.parametrize(
    ("name", "regularization", "wd", "fused"),
    [
        ("adam", "weight_decay", 0.2, True),
        ("adamw", "weight_decay", 0.2, True),
        *(("sgd", "none", None, fused) for fused in (True, False)),
        *(("sgd", "coupled", 0.2, fused) for fused in (True, False)),
    ],
)
def test_is_torchs_adamw_or_sgd_to_the_bit(name: str, regularization: str, wd: float | None, fused: bool) -> None:
    ours, theirs = net(), net()
    a = build(name, ours, regularization, wd=wd, fused=fused)
    keys: dict[str, Any] = {"lr": 0.1, "weight_decay": wd or 0.0, "fused": fused}
    b: torch.optim.Optimizer = torch.optim.SGD(theirs.parameters(), momentum=0.9, **keys)
    if name != "sgd":
        b = torch.optim.AdamW(theirs.parameters(), eps=1e-7, **keys)
    for grads in grads_for(ours):
        step(ours, a, grads)
        step(theirs, b, grads)
    check_equal(ours, theirs)


@pytest.mark.parametrize(
    ("regularization", "decay"), [("weight_decay", "all"), ("l2_weight_decay", "all"), ("weight_decay", "kernels")]
)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zero_gradient_leaves_the_decay_alone(name: str, regularization: str, decay: str) -> None:
    """IV-22: w <- w * (1 - lr*wd), with the current lr, each step: every trainable tensor, or the kernels only."""
    model = net(torch.float64)
    before = weights(model)
    optimizer = build(name, model, regularization, wd=0.2, decay=decay)
    for lr in (0.1, 0.1, 0.5):
        set_lr_momentum(optimizer, lr)
        step(model, optimizer, [torch.zeros_like(w) for w in before])
    for p, w in zip(weights(model), before, strict=True):
        factor = (1 - 0.02) ** 2 * (1 - 0.1) if decay == "all" or w.ndim >= 2 else 1.0
        torch.testing.assert_close(p, w * factor, rtol=1e-14, atol=0.0)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_coupled_decay_is_the_l2_penalty_with_wd_twice_l2(name: str) -> None:
    """On the same tensors: a net of bias-free convolutions, where penalty and decay reach the same."""
    losses = []
    models = [nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 6, 1, bias=False)).double() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers_ = [build(name, models[0], "l2"), build(name, models[1], "coupled", wd=2 * 0.05)]
    x = torch.randn(5, 3, 4, 4, dtype=torch.float64)
    for _ in range(5):
        for i, (model, optimizer) in enumerate(zip(models, optimizers_, strict=True)):
            optimizer.zero_grad()
            loss = model(x).square().mean() + (penalty(conv_kernels(model), 0.05) if i == 0 else 0.0)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    for p, q in zip(weights(models[0]), weights(models[1]), strict=True):
        # Adam divides by sqrt(v): the sums' rounding (1e-16) grows where a gradient is near 0
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-11)
    assert losses[0] != losses[1]  # the penalty is in the loss, the decay is not


@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_is_torchs_muon_on_flattened_kernels_and_adamw_on_the_rest(nesterov: bool) -> None:
    model = net()
    kernels = [nn.Parameter(p.detach().clone().flatten(1)) for p in (model[0].weight, model[2].weight)]
    rest = [nn.Parameter(p.detach().clone()) for p in model.parameters() if p.ndim != 4]
    optimizer = build("muon", model, "weight_decay", wd=0.2, momentum=0.95, nesterov=nesterov)
    keys: dict[str, Any] = {"momentum": 0.95, "nesterov": nesterov, "adjust_lr_fn": "match_rms_adamw"}
    muon = torch.optim.Muon(kernels, lr=0.1, weight_decay=0.2, **keys)
    adamw = torch.optim.AdamW(rest, lr=0.1, betas=(0.95, 0.999), eps=1e-7, weight_decay=0.2, fused=True)
    for grads in grads_for(model):
        step(model, optimizer, grads)
        in_turn = [g.flatten(1) for g in grads if g.ndim == 4] + [g for g in grads if g.ndim != 4]
        for p, g in zip(kernels + rest, in_turn, strict=True):
            p.grad = g.clone()
        muon.step()
        adamw.step()
    ours = [model[0].weight.flatten(1), model[2].weight.flatten(1), *(p for p in model.parameters() if p.ndim != 4)]
    assert all(torch.equal(p, q) for p, q in zip(ours, kernels + rest, strict=True))


@pytest.mark.parametrize("adamw_lr", [None, 0.003])
def test_muon_renormalized_is_torchs_on_kernels_that_are_scaled_before_each_step(adamw_lr: float | None) -> None:
    """airbench94_muon: p *= sqrt(len(p)) / |p|, then the step; the AdamW part's lr follows the schedule too."""
    model = net()
    kernels = [nn.Parameter(p.detach().clone().flatten(1)) for p in (model[0].weight, model[2].weight)]
    rest = [nn.Parameter(p.detach().clone()) for p in model.parameters() if p.ndim != 4]
    optimizer = build("muon", model, "weight_decay", wd=0.2, momentum=0.95, renormalize=True, adamw_lr=adamw_lr)
    muon = torch.optim.Muon(kernels, lr=0.1, weight_decay=0.2, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(rest, lr=0.1, betas=(0.95, 0.999), eps=1e-7, weight_decay=0.2, fused=True)
    for lr, grads in zip(LRS, grads_for(model), strict=True):
        set_lr_momentum(optimizer, lr)
        set_lr_momentum(muon, lr)
        set_lr_momentum(adamw, lr if adamw_lr is None else lr * (adamw_lr / 0.1))
        step(model, optimizer, grads)
        in_turn = [g.flatten(1) for g in grads if g.ndim == 4] + [g for g in grads if g.ndim != 4]
        for p, g in zip(kernels + rest, in_turn, strict=True):
            p.grad = g.clone()
        with torch.no_grad():
            for p in kernels:
                p.mul_(len(p) ** 0.5 / p.norm())
        muon.step()
        adamw.step()
    ours = [model[0].weight.flatten(1), model[2].weight.flatten(1), *(p for p in model.parameters() if p.ndim != 4)]
    for p, q in zip(ours, kernels + rest, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)
    zero: Any = nn.Conv2d(3, 8, 3, bias=False)
    nn.init.zeros_(zero.weight)
    step(zero, build("muon", zero, renormalize=True), [torch.ones(8, 3, 3, 3)])
    assert zero.weight.isfinite().all()  # a kernel that begins as zeros has no norm


@pytest.mark.parametrize("regularization", ["coupled", "weight_decay"])
def test_norm_biases_have_a_multiple_of_lr_and_the_same_decay(regularization: str) -> None:
    """As airbench94's dict(params=norm_biases, lr=lr_biases, weight_decay=wd/lr_biases), relative to the rest."""
    model, twin = net(torch.float64), net(torch.float64)
    options = {"norm_bias_lr": 64.0, "wd": 0.2, "nesterov": True}
    optimizer = build("sgd", model, regularization, **options)
    names = [(group["name"], len(group["params"]), group["lr"]) for group in optimizer.param_groups]
    assert names == [("all", 7, 0.1), ("all-norm-biases", 1, 6.4)]
    bias = twin[1].bias
    groups = [{"params": [p for p in twin.parameters() if p is not bias]}, {"params": [bias]}]
    plain = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    for lr, grads in zip(LRS, grads_for(model), strict=True):
        set_lr_momentum(optimizer, lr)
        step(model, optimizer, grads)
        for group, factor in zip(plain.param_groups, (1.0, 64.0), strict=True):
            group["lr"], group["weight_decay"] = lr * factor, 0.2 / factor if regularization == "coupled" else 0.0
            for p in group["params"] if regularization == "weight_decay" else ():
                p.data.mul_(1 - lr * 0.2)
        step(twin, plain, grads)
    for p, q in zip(weights(model), weights(twin), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)
    assert group_counts(optimizer)[1] == {
        **{"name": "all-norm-biases", "tensors": 1, "parameters": 4},
        **{"wd": 0.2 / 64, "lr_factor": 64.0},
    }


def test_norm_biases_of_muon_have_their_multiple_of_the_adamw_parts_lr() -> None:
    optimizer = build("muon", net(), "weight_decay", lr=0.02, norm_bias_lr=4.0, adamw_lr=0.001, decay="kernels")
    rates = {group["name"]: (group["lr"], len(group["params"])) for group in optimizer.param_groups}
    assert rates == {
        "muon-kernels": (0.02, 2),
        "adamw-kernels": (pytest.approx(0.001), 1),
        "adamw-rest": (pytest.approx(0.001), 4),
        "adamw-rest-norm-biases": (pytest.approx(0.004), 1),
    }


def test_muons_first_step_is_the_orthogonal_factor_of_the_gradient() -> None:
    """Of g = U S V', it is -lr * 0.2 * sqrt(max(out, in*h*w)) * U S' V', S' in 0.5 ... 1.5 (Keller Jordan's post)."""
    model: Any = nn.Conv2d(3, 8, 3, bias=False)
    before = model.weight.detach().clone()
    g = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(2))
    step(model, build("muon", model, lr=0.01), [g])
    update = (before - model.weight.detach()).flatten(1) / (0.01 * 0.2 * math.sqrt(27))
    u, _, vt = torch.linalg.svd(g.flatten(1), full_matrices=False)
    core = u.T @ update @ vt.T
    assert core.diagonal().min() > 0.5
    assert core.diagonal().max() < 1.5
    # bfloat16 has 8 bits, 0.004 of 1, and five steps of three products each
    assert (core - core.diagonal().diag()).abs().max() < 0.05


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_channels_last_makes_no_difference(name: str) -> None:
    plain, last = net(), net().to(memory_format=torch.channels_last)
    assert not last[0].weight.is_contiguous()
    unaligned = copy.deepcopy(last)
    a, b, c = (build(name, m, "weight_decay", lr=0.01) for m in (plain, last, unaligned))
    before = weights(plain)
    for grads in grads_for(plain):
        step(plain, a, grads)
        aligned = [torch.empty_like(p).copy_(g) for p, g in zip(last.parameters(), grads, strict=True)]
        step(last, b, aligned)  # autograd gives gradients in the layout of their weights
        if name == "muon":
            step(unaligned, c, grads)
    assert not last[0].weight.is_contiguous()
    if name == "muon":  # takes gradients in another memory format
        check_equal(last, unaligned)
    for p, q, w in zip(weights(plain), weights(last), before, strict=True):
        # Muon: other order of the columns in bfloat16 products (0.004 of the step of 0.01*0.2*sqrt(27) = 0.01, 8 steps)
        atol = 1e-3 if name == "muon" and p.ndim == 4 else 1e-6
        assert (p - w).abs().max() > 10 * atol
        torch.testing.assert_close(p, q, rtol=0.0, atol=atol)


def test_as_matrix_is_a_view_in_both_memory_formats() -> None:
    for shape in ((4, 3, 3, 3), (6, 4, 1, 1), (4, 1, 3, 3), (4, 3, 5), (4, 3)):
        w = torch.randn(shape)
        assert torch.equal(as_matrix(w, w), w.flatten(1))
        if w.ndim == 4:
            last = w.to(memory_format=torch.channels_last)
            matrix = as_matrix(last, last)
            assert matrix.data_ptr() == last.data_ptr()
            assert torch.equal(as_matrix(w, last), matrix)  # a contiguous gradient of a channels_last weight
            assert torch.equal(matrix.sort().values, w.flatten(1).sort().values)  # the same rows, reordered


@pytest.mark.parametrize("decay", ["all", "kernels"])
@pytest.mark.parametrize("name", ALL)
def test_every_trainable_tensor_is_in_exactly_one_group_and_a_frozen_one_in_none(name: str, decay: str) -> None:
    model = net()
    model[0].weight.requires_grad_(False)
    model[1].bias.requires_grad_(False)
    optimizer = ALL[name](**{"function": "torch.optim.RMSprop"} if name == "custom" else {}).build(
        model, lr=0.1, momentum=0.9, wd=0.2, regularization=REGULARIZATIONS["weight_decay"](decay=decay)
    )
    found = sorted(id(p) for group in optimizer.param_groups for p in group["params"])
    assert found == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert len(found) == 6


MUON_KERNELS = [("muon-kernels", 2, 132, 0.2), ("adamw-kernels", 1, 12, 0.2), ("adamw-rest", 5, 20, 0.0)]


@pytest.mark.parametrize(
    ("name", "regularization", "decay", "expected"),
    [
        ("adamw", "none", "all", [("all", 8, 164, 0.0)]),
        ("adamw", "l2", "all", [("all", 8, 164, 0.0)]),
        ("adamw", "weight_decay", "all", [("all", 8, 164, 0.2)]),
        ("sgd", "weight_decay", "all", [("all", 8, 164, 0.2)]),
        ("sgd", "coupled", "kernels", [("kernels", 3, 144, 5e-4), ("rest", 5, 20, 0.0)]),
        ("nadam", "l2_weight_decay", "kernels", [("kernels", 3, 144, 4e-3), ("rest", 5, 20, 0.0)]),
        ("muon", "weight_decay", "all", [("muon-all", 2, 132, 0.2), ("adamw-all", 6, 32, 0.2)]),
        ("muon", "weight_decay", "kernels", MUON_KERNELS),
    ],
)
def test_group_counts(name: str, regularization: str, decay: str, expected: list[tuple[Any, ...]]) -> None:
    rows = group_counts(build(name, net(), regularization, decay=decay))
    assert rows == [dict(zip(("name", "tensors", "parameters", "wd"), row, strict=True)) for row in expected]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resumes_to_the_bit_from_plain_data(name: str) -> None:
    through, again = net(), net()
    a = build(name, through, "weight_decay", decay="kernels")
    grads = grads_for(through)
    for g in grads[:3]:
        step(through, a, g)
    file = io.BytesIO()
    torch.save({"model": through.state_dict(), "optimizer": a.state_dict()}, file)
    for g in grads[3:6]:
        step(through, a, g)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again.load_state_dict(saved["model"])
    b = build(name, again, "weight_decay", decay="kernels", lr=0.3, momentum=0.5)  # replaced by the saved ones
    b.load_state_dict(saved["optimizer"])
    for g in grads[3:6]:
        step(again, b, g)
    check_equal(through, again)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_checkpoint_may_change_its_memory_format(name: str) -> None:
    plain, last = net(), net().to(memory_format=torch.channels_last)
    a, b = (build(name, m, lr=0.01) for m in (plain, last))
    grads = grads_for(plain)
    step(plain, a, grads[0])
    last.load_state_dict(plain.state_dict())
    b.load_state_dict(copy.deepcopy(a.state_dict()))  # torch would share the tensors of the two
    step(plain, a, grads[1])
    step(last, b, [torch.empty_like(p).copy_(g) for p, g in zip(last.parameters(), grads[1], strict=True)])
    for p, q in zip(weights(plain), weights(last), strict=True):
        torch.testing.assert_close(p, q, rtol=0.0, atol=5e-4 if name == "muon" else 1e-6)  # as above, one step


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_set_lr_momentum_acts_in_the_next_step(name: str) -> None:
    """Written into every group, and the next step goes another way than with the old momentum."""
    model, twin = net(torch.float64), net(torch.float64)
    optimizer, other = build(name, model), build(name, twin)
    for g in optimizer.param_groups:
        assert g["lr"] == 0.1
        assert g.get("momentum", g.get("betas", (0,))[0]) == 0.9
    grads = grads_for(model)
    step(model, optimizer, grads[0])
    step(twin, other, grads[0])
    set_lr_momentum(optimizer, 0.03, 0.5)
    set_lr_momentum(other, 0.03)
    for g in optimizer.param_groups:
        assert g["lr"] == 0.03
        assert (g["betas"] == (0.5, 0.999)) if "betas" in g else (g["momentum"] == 0.5)
    step(model, optimizer, grads[1])
    step(twin, other, grads[1])
    for p, q in zip(weights(model), weights(twin), strict=True):
        assert not torch.allclose(p, q, rtol=0.0, atol=1e-6)


def test_set_lr_momentum_in_sgd_by_hand() -> None:
    w = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    model: Any = nn.Module()
    model.w = w
    optimizer = build("sgd", model, lr=0.1, momentum=0.9)
    step(model, optimizer, [torch.tensor([2.0], dtype=torch.float64)])  # v = 2, w = 1 - 0.2
    set_lr_momentum(optimizer, 0.5, 0.25)
    step(model, optimizer, [torch.tensor([1.0], dtype=torch.float64)])  # v = 0.25*2 + 1, w = 0.8 - 0.75
    assert w.item() == pytest.approx(0.05, abs=1e-15)
    lr = optimizer.param_groups[0]["lr"] = torch.tensor(0.1)
    set_lr_momentum(optimizer, 0.25, 0.8)
    assert optimizer.param_groups[0]["lr"] is lr  # a tensor is filled in place
    assert lr.item() == 0.25


@pytest.mark.parametrize(("name", "fused"), FUSED)
def test_grad_scaler_skips_the_decay_with_the_step(name: str, fused: bool | None) -> None:
    """A real GradScaler whose first step overflows, as its first steps do; after it all goes as if it had not been."""
    options = {} if fused is None else {"fused": fused}
    model, twin = net(), net()
    optimizer, other = (build(name, m, "weight_decay", wd=0.2, **options) for m in (model, twin))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    before = weights(model)
    grads = grads_for(model, 3)
    for i, g in enumerate([[torch.full_like(w, math.inf) for w in before], *grads]):
        scale = scaler.scale(torch.ones(())).item()  # 4, and 2 after the overflow: exact in floats
        for p, x in zip(model.parameters(), g, strict=True):
            p.grad = x * scale
        scaler.step(optimizer)
        scaler.update()
        if i == 0:
            assert all(torch.equal(p, w) for p, w in zip(weights(model), before, strict=True))
        else:
            step(twin, other, g)
    assert scaler.get_scale() == 2.0
    check_equal(model, twin)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_step_takes_a_closure_and_runs_hooks_once(name: str) -> None:
    torch.optim.SGD(net().parameters())  # torch wraps SGD.step at its first use; ours must not run it wrapped
    model = net()
    optimizer = build(name, model, "weight_decay")
    hooks: list[float] = []
    optimizer.register_step_post_hook(lambda *_: hooks.append(1.0))
    x = torch.randn(4, 3, 3, 3)
    before = weights(model)

    def closure() -> float:
        assert all(torch.equal(p, w) for p, w in zip(weights(model), before, strict=True)), "decayed too early"
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return float(loss.detach())

    loss = optimizer.step(closure)
    assert loss is not None and loss > 0  # noqa: PT018
    assert hooks == [1.0]
    assert not any(torch.equal(p, w) for p, w in zip(weights(model), before, strict=True))


def test_decoupled_sgd_runs_hooks_once_also_if_torchs_was_used_before_its_import() -> None:
    torch.optim.SGD(net().parameters())
    spec = importlib.util.find_spec("resnetlab.optim.optimizers.adam_and_sgd")
    assert spec is not None and spec.loader is not None  # noqa: PT018
    late = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(late)
    optimizer = late.DecoupledSGD(net().parameters(), lr=0.1)
    optimizer.param_groups[0]["decoupled_wd"] = 0.0
    hooks: list[float] = []
    optimizer.register_step_post_hook(lambda *_: hooks.append(1.0))
    optimizer.step()
    assert hooks == [1.0]


COMMON = {"norm_bias_lr": 1.0, "sam": 0.0}
MUON = {"ns_steps": 5, "renormalize": False, "adamw_lr": None}


def test_registry_and_defaults() -> None:
    configs = {name: OmegaConf.to_object(OmegaConf.structured(cls)) for name, cls in OPTIMIZERS.items()}
    assert configs == {name: cls() for name, cls in OPTIMIZERS.items()}
    assert {name: vars(config) for name, config in configs.items()} == {
        "adam": COMMON | {"name": "adam", "beta2": 0.999, "eps": 1e-7, "fused": None},
        "adamw": COMMON | {"name": "adamw", "beta2": 0.999, "eps": 1e-7, "fused": None},
        "sgd": COMMON | {"name": "sgd", "nesterov": False, "fused": None},
        "radam": COMMON | {"name": "radam", "beta2": 0.999, "eps": 1e-7},
        "nadam": COMMON | {"name": "nadam", "beta2": 0.999, "eps": 1e-7, "momentum_decay": 4e-3},
        "muon": COMMON | MUON | {"name": "muon", "nesterov": True, "beta2": 0.999, "eps": 1e-7, "fused": None},
    }
    momenta = {name: cls.default_momentum for name, cls in OPTIMIZERS.items()}
    assert momenta == dict.fromkeys(OPTIMIZERS, 0.9) | {"muon": 0.95}
    for cls in OPTIMIZERS.values():
        cls().check()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adamw", {"lr": 0.0}, "lr (=0.0) must be a finite number above 0"),
        ("adamw", {"lr": math.inf}, "lr (=inf) must be"),
        ("adamw", {"momentum": 1.0}, "momentum (=1.0) must be in [0, 1)"),
        ("adamw", {"beta2": 1.0}, "optimizer.beta2 (=1.0) must be in [0, 1)"),
        ("radam", {"eps": 0.0}, "optimizer.eps (=0.0) must be a finite number above 0"),
        ("adam", {"eps": math.inf}, "optimizer.eps (=inf) must be"),
        ("adam", {"beta2": math.nan}, "optimizer.beta2 (=nan) must be"),
        ("nadam", {"momentum_decay": -1.0}, "optimizer.momentum_decay (=-1.0) must be a finite number of at least 0"),
        ("sgd", {"nesterov": True, "momentum": 0.0}, "momentum (=0.0) must be above 0 with optimizer.nesterov=true"),
        ("sgd", {"norm_bias_lr": 0.0}, "optimizer.norm_bias_lr (=0.0) must be a finite number above 0"),
        ("radam", {"sam": -0.1}, "optimizer.sam (=-0.1) must be a finite number of at least 0"),
        ("sgd", {"sam": math.inf}, "optimizer.sam (=inf) must be"),
        ("muon", {"adamw_lr": -1.0}, "optimizer.adamw_lr (=-1.0) must be a finite number above 0"),
        ("muon", {"ns_steps": 0}, "optimizer.ns_steps (=0) must be in 1..99"),
        ("muon", {"ns_steps": 100}, "optimizer.ns_steps (=100) must be in 1..99"),
        ("muon", {"regularization": "coupled"}, "optimizer=muon with regularization=coupled is refused"),
        ("adamw", {"regularization": "l2", "wd": 0.1}, "wd (=0.1) is not used by regularization=l2"),
        ("adamw", {"regularization": "weight_decay", "decay": "some"}, "regularization.decay (=some)"),
    ],
)
def test_build_refuses(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(name, net(), **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_fused_devices_are_torchs() -> None:
    from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

    assert set(FUSED_DEVICES) <= set(_get_fused_kernels_supported_devices())
    assert build("adamw", net()).param_groups[0]["fused"] is True
    assert build("adamw", net(), fused=False).param_groups[0]["fused"] is False


def test_coupled_decay_with_momentum_acts_as_a_decoupled_one_that_is_one_over_one_minus_mu_larger() -> None:
    """What the README says of SGD. No gradient, lr 0.1, 1,000 steps: exp(-0.05) without momentum, exp(-0.5) at 0.9."""

    def shrunk(regularization: str, wd: float, momentum: float) -> float:
        layer = nn.Linear(1, 1, bias=False)
        nn.init.ones_(layer.weight)
        optimizer = OPTIMIZERS["sgd"]().build(
            layer, lr=0.1, momentum=momentum, wd=wd, regularization=REGULARIZATIONS[regularization]()
        )
        for _ in range(1000):
            layer.weight.grad = torch.zeros_like(layer.weight)
            optimizer.step()
        return float(layer.weight.detach())

    # rounding in float32, 1,000 times
    assert shrunk("coupled", 5e-4, 0.0) == pytest.approx(shrunk("weight_decay", 5e-4, 0.0), rel=1e-5)
    assert shrunk("coupled", 5e-4, 0.0) == pytest.approx(math.exp(-0.05), rel=1e-3)
    # the buffer takes about 1 / (1 - mu) = 10 steps to fill: 10 of 1,000 steps' decay of 0.5 is 0.5 %
    assert shrunk("coupled", 5e-4, 0.9) == pytest.approx(shrunk("weight_decay", 5e-3, 0.9), rel=1e-2)
    assert shrunk("coupled", 5e-4, 0.9) == pytest.approx(math.exp(-0.5), rel=1e-2)
