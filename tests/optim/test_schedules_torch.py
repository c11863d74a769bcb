"""Every schedule that torch also has equals torch's own scheduler at every step of a whole run, lr and momentum.

Tolerances: where torch has a closed form the two differ by rounding only (1e-12 relative). Its chainable forms (Cosine,
Polynomial, Linear) multiply the previous lr by a ratio at each step, so that rounding accumulates and near zero only
the difference relative to the peak means something: 1e-12 of lr.
"""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as theirs

from resnetlab.optim.schedules import SCHEDULES, RunLength, Schedule, schedule_table

ours = SimpleNamespace(**{schedule.__name__: schedule for schedule in SCHEDULES.values()})
LR, MOMENTUM = 0.3, 0.9
SPAN = RunLength(steps_per_epoch=7, epochs=13)
N = SPAN.steps_per_epoch
OPTIMIZERS: dict[str, Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=LR, momentum=MOMENTUM),
    "adam": lambda p: torch.optim.Adam(p, lr=LR, betas=(MOMENTUM, 0.999)),
}
Make = Callable[[torch.optim.Optimizer], theirs.LRScheduler]


def run_torch(make: Make, optimizer: str = "sgd", ticks: int = SPAN.steps) -> np.ndarray:
    """(ticks, 2): lr and momentum before each of the scheduler's steps."""
    opt = OPTIMIZERS[optimizer]([torch.nn.Parameter(torch.zeros(1))])
    scheduler, rows = make(opt), []
    for _ in range(ticks):
        group = opt.param_groups[0]
        rows.append((group["lr"], group["momentum"] if optimizer == "sgd" else group["betas"][0]))
        opt.step()
        scheduler.step()
    return np.array(rows)


def assert_equal(schedule: Schedule, make: Make, optimizer: str = "sgd", span: RunLength = SPAN) -> None:
    """Compares a whole run; with interval epoch torch's scheduler is stepped once an epoch."""
    ticks, each = (span.steps, 1) if schedule.interval == "step" else (span.epochs, span.steps_per_epoch)
    expected = np.repeat(run_torch(make, optimizer, ticks), each, axis=0)
    np.testing.assert_allclose(schedule_table(schedule, LR, MOMENTUM, span), expected, rtol=1e-12, atol=1e-12 * LR)
    # A table of constants would be no test.
    assert isinstance(schedule, ours.Constant) or len(np.unique(expected[:, 0])) > 1


def halving(t: float) -> float:
    """lr factor at t epochs, for the twin of LambdaLR."""
    return float(0.5**t)


HALVING = f"{__name__}.halving"

# name: (schedule, torch's scheduler with u ticks an epoch: 1 with interval epoch, N with interval step)
TWINS: dict[str, tuple[Callable[..., Schedule], Callable[[torch.optim.Optimizer, int], theirs.LRScheduler]]] = {
    "constant": (ours.Constant, lambda o, u: theirs.ConstantLR(o, factor=1.0)),
    "step": (
        lambda **k: ours.Step(step_size=3, gamma=0.3, **k),
        lambda o, u: theirs.StepLR(o, step_size=3 * u, gamma=0.3),
    ),
    "multistep": (
        lambda **k: ours.MultiStep(milestones=[2, 5, 11], gamma=0.2, **k),
        lambda o, u: theirs.MultiStepLR(o, [2 * u, 5 * u, 11 * u], gamma=0.2),
    ),
    "piecewise_constant": (
        lambda **k: ours.PiecewiseConstant(milestones=[[2, 1.0], [5, 0.2], [13, 0.04]], **k),
        lambda o, u: theirs.MultiStepLR(o, [2 * u, 5 * u], gamma=0.2),
    ),
    "exponential": (
        lambda **k: ours.Exponential(gamma=0.7, **k),
        lambda o, u: theirs.ExponentialLR(o, gamma=0.7 ** (1 / u)),
    ),
    "polynomial": (
        lambda **k: ours.Polynomial(power=1.0, **k),
        lambda o, u: theirs.PolynomialLR(o, total_iters=13 * u, power=1.0),
    ),
    "polynomial, squared, shorter than the run": (
        lambda **k: ours.Polynomial(power=2.0, length=9, **k),
        lambda o, u: theirs.PolynomialLR(o, total_iters=9 * u, power=2.0),
    ),
    "cosine": (ours.Cosine, lambda o, u: theirs.CosineAnnealingLR(o, T_max=13 * u)),
    "cosine, final": (
        lambda **k: ours.Cosine(final=0.1, **k),
        lambda o, u: theirs.CosineAnnealingLR(o, T_max=13 * u, eta_min=0.1 * LR),
    ),
    "cosine_restarts": (
        lambda **k: ours.CosineRestarts(first=3, mult=1, final=0.1, **k),
        lambda o, u: theirs.CosineAnnealingWarmRestarts(o, T_0=3 * u, T_mult=1, eta_min=0.1 * LR),
    ),
    "cosine_restarts, T_mult 2": (
        lambda **k: ours.CosineRestarts(first=1, mult=2, **k),
        lambda o, u: theirs.CosineAnnealingWarmRestarts(o, T_0=u, T_mult=2),
    ),
    "cosine_restarts, T_mult 3": (
        lambda **k: ours.CosineRestarts(first=1, mult=3, **k),
        lambda o, u: theirs.CosineAnnealingWarmRestarts(o, T_0=u, T_mult=3),
    ),
    "lambda": (
        lambda **k: ours.Lambda(function=HALVING, **k),
        lambda o, u: theirs.LambdaLR(o, lambda tick: halving(tick / u)),
    ),
}


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("name", TWINS)
def test_equals_torch(name: str, interval: str) -> None:
    make, twin = TWINS[name]
    assert_equal(make(interval=interval), lambda o: twin(o, N if interval == "step" else 1))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("up", "down"), [(2.0, None), (1.0, 3.0), (2.5, 0.75)])
@pytest.mark.parametrize(("mode", "gamma"), [("triangular", 1.0), ("triangular2", 1.0), ("exp_range", 0.98)])
def test_cyclic_equals_torch(mode: str, gamma: float, up: float, down: float | None, optimizer: str) -> None:
    schedule = ours.Cyclic(
        lowest=0.1, up=up, down=down, mode=mode, gamma=gamma, lowest_momentum=0.8, highest_momentum=0.97
    )
    assert_equal(
        schedule,
        lambda o: theirs.CyclicLR(
            o,
            base_lr=0.1 * LR,
            max_lr=LR,
            step_size_up=up * N,  # type: ignore[arg-type]  # a float in torch, too
            step_size_down=None if down is None else down * N,  # type: ignore[arg-type]
            mode=mode,  # type: ignore[arg-type]
            gamma=gamma,
            base_momentum=0.8,
            max_momentum=0.97,
        ),
        optimizer,
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize("anneal", ["cos", "linear"])
@pytest.mark.parametrize("pct_start", [0.0, 0.3, 0.45])
def test_one_cycle_equals_torch(anneal: str, three_phase: bool, pct_start: float, optimizer: str) -> None:
    schedule = ours.OneCycle(
        anneal=anneal, three_phase=three_phase, pct_start=pct_start, div_factor=20, final_div_factor=50
    )
    assert_equal(
        schedule,
        lambda o: theirs.OneCycleLR(
            o,
            max_lr=LR,
            total_steps=SPAN.steps,
            anneal_strategy=anneal,  # type: ignore[arg-type]
            three_phase=three_phase,
            pct_start=pct_start,
            div_factor=20,
            final_div_factor=50,
        ),
        optimizer,
    )


@pytest.mark.parametrize("steps", [2, 3, 4, 5, 11, 100, 782])
def test_one_cycle_with_torchs_defaults_equals_torch_at_any_length(steps: int) -> None:
    assert_equal(ours.OneCycle(), lambda o: theirs.OneCycleLR(o, LR, total_steps=steps), span=RunLength(steps, 1))


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("warmup", [1, 4, 13])
def test_warmup_is_torchs_linear_factor_times_the_schedule_step_by_step(warmup: int, interval: str) -> None:
    schedule = ours.Exponential(gamma=0.7, interval=interval, warmup=warmup, warmup_from=0.2)
    linear = run_torch(lambda o: theirs.LinearLR(o, start_factor=0.2, total_iters=warmup * N))[:, 0] / LR
    decay = 0.7 ** (np.arange(SPAN.steps) / N if interval == "step" else np.repeat(np.arange(SPAN.epochs), N))
    np.testing.assert_allclose(schedule_table(schedule, LR, MOMENTUM, SPAN)[:, 0], LR * linear * decay, rtol=1e-12)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_reduce_on_plateau_is_torchs_own_and_its_floor_a_fraction_of_lr(optimizer: str) -> None:
    opt = OPTIMIZERS[optimizer]([torch.nn.Parameter(torch.zeros(1))])
    schedule = ours.ReduceOnPlateau(factor=0.1, patience=1, min_lr=0.005)
    schedule.check()
    scheduler, lrs = schedule.build(opt), []
    # Epochs 2 and 3 improve by too little, 4 by enough; 5 and 6, 7 and 8 ... do not.
    for loss in [1.0, 0.99999, 0.99998, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]:
        scheduler.step(loss)
        lrs.append(opt.param_groups[0]["lr"])
    factors = [1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.005, 0.005, 0.005, 0.005]
    np.testing.assert_allclose(lrs, LR * np.array(factors), rtol=1e-12)


def test_reduce_on_plateau_with_relative_threshold_equals_a_scheduler_made_by_hand() -> None:
    losses = np.random.default_rng(0).uniform(0.9, 1.1, 100) * np.linspace(2, 1, 100)

    def lrs(make: Callable[[torch.optim.Optimizer], theirs.ReduceLROnPlateau]) -> list[float]:
        opt = OPTIMIZERS["sgd"]([torch.nn.Parameter(torch.zeros(1))])
        scheduler, values = make(opt), []
        for loss in losses:
            scheduler.step(loss)
            values.append(opt.param_groups[0]["lr"])
        return values

    built = lrs(ours.ReduceOnPlateau(patience=2, cooldown=1, threshold=0.01, threshold_mode="rel").build)
    by_hand = lrs(
        lambda o: theirs.ReduceLROnPlateau(o, factor=0.1**0.5, patience=2, cooldown=1, threshold=0.01, min_lr=5e-4 * LR)
    )
    assert len(set(built)) > 3
    np.testing.assert_allclose(built, by_hand, rtol=1e-12)


@pytest.mark.parametrize(
    ("keys", "expected"), [({}, "min"), ({"monitor": "val/acc"}, "max"), ({"monitor": "val/acc", "mode": "min"}, "min")]
)
def test_reduce_on_plateau_knows_the_direction_of_its_metric(keys: dict[str, str], expected: str) -> None:
    opt = OPTIMIZERS["sgd"]([torch.nn.Parameter(torch.zeros(1))])
    assert ours.ReduceOnPlateau(**keys).build(opt).mode == expected  # type: ignore[arg-type]


def test_reduce_on_plateau_alone_has_state_and_plans_the_constant_lr() -> None:
    assert [name for name, schedule in SCHEDULES.items() if schedule.stateful] == ["reduce_on_plateau"]
    assert (schedule_table(ours.ReduceOnPlateau(), LR, MOMENTUM, SPAN) == [LR, MOMENTUM]).all()
