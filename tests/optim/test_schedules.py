"""Schedules against hand-written values: milestones, interval, stretch, shortfall, and every error."""

import math
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from resnetlab.errors import ConfigError
from resnetlab.optim.schedules import SCHEDULES, ReduceOnPlateau, RunLength, Schedule, length_warning, schedule_table
from resnetlab.optim.schedules.cyclic import Cyclic, OneCycle
from resnetlab.optim.schedules.decay_and_piecewise import (
    Constant,
    Cosine,
    CosineRestarts,
    Exponential,
    MultiStep,
    PiecewiseConstant,
    PiecewiseLinear,
    Polynomial,
    Step,
    WarmupStableDecay,
)
from resnetlab.optim.schedules.special import Lambda

LR = 8e-4
NAMES = """
constant cosine cosine_restarts cyclic exponential inverse_sqrt lambda multistep one_cycle
piecewise_constant piecewise_linear polynomial reduce_on_plateau step wsd
""".split()  # noqa: SIM905


def make(name: str, /, **keys: Any) -> Schedule:
    if name == "lambda":
        keys = {"function": "math.cosh", **keys}
    return SCHEDULES[name](**keys)


def lrs(schedule: Schedule, span: RunLength, lr: float = LR) -> np.ndarray:
    return schedule_table(schedule, lr, 0.9, span)[:, 0]


def raises(message: str) -> Any:
    return pytest.raises(ConfigError, match=re.escape(message))


# --- the package


def test_registry_and_names() -> None:
    assert set(NAMES) <= set(SCHEDULES)
    assert all(schedule.name == name for name, schedule in SCHEDULES.items())


@pytest.mark.parametrize("name", NAMES)
def test_is_a_structured_config_and_survives_the_round_trip(name: str) -> None:
    config = OmegaConf.structured(SCHEDULES[name])
    assert config.name == name
    assert "stateful" not in config
    assert "allows_warmup" not in config
    config.length = 7
    if name == "lambda":
        config.function = "math.cosh"
    assert OmegaConf.to_object(config) == make(name, length=7.0)


@pytest.mark.parametrize("name", NAMES)
def test_the_defaults_pass_their_checks_and_begin_at_lr_or_below(name: str) -> None:
    rows = schedule_table(make(name), LR, 0.9, RunLength(3, 12))
    assert rows.shape == (36, 2)
    assert rows.dtype == np.float64
    schedule, span = make(name), RunLength(3, 12)
    expected = [(schedule.lr(k, LR, span), schedule.momentum(k, 0.9, span)) for k in range(36)]
    np.testing.assert_array_equal(rows, expected)
    assert 0 < rows[0, 0] <= LR
    assert rows[:, 0].max() <= LR * (1 + 1e-12) or name == "lambda"
    assert (rows[:, 1] == 0.9).all() or name in ("cyclic", "one_cycle")


# --- milestones


def test_atienzas_200_epochs() -> None:
    # Keras' cifar10_resnet, 0-based: 1e-3 for epochs 0-80, 1e-4 for 81-120, 1e-5 for 121-160, 1e-6 for 161-180 ...
    expected = [1e-3] * 81 + [1e-4] * 40 + [1e-5] * 40 + [1e-6] * 20 + [5e-7] * 19
    assert len(expected) == 200
    got = lrs(PiecewiseConstant(), RunLength(3, 200), lr=1e-3)
    np.testing.assert_allclose(got, np.repeat(expected, 3), rtol=1e-15)


def test_the_main_experiment_by_hand() -> None:
    # [8e-4, 20] [8e-5, 40] [1e-5, 50] [2e-6, 60]; t = e - 1, so that epoch 60, the last, has f(59), not yet 2e-6.
    sixth = lrs(PiecewiseLinear(stretch=True), RunLength(10, 6))[::10]
    np.testing.assert_allclose(sixth, [8e-4, 8e-4, 8e-4, 4.4e-4, 8e-5, 1e-5], rtol=1e-12)
    got = lrs(PiecewiseLinear(), RunLength(2, 60))[::2]
    expected = {1: 8e-4, 20: 8e-4, 21: 8e-4, 22: 7.64e-4, 31: 4.4e-4, 41: 8e-5, 46: 4.5e-5, 51: 1e-5, 60: 2.8e-6}
    np.testing.assert_allclose([got[e - 1] for e in expected], list(expected.values()), rtol=1e-12)


@pytest.mark.parametrize(("interval", "every"), [("epoch", 5), ("step", 1)])
def test_piecewise_linear_is_numpys_interpolation(interval: str, every: int) -> None:
    t = np.repeat(np.arange(0, 70 * 5, every) / 5, every)
    expected = LR * np.interp(t, [20, 40, 50, 60], [1.0, 0.1, 0.0125, 0.0025])
    np.testing.assert_allclose(lrs(PiecewiseLinear(interval=interval), RunLength(5, 70)), expected, rtol=1e-12)


def test_two_points_at_one_epoch_are_a_jump_and_the_later_value_holds_there() -> None:
    # Half way down to 0.5 at t = 2, there up to 0.8, and down again.
    schedule = PiecewiseLinear(milestones=[[0, 1.0], [2, 0.5], [2, 0.8], [4, 0.2]], interval="step")
    expected = [1.0, 0.875, 0.75, 0.625, 0.8, 0.65, 0.5, 0.35, 0.2, 0.2]
    np.testing.assert_allclose(lrs(schedule, RunLength(2, 5), lr=1.0), expected, rtol=1e-15)
    at_the_ends = PiecewiseLinear(milestones=[[1, 1.0], [1, 0.5], [3, 0.5], [3, 0.1]])
    np.testing.assert_array_equal(lrs(at_the_ends, RunLength(1, 5), lr=1.0), [1.0, 0.5, 0.5, 0.1, 0.1])


def test_a_first_point_at_epoch_0_starts_to_fall_at_once() -> None:
    schedule = PiecewiseLinear(milestones=[[0, 8e-4], [20, 4e-4]], relative=False)
    got = lrs(schedule, RunLength(2, 25), lr=123.0)[::2]
    np.testing.assert_allclose(got[[0, 1, 10, 19, 20, 24]], [8e-4, 7.8e-4, 6e-4, 4.2e-4, 4e-4, 4e-4], rtol=1e-12)


@pytest.mark.parametrize("kind", [PiecewiseConstant, PiecewiseLinear])
def test_absolute_values_equal_relative_ones(kind: type[PiecewiseConstant] | type[PiecewiseLinear]) -> None:
    relative = kind(interval="step")
    absolute = kind(interval="step", relative=False, milestones=[[e, v * LR] for e, v in relative.milestones])
    span = RunLength(3, 70)
    np.testing.assert_allclose(lrs(absolute, span, lr=5.0), lrs(relative, span, lr=LR), rtol=1e-14)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.tuples(st.integers(0, 8), st.floats(0, 2)), min_size=1, max_size=6), st.integers(1, 8))
def test_piecewise_linear_meets_its_points_and_stays_between_neighbours(
    points: list[tuple[int, float]], steps_per_epoch: int
) -> None:
    points.sort(key=lambda point: point[0])
    times, values = zip(*points, strict=True)
    begins = dict(points).get(0, values[0]), np.interp(0.5, times, values)  # at a jump: the last before, the last at it
    assume(steps_per_epoch == 1 or any(begins))  # 0 throughout epoch 1 is refused
    span = RunLength(steps_per_epoch, 10)
    got = lrs(PiecewiseLinear(milestones=[list(p) for p in points], interval="step"), span, lr=1.0)
    for epoch, value in dict(points).items():  # of points at one epoch the last
        assert got[epoch * steps_per_epoch] == value
    for (t0, v0), (t1, v1) in pairwise(points):
        between = got[t0 * steps_per_epoch : t1 * steps_per_epoch]
        assert (between >= min(v0, v1) - 1e-12).all()
        assert (between <= max(v0, v1) + 1e-12).all()
    assert (got[: points[0][0] * steps_per_epoch] == points[0][1]).all()
    assert (got[points[-1][0] * steps_per_epoch :] == points[-1][1]).all()


# --- formulas that torch does not have


def test_the_quarter_cosine_by_hand() -> None:
    # alpha cos(pi/2 t/T): 60 degrees at two thirds, where it is one half; then final = 0.2 as a floor.
    schedule = Cosine(shape="quarter")
    np.testing.assert_allclose(lrs(schedule, RunLength(1, 6), lr=1.0)[[0, 2, 3, 4]], [1, 3**0.5 / 2, 0.5**0.5, 0.5])
    np.testing.assert_allclose(lrs(Cosine(shape="quarter", final=0.2), RunLength(1, 6), lr=1.0)[4], 0.6)


def test_a_cosine_after_a_constant_phase_and_beyond_its_length() -> None:
    got = lrs(Cosine(constant=2, length=6, final=0.1), RunLength(1, 9), lr=1.0)
    half = 0.9 * 0.5**0.5 / 2
    np.testing.assert_allclose(got, [1, 1, 1, 0.55 + half, 0.55, 0.55 - half, 0.1, 0.1, 0.1], rtol=1e-12)


def test_polynomial_with_a_final_value() -> None:
    got = lrs(Polynomial(power=2, final=0.2), RunLength(1, 4), lr=1.0)
    np.testing.assert_allclose(got, [1.0, 0.2 + 0.8 * 9 / 16, 0.4, 0.25], rtol=1e-12)


def test_one_cycle_peaks_and_ends_at_torchs_steps() -> None:
    rows = schedule_table(OneCycle(), 1.0, 0.9, RunLength(10, 10))
    # pct_start x total - 1 = 29, total - 1 = 99
    np.testing.assert_allclose(rows[[0, 29, 99], 0], [0.04, 1.0, 0.04e-4], rtol=1e-12)
    np.testing.assert_allclose(rows[[0, 29, 99], 1], [0.95, 0.85, 0.95], rtol=1e-12)
    assert rows[:, 0].argmax() == 29
    # pct_start x total - 1 = 0: torch 2.15 divides by zero.
    assert lrs(OneCycle(pct_start=0.1), RunLength(10, 1), lr=1.0)[0] == 1.0


def test_one_cycle_with_a_length_is_over_then_and_stays() -> None:
    short, run = OneCycle(length=3), RunLength(5, 6)
    rows = schedule_table(short, LR, 0.9, run)
    np.testing.assert_array_equal(rows[:15], schedule_table(OneCycle(), LR, 0.9, RunLength(5, 3)))
    assert (rows[15:] == rows[14]).all()


@pytest.mark.parametrize("schedule", [OneCycle(cycle_momentum=False), Cyclic(cycle_momentum=False)])
def test_the_momentum_stays_if_it_is_not_to_cycle(schedule: Schedule) -> None:
    assert (schedule_table(schedule, LR, 0.77, RunLength(5, 6))[:, 1] == 0.77).all()


@pytest.mark.parametrize("fraction", [0.1, 0.3, 1 / 3, 0.7])
def test_cycles_and_steps_of_part_of_an_epoch_begin_at_the_right_step(fraction: float) -> None:
    # 0.3 / 0.1 is 2.9999999999999996: floor alone would begin the third cycle one step late, at the lowest lr.
    span, k = RunLength(30, 20), round(30 * fraction)
    starts = np.arange(0, span.steps, k)
    assert (lrs(CosineRestarts(first=fraction, mult=1, interval="step"), span, lr=1.0)[starts] > 1 - 1e-12).all()
    np.testing.assert_allclose(
        lrs(Step(step_size=fraction, gamma=0.99, interval="step"), span, lr=1.0)[starts],
        0.99 ** np.arange(len(starts)),
        rtol=1e-12,
    )


# --- time: interval, stretch, warmup


@pytest.mark.parametrize("name", NAMES)
def test_interval_epoch_holds_the_value_of_the_epochs_first_step(name: str) -> None:
    span = RunLength(7, 12)
    held = schedule_table(make(name, interval="epoch"), LR, 0.9, span)
    assert (held.reshape(12, 7, 2) == held[::7, None]).all()
    if name != "reduce_on_plateau":
        np.testing.assert_array_equal(held[::7], schedule_table(make(name, interval="step"), LR, 0.9, span)[::7])


# one_cycle fits itself to the number of steps, reduce_on_plateau follows the training
STRETCHED = sorted(set(NAMES) - {"one_cycle", "reduce_on_plateau"})


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("name", STRETCHED)
def test_a_stretched_schedule_is_the_original_at_ten_times_the_pace(name: str, interval: str) -> None:
    keys: dict[str, Any] = {"interval": interval, "length": 60.0}
    if name != "cyclic":
        keys["warmup"] = 5.0
    short = schedule_table(make(name, stretch=True, **keys), LR, 0.9, RunLength(20, 6))
    # warmup goes on within epochs: compare it step by step, everything else at interval's pace
    long = schedule_table(make(name, **(keys | {"interval": "step"})), LR, 0.9, RunLength(20, 60))[::10]
    if interval == "epoch":
        keys["warmup"] = 0.0
        warm = np.minimum(0.1 + 0.9 * np.arange(120) * 10 / 100, 1) if name != "cyclic" else np.ones(120)
        long = np.repeat(schedule_table(make(name, **keys), LR, 0.9, RunLength(20, 60))[::200], 20, axis=0)
        long[:, 0] *= warm
    np.testing.assert_allclose(short, long, rtol=1e-12)


def test_a_stretched_one_cycle_is_one_cycle_of_the_run() -> None:
    run = RunLength(5, 6)
    stretched = schedule_table(OneCycle(length=60, stretch=True), LR, 0.9, run)
    np.testing.assert_array_equal(stretched, schedule_table(OneCycle(), LR, 0.9, run))


@settings(deadline=None)  # the machine may be busy
@given(st.integers(1, 400), st.integers(1, 300), st.integers(1, 300))
def test_milestones_at_whole_epochs_fall_on_an_epochs_first_step(n: int, epochs: int, length: int) -> None:
    span = RunLength(n, epochs)
    plain, stretched = Step(), Step(length=length, stretch=True)
    assert all(plain.time(e * n, span) == e for e in range(epochs + 1))
    assert stretched.time(span.steps, span) == length
    assert all(
        stretched.time(e * span.steps // length, span) == e for e in range(length) if e * span.steps % length == 0
    )


def test_warmup_by_hand() -> None:
    # 2 epochs of 4 steps from 0.2; the drop at t = 1 stays where it is, and interval epoch does not hold the warmup.
    got = lrs(Step(step_size=1, gamma=0.5, warmup=2, warmup_from=0.2), RunLength(4, 3), lr=1.0)
    rise = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1, 1, 1]
    np.testing.assert_allclose(got, np.array(rise) * np.repeat([1, 0.5, 0.25], 4), rtol=1e-12)
    assert lrs(Constant(warmup=0.0, warmup_from=0.0), RunLength(2, 2)).tolist() == [LR] * 4
    assert lrs(Constant(warmup=1.0, warmup_from=0.0), RunLength(2, 2)).tolist() == [0.0, LR / 2, LR, LR]


@settings(deadline=None)  # the machine may be busy
@given(
    st.sampled_from(STRETCHED),
    st.sampled_from(["epoch", "step"]),
    st.integers(1, 12),
    st.integers(1, 9),
    st.floats(1e-6, 10),
)
def test_relative_schedules_scale_with_lr_and_are_pure(
    name: str, interval: str, n: int, epochs: int, lr: float
) -> None:
    span, schedule = RunLength(n, epochs), make(name, interval=interval)
    np.testing.assert_allclose(lrs(schedule, span, lr), lr * lrs(schedule, span, 1.0), rtol=1e-12)
    k = span.steps - 1
    assert schedule.lr(k, lr, span) == schedule.lr(k, lr, span) == lrs(schedule, span, lr)[k]


# --- shortfall

STRETCH = "schedule.stretch=true scales it"
LENGTH = "schedule.length and schedule.stretch=true scale it"
ABSOLUTE = PiecewiseLinear(milestones=[[1, 8e-4], [12.5, 4e-4]], relative=False)


@pytest.mark.parametrize(
    ("schedule", "epochs", "expected"),
    [
        (PiecewiseLinear(), 30, f"60 epochs, the run has 30: it ends at 0.595 x lr; {STRETCH}"),
        (ABSOLUTE, 2, f"12.5 epochs, the run has 2: it ends at lr 0.0008; {STRETCH}"),
        (Cosine(length=20), 10, f"20 epochs, the run has 10: it ends at 0.5782 x lr; {STRETCH}"),
        (MultiStep(), 60, f"150 epochs, the run has 60: it ends at 1 x lr; {LENGTH}"),
        (PiecewiseLinear(), 60, None),
        (PiecewiseLinear(), 61, None),
        (PiecewiseLinear(stretch=True), 6, None),
        (PiecewiseConstant(length=6), 6, None),
        (Cosine(), 1, None),
        (OneCycle(), 1, None),
        (ReduceOnPlateau(), 1, None),
    ],
)
def test_shortfall(schedule: Schedule, epochs: int, expected: str | None) -> None:
    stated = expected and f"the schedule was made for {expected}"
    assert length_warning(schedule, RunLength(4, epochs)) == stated


# --- values that make no sense


def negative(t: float) -> float:
    return 1 - t


def missing_at_2(t: float) -> float:
    return math.nan if t == 2 else 1.0


def huge(t: float) -> float:
    return 1e42


def not_a_number(t: float) -> str:
    return "fast"


NOT_CALLABLE = 3.0
HERE = __name__
FALLING = [[20, 1.0], [10, 0.1]]


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("constant", {"name": "step"}, "name (=step) must be constant"),
        ("constant", {"interval": "batch"}, "interval (=batch) must be one of epoch, step"),
        ("constant", {"length": 0.0}, "length (=0.0) must be more than 0 epochs"),
        ("constant", {"length": math.inf}, "length (=inf) must be a finite number"),
        ("constant", {"warmup": -1.0}, "warmup (=-1.0) must be 0 or more epochs"),
        ("constant", {"warmup": math.nan}, "warmup (=nan) must be a finite number"),
        ("constant", {"warmup_from": 1.5}, "warmup_from (=1.5) must be between 0 and 1"),
        ("cosine", {"stretch": True}, "stretch (=true) must be false unless schedule.length says"),
        ("multistep", {"stretch": True}, "stretch (=true) must be false unless schedule.length says"),
        ("piecewise_linear", {"milestones": [[0, 1.0]], "stretch": True}, "stretch (=true) must be false unless"),
        ("piecewise_linear", {"milestones": []}, "milestones (=[]) must be a list of [epoch, value]"),
        ("piecewise_linear", {"milestones": "all"}, "milestones (=all) must be a list of [epoch, value]"),
        ("piecewise_linear", {"milestones": [20, 1.0]}, "milestones (=[20, 1.0]) must be a list of [epoch, value]"),
        ("piecewise_linear", {"milestones": [[20]]}, "milestones (=[[20]]) must be a list of [epoch, value]"),
        ("piecewise_linear", {"milestones": [[20, "1e-3"]]}, "milestones (=[[20, '1e-3']]) must be"),
        ("piecewise_linear", {"milestones": [[20, True]]}, "milestones (=[[20, True]]) must be"),
        ("piecewise_linear", {"milestones": [[20, math.nan]]}, "milestones (=[[20, nan]]) must be"),
        ("piecewise_linear", {"milestones": [[20, -0.1]]}, "milestones (=[[20, -0.1]]) must be"),
        ("piecewise_linear", {"milestones": [[-1, 0.1]]}, "milestones (=[[-1, 0.1]]) must be"),
        ("piecewise_linear", {"milestones": FALLING}, f"milestones (={FALLING}) must be in the order of their epochs"),
        ("piecewise_constant", {"milestones": FALLING}, f"milestones (={FALLING}) must be in the order"),
        ("piecewise_constant", {"milestones": [[5, 1.0], [5, 0.1]]}, "must be at rising epochs"),
        ("step", {"step_size": 0.0}, "step_size (=0.0) must be more than 0"),
        ("step", {"gamma": -1.0}, "gamma (=-1.0) must be more than 0"),
        ("step", {"gamma": math.inf}, "gamma (=inf) must be a finite number"),
        ("multistep", {"milestones": []}, "milestones (=[]) must be a list of epochs"),
        ("multistep", {"milestones": [[20, 1.0]]}, "milestones (=[[20, 1.0]]) must be a list of epochs"),
        ("multistep", {"milestones": [30, 30]}, "milestones (=[30, 30]) must be rising"),
        ("multistep", {"gamma": 0.0}, "gamma (=0.0) must be more than 0"),
        ("exponential", {"gamma": 0.0}, "gamma (=0.0) must be more than 0"),
        ("polynomial", {"power": 0.0}, "power (=0.0) must be more than 0"),
        ("polynomial", {"final": 2.0}, "final (=2.0) must be between 0 and 1"),
        ("cosine", {"shape": "full"}, "shape (=full) must be one of half, quarter"),
        ("cosine", {"constant": -1.0}, "constant (=-1.0) must be 0 or more epochs"),
        ("cosine", {"constant": 9.0, "length": 9.0}, "constant (=9.0) must be less than the schedule's 9 epochs"),
        ("cosine", {"final": -0.1}, "final (=-0.1) must be between 0 and 1"),
        ("cosine_restarts", {"first": 0.0}, "first (=0.0) must be more than 0"),
        ("cosine_restarts", {"mult": 0.5}, "mult (=0.5) must be at least 1"),
        ("cosine_restarts", {"mult": 1.0000000001}, "mult (=1.0000000001) must be at least 1: 1 itself, or 1.001"),
        ("cosine_restarts", {"final": 1.1}, "final (=1.1) must be between 0 and 1"),
        ("cosine_restarts", {"cycle_decay": 0.0}, "cycle_decay (=0.0) must be more than 0 and at most 1"),
        ("cosine_restarts", {"cycle_decay": 1.5}, "cycle_decay (=1.5) must be more than 0 and at most 1"),
        ("inverse_sqrt", {"timescale": 0.0}, "timescale (=0.0) must be more than 0"),
        ("wsd", {"decay": 0.0}, "decay (=0.0) must be more than 0"),
        ("wsd", {"shape": "half"}, "shape (=half) must be one of linear, cosine, sqrt"),
        ("wsd", {"final": 1.1}, "final (=1.1) must be between 0 and 1"),
        (
            "constant",
            {"warmup": 5.0, "length": 5.0, "warmup_prefix": True},
            "warmup (=5.0) must be less than the sched",
        ),
        ("cosine", {"warmup": 6.0, "length": 5.0, "warmup_prefix": True}, "warmup (=6.0) must be less than the sched"),
        ("lambda", {"parameters": 3}, "parameters (=3) must be {name: value, ...}, or null"),
        ("lambda", {"parameters": [1]}, "parameters (=[1]) must be {name: value, ...}, or null"),
        ("lambda", {"parameters": {"T": 3}}, "parameters (={'T': 3}) must be {name: value, ...}, or null"),
        ("cyclic", {"warmup": 1.0}, "warmup (=1.0) must be 0 with cyclic"),
        ("cyclic", {"lowest": 1.1}, "lowest (=1.1) must be between 0 and 1"),
        ("cyclic", {"up": 0.0}, "up (=0.0) must be more than 0"),
        ("cyclic", {"down": 0.0}, "down (=0.0) must be more than 0"),
        ("cyclic", {"mode": "saw"}, "mode (=saw) must be one of triangular, triangular2, exp_range"),
        ("cyclic", {"mode": "exp_range", "gamma": 1.1}, "gamma (=1.1) must be more than 0 and at most 1"),
        ("cyclic", {"gamma": 0.9}, "gamma (=0.9) must be 1 with mode triangular"),
        ("cyclic", {"highest_momentum": 1.0}, "highest_momentum (=1.0) must be at least 0 and below 1"),
        ("cyclic", {"lowest_momentum": 0.99}, "lowest_momentum (=0.99) must be between 0 and highest_momentum"),
        ("one_cycle", {"warmup": 1.0}, "warmup (=1.0) must be 0 with one_cycle"),
        ("one_cycle", {"pct_start": 1.1}, "pct_start (=1.1) must be between 0 and 1"),
        ("one_cycle", {"pct_start": 0.6, "three_phase": True}, "pct_start (=0.6) must be at most 0.5 with three_phase"),
        ("one_cycle", {"anneal": "exp"}, "anneal (=exp) must be one of cos, linear"),
        ("one_cycle", {"div_factor": 0.0}, "div_factor (=0.0) must be at least 1"),
        ("one_cycle", {"final_div_factor": 0.0}, "final_div_factor (=0.0) must be more than 0"),
        ("one_cycle", {"highest_momentum": -0.1}, "highest_momentum (=-0.1) must be at least 0"),
        ("lambda", {"function": "???"}, "function (=???) must be the dotted path of a function"),
        ("lambda", {"function": "no_such_module.f"}, "function (=no_such_module.f) must be the dotted path of a fun"),
        ("lambda", {"function": "math.no_such"}, "function (=math.no_such) must be the dotted path of a function"),
        ("lambda", {"function": f"{HERE}.NOT_CALLABLE"}, "NOT_CALLABLE) must be a function of t in epochs"),
        ("reduce_on_plateau", {"interval": "step"}, "interval (=step) must be epoch"),
        ("reduce_on_plateau", {"stretch": True, "length": 9.0}, "stretch (=true) must be false"),
        ("reduce_on_plateau", {"mode": "up"}, "mode (=up) must be one of auto, min, max"),
        ("reduce_on_plateau", {"factor": 1.0}, "factor (=1.0) must be between 0 and 1"),
        ("reduce_on_plateau", {"patience": -1}, "patience (=-1) must be 0 or more"),
        ("reduce_on_plateau", {"cooldown": -1}, "cooldown (=-1) must be 0 or more"),
        ("reduce_on_plateau", {"threshold": -1.0}, "threshold (=-1.0) must be at least 0"),
        ("reduce_on_plateau", {"threshold_mode": "both"}, "threshold_mode (=both) must be one of abs, rel"),
        ("reduce_on_plateau", {"min_lr": 1.1}, "min_lr (=1.1) must be between 0 and 1"),
    ],
)
def test_check_refuses_with_key_and_value_in_one_line(name: str, keys: dict[str, Any], message: str) -> None:
    schedule = make(name, **keys)
    with raises(message) as caught:
        schedule.check()
    assert str(caught.value).startswith("schedule.")
    assert "\n" not in str(caught.value)
    with raises(message):
        schedule_table(schedule, LR, 0.9, RunLength(2, 2))


@pytest.mark.parametrize(
    ("schedule", "span", "message"),
    [
        (Constant(warmup=3), RunLength(5, 2), "schedule.warmup (=3) must be at most the 2 epochs"),
        (Constant(warmup=61, length=60, stretch=True), RunLength(5, 6), "schedule.warmup (=61) must be at most the 60"),
        (Polynomial(warmup=2, warmup_prefix=True), RunLength(5, 2), "schedule.warmup (=2) must be less than the sched"),
        (WarmupStableDecay(decay=3), RunLength(5, 2), "schedule.decay (=3) must be at most the schedule's 2 epochs"),
        (Cosine(constant=2), RunLength(5, 2), "schedule.constant (=2) must be less than the schedule's 2 epochs"),
        (OneCycle(), RunLength(1, 1), "schedule.name (=one_cycle) must be another one for a run of 1 step"),
        (OneCycle(length=1), RunLength(1, 5), "schedule.length (=1) must be at least 2 steps long"),
        (OneCycle(length=0.1), RunLength(2, 5), "schedule.length (=0.1) must be at least 2 steps long"),
        (
            CosineRestarts(first=1e-30),
            RunLength(2, 5),
            "schedule.first (=1e-30) must be so long that a cycle lasts at ",
        ),
        (CosineRestarts(first=0.3), RunLength(9, 5), "so long that a cycle lasts at least 1 epochs"),
        (CosineRestarts(first=0.3, interval="step"), RunLength(2, 5), "schedule.first (=0.3) must be so long that a"),
        (Cyclic(up=1e-30), RunLength(2, 5), "(=1e-30) must be so long that a cycle lasts at least 0.5 epochs"),
        (Exponential(gamma=1e9), RunLength(2, 6), "schedule.name (=exponential) must keep the lr finite in float32"),
        (MultiStep(milestones=[1], gamma=1e45), RunLength(1, 2), "must keep the lr finite in float32"),
        (
            Lambda(function=f"{HERE}.huge"),
            RunLength(1, 2),
            "schedule.name (=lambda) must keep the lr finite in float32",
        ),
        (Exponential(gamma=1e200), RunLength(1, 9), "schedule.name (=exponential) must keep the lr finite"),
    ],
)
def test_what_only_the_run_shows_is_refused_with_the_run(schedule: Schedule, span: RunLength, message: str) -> None:
    schedule.check()
    with raises(message):
        schedule_table(schedule, LR, 0.9, span)
    Constant(warmup=2).check_span(RunLength(5, 2))  # what fits exactly is accepted
    WarmupStableDecay(warmup=0.9, warmup_prefix=True).check_span(RunLength(10, 1))  # of what is left
    Constant(warmup=60, length=60, stretch=True).check_span(RunLength(5, 6))
    OneCycle().check_span(RunLength(2, 1))
    with raises("from lr (=-1), momentum (=0.9) it makes -1, 0.9 at step 0"):
        schedule_table(Constant(), -1.0, 0.9, RunLength(2, 2))


@pytest.mark.parametrize("steps", [2, 5])
@pytest.mark.parametrize(
    ("schedule", "interval", "hint"),
    [
        (PiecewiseLinear(milestones=[[0, 0.0], [2, 1.0]]), "epoch", True),
        (PiecewiseLinear(milestones=[[0, 0.0], [2, 1e-3]], relative=False), "epoch", True),
        (Cyclic(lowest=0.0), "epoch", True),
        (Lambda(function="math.sin"), "epoch", True),
        (PiecewiseConstant(milestones=[[1, 0.0], [2, 1.0]]), "epoch", False),  # refused as well
        (PiecewiseConstant(milestones=[[1, 0]]), "epoch", False),
        (PiecewiseLinear(milestones=[[5, 0.0], [6, 1.0]]), "epoch", False),
        (PiecewiseConstant(milestones=[[1, 0.0], [2, 1.0]]), "step", False),
        (PiecewiseLinear(milestones=[[1, 0.0], [2, 1.0]]), "step", False),
    ],
)
def test_a_first_epoch_at_lr_0_is_refused_with_a_hint(
    schedule: Schedule, interval: str, hint: bool, steps: int
) -> None:
    schedule = replace(schedule, interval=interval)
    with raises("must not be 0 throughout epoch 1") as caught:
        schedule_table(schedule, LR, 0.9, RunLength(steps, 3))
    assert ("schedule.interval=step" in str(caught.value)) == hint
    if hint:
        assert lrs(replace(schedule, interval="step"), RunLength(steps, 3))[1] > 0  # the hint is a cure
    assert lrs(Constant(warmup=1, warmup_from=0.0), RunLength(steps, 3))[0] == 0.0  # a warmup from 0 is none


@pytest.mark.parametrize(
    ("schedule", "epochs", "noted"),
    [
        (WarmupStableDecay(), 5, "; schedule.interval=step lets it"),
        (WarmupStableDecay(decay=1.0, warmup=1.0), 5, "; schedule.interval=step lets it"),
        (WarmupStableDecay(decay=0.01, interval="step"), 6, ""),
        (CosineRestarts(first=1, mult=1), 4, "; schedule.interval=step lets it"),
        (Cyclic(up=0.5, interval="epoch"), 4, "; schedule.interval=step lets it"),
        (Cosine(constant=4.0), 5, "; schedule.interval=step lets it"),
        (Step(step_size=30), 5, ""),
        (WarmupStableDecay(), 6, None),
        (WarmupStableDecay(interval="step"), 5, None),
        (CosineRestarts(first=2, mult=1), 4, None),
        (Constant(), 5, None),
        (ReduceOnPlateau(), 5, None),
    ],
)
def test_a_schedule_that_never_changes_the_lr_is_noted(schedule: Schedule, epochs: int, noted: str | None) -> None:
    rates = lrs(replace(schedule, warmup=0.0), RunLength(10, epochs))
    assert (noted is not None) == (len(set(rates)) == 1 and not isinstance(schedule, Constant | ReduceOnPlateau))
    said = f"schedule={schedule.name} never changes the lr in the {epochs} epochs of this run{noted}"
    assert length_warning(schedule, RunLength(10, epochs)) == (None if noted is None else said)


def all_given(t: float, T: float, step: int, steps: int, power: float = 1.0) -> float:
    return float((1 - step / steps) ** power + t - T * step / steps)


def keywords_only(t: float, *, steps: int, low: float) -> float:
    return low + t / steps


def anything(t: float, **others: float) -> float:
    return 1 + sum(others.values())


@pytest.mark.parametrize(
    ("function", "parameters", "wanted"),
    [
        ("all_given", None, lambda k: 1 - k / 12),  # t / T is step / steps
        ("all_given", {"power": 2.0}, lambda k: (1 - k / 12) ** 2),
        ("keywords_only", {"low": 0.5}, lambda k: 0.5 + k / 3 / 12),
        ("anything", {"a": 1, "b": 2}, lambda k: 4.0),
    ],
)
def test_a_function_gets_what_it_names_and_parameters_of_its_own(function: str, parameters: Any, wanted: Any) -> None:
    schedule = Lambda(function=f"{HERE}.{function}", parameters=parameters, interval="step")
    got = lrs(schedule, RunLength(3, 4), lr=1.0)
    np.testing.assert_allclose(got, [wanted(k) for k in range(12)], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("function", "parameters"), [("keywords_only", None), ("all_given", {"pwoer": 2})])
def test_a_function_with_too_few_or_unknown_parameters_is_refused(function: str, parameters: Any) -> None:
    with raises(f"schedule.function (={HERE}.{function}) must return a number") as caught:
        schedule_table(Lambda(function=f"{HERE}.{function}", parameters=parameters), LR, 0.9, RunLength(2, 2))
    assert "argument" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("negative", "finite and not negative at every t: at t = 2 it is -1"),
        ("missing_at_2", "finite and not negative at every t: at t = 2 it is nan"),
        ("not_a_number", "return a number for every t in epochs: at t = 0 ValueError: could not convert"),
    ],
)
def test_a_function_with_bad_factors_is_refused_by_its_table(function: str, problem: str) -> None:
    schedule = Lambda(function=f"{HERE}.{function}")
    schedule.check()
    with raises(f"schedule.function (={HERE}.{function}) must {'' if 'return' in problem else 'be '}{problem}"):
        schedule_table(schedule, LR, 0.9, RunLength(2, 4))


@pytest.mark.parametrize("keys", [{"steps_per_epoch": 0, "epochs": 3}, {"steps_per_epoch": 3, "epochs": 0}])
def test_a_span_without_steps_is_refused(keys: dict[str, int]) -> None:
    with raises("(=0) must be a whole number of at least 1"):
        RunLength(**keys)


def test_a_schedule_that_changes_is_asked_for_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    factor = SCHEDULES["exponential"].lr_factor
    monkeypatch.setattr(
        SCHEDULES["exponential"], "lr_factor", lambda self, at: (asked.append(at.k), factor(self, at))[1]
    )
    assert length_warning(SCHEDULES["exponential"](interval="step"), RunLength(100, 50)) is None
    assert sorted(asked) == [0, 1]
