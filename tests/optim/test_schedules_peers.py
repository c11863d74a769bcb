"""Warmups, decays and restarts against composer's, timm's, Hugging Face's, Keras' and torch's, written again here.

Each formula is from the peer's documentation, with one number per step: k is a step from 0, W the steps of warmup, N
those of the run. sources: composer.optim.scheduler, timm.scheduler.{cosine,poly}_lr, transformers.optimization,
keras.optimizers.schedules and keras.callbacks.ReduceLROnPlateau, torch.optim.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

from conftest import tiny
from resnetlab.optim.averaging import SWA
from resnetlab.optim.schedules import SCHEDULES, RunLength, Schedule, length_warning, schedule_table
from resnetlab.training.module import lr_momentum_table

ours = SimpleNamespace(**{schedule.__name__: schedule for schedule in SCHEDULES.values()})
LR = 0.3
E, EPOCHS = 6, 10  # steps an epoch, epochs
SPAN, N, W = RunLength(E, EPOCHS), E * EPOCHS, 3 * E
PI = math.pi
REST = {"warmup": 3.0, "warmup_prefix": True, "interval": "step"}


def half_cosine(x: float) -> float:
    return 0.5 * (1 + math.cos(PI * x))


# Hugging Face: get_*_schedule*(optimizer, num_warmup_steps=W, num_training_steps=N); from 0 to 1 in k / W, then
HUGGING_FACE: dict[str, tuple[Schedule, Callable[[int], float]]] = {
    "constant_with_warmup": (ours.Constant(**REST, warmup_from=0.0), lambda k: 1.0),
    "linear": (ours.Polynomial(**REST, warmup_from=0.0), lambda k: max(0.0, (N - k) / (N - W))),
    "cosine": (ours.Cosine(**REST, warmup_from=0.0), lambda k: half_cosine((k - W) / (N - W))),
    "cosine_with_restarts": (  # num_cycles=2: cos(pi ((2 progress) % 1))
        ours.CosineRestarts(**REST, warmup_from=0.0, first=3.5, mult=1.0),
        lambda k: half_cosine(2 * (k - W) / (N - W) % 1.0),
    ),
    "cosine_with_min_lr": (
        ours.Cosine(**REST, warmup_from=0.0, final=0.1),
        lambda k: half_cosine((k - W) / (N - W)) * (1 - 0.1) + 0.1,
    ),
    "polynomial": (  # power=2, lr_end=0.1 x lr
        ours.Polynomial(**REST, warmup_from=0.0, power=2.0, final=0.1),
        lambda k: (1 - 0.1) * (1 - (k - W) / (N - W)) ** 2 + 0.1,
    ),
    "inverse_sqrt": (  # timescale = num_warmup_steps: 1 / sqrt((k + timescale - W) / timescale); fairseq: sqrt(W / k)
        ours.InverseSqrt(**REST, warmup_from=0.0, timescale=3.0),
        lambda k: 1 / math.sqrt(k / W),
    ),
    "inverse_sqrt, timescale": (
        ours.InverseSqrt(**REST, warmup_from=0.0, timescale=0.5),
        lambda k: 1 / math.sqrt((k + 3 - W) / 3),
    ),
    "warmup_stable_decay": (  # num_decay_steps=2E, decay_type="linear", min_lr_ratio=0.1
        ours.WarmupStableDecay(**REST, warmup_from=0.0, decay=2.0, final=0.1),
        lambda k: 1.0 if k < N - 2 * E else (1 - (k - N + 2 * E) / (2 * E)) * (1 - 0.1) + 0.1,
    ),
    "warmup_stable_decay, cosine": (
        ours.WarmupStableDecay(**REST, warmup_from=0.0, decay=2.0, shape="cosine"),
        lambda k: 1.0 if k < N - 2 * E else half_cosine((k - N + 2 * E) / (2 * E)),
    ),
    "warmup_stable_decay, 1-sqrt": (  # a fraction: of the 7 epochs after the warmup
        ours.WarmupStableDecay(**REST, warmup_from=0.0, decay=2 / 7, shape="sqrt"),
        lambda k: 1.0 if k < N - 2 * E else 1 - math.sqrt((k - N + 2 * E) / (2 * E)),
    ),
}


def lrs(schedule: Schedule, span: RunLength = SPAN) -> np.ndarray:
    schedule.check()
    return schedule_table(schedule, LR, 0.9, span)[:, 0]


def compare(schedule: Schedule, expected: list[float], span: RunLength = SPAN) -> None:
    np.testing.assert_allclose(lrs(schedule, span), LR * np.array(expected), rtol=1e-12, atol=1e-12 * LR)


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_equals_hugging_faces(name: str) -> None:
    schedule, decay = HUGGING_FACE[name]
    compare(schedule, [k / W if k < W else decay(k) for k in range(N)])


# composer: alpha = t / t_warmup first; then, with frac = (t - t_warmup) / (t_max - t_warmup), from 1 to alpha_f
COMPOSER: dict[str, tuple[Schedule, Callable[[float], float]]] = {
    "LinearWithWarmup": (ours.Polynomial(**REST, warmup_from=0.0, final=0.2), lambda x: 1 + (0.2 - 1) * x),
    "CosineAnnealingWithWarmup": (
        ours.Cosine(**REST, warmup_from=0.0, final=0.2),
        lambda x: 0.2 + (1 - 0.2) * half_cosine(x),
    ),
    "PolynomialWithWarmup": (
        ours.Polynomial(**REST, warmup_from=0.0, power=2.0, final=0.2),
        lambda x: 0.2 + (1 - 0.2) * (1 - x) ** 2,
    ),
}


@pytest.mark.parametrize("name", COMPOSER)
def test_equals_composers(name: str) -> None:
    schedule, decay = COMPOSER[name]
    compare(schedule, [k / W if k < W else decay((k - W) / (N - W)) for k in range(N)])


def test_composers_multistep_counts_from_the_start_which_is_the_factor_form() -> None:
    schedule = ours.MultiStep(milestones=[4, 8], interval="step", warmup=3.0, warmup_from=0.0)
    compare(schedule, [min(k / W, 1.0) * 0.1 ** ((k >= 4 * E) + (k >= 8 * E)) for k in range(N)])


def timm_cosine(t: int, t_initial: int, warmup_t: int, init: float, prefix: bool, **keys: float) -> float:
    """timm's CosineLRScheduler._get_lr over lr: cycle_mul, cycle_decay, lr_min / lr; any number of cycles."""
    if t < warmup_t:
        return init + t * (1 - init) / warmup_t
    t -= warmup_t if prefix else 0
    mul, decay, low = keys.get("mul", 1.0), keys.get("decay", 1.0), keys.get("low", 0.0)
    i, t_i, t_curr = 0, float(t_initial), float(t)
    while t_curr >= t_i - 1e-9:
        i, t_curr, t_i = i + 1, t_curr - t_i, t_i * mul
    return low + 0.5 * (decay**i - low) * (1 + math.cos(PI * t_curr / t_i))


@pytest.mark.parametrize(("mul", "decay", "low"), [(1.0, 0.5, 0.0), (2.0, 0.5, 0.0), (2.0, 1.0, 0.1), (1.0, 0.8, 0.05)])
@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_equals_timms_cosine_with_cycles_and_prefix(mul: float, decay: float, low: float, interval: str) -> None:
    keys = {"first": 2.0, "mult": mul, "cycle_decay": decay, "final": low, "warmup_from": 0.05}
    timm = {"mul": mul, "decay": decay, "low": low}
    schedule = ours.CosineRestarts(**(REST | keys | {"interval": interval}))
    expected = []
    for k in range(N):  # the warmup goes step by step here, also where timm updates by epoch
        t = k if k < W or interval == "step" else k - k % E
        expected.append(timm_cosine(t, 2 * E, W, 0.05, True, **timm))
    compare(schedule, expected)


@pytest.mark.parametrize("prefix", [True, False])
def test_equals_timms_cosine_once_whose_t_initial_is_what_the_warmup_leaves(prefix: bool) -> None:
    schedule = ours.Cosine(interval="step", warmup=3.0, warmup_from=0.05, warmup_prefix=prefix)
    mine = lrs(schedule)[W:] / LR
    expected = [timm_cosine(k, N - W if prefix else N, W, 0.05, prefix) for k in range(W, N)]
    np.testing.assert_allclose(mine, expected, rtol=1e-12, atol=1e-12)
    assert (lrs(schedule).max() == LR) == prefix  # the factor form lowers the peak


def keras_cosine_decay_restarts(step: int, first: int, t_mul: float, m_mul: float) -> float:
    """keras.optimizers.schedules.CosineDecayRestarts with alpha 0."""
    fraction = step / first
    if t_mul == 1.0:
        i = math.floor(fraction)
        fraction -= i
    else:
        i = math.floor(math.log(1.0 - fraction * (1.0 - t_mul)) / math.log(t_mul) + 1e-9)
        fraction = (fraction - (1.0 - t_mul**i) / (1.0 - t_mul)) / t_mul**i
    return m_mul**i * 0.5 * (1.0 + math.cos(PI * fraction))


@pytest.mark.parametrize("t_mul", [1.0, 2.0])
@pytest.mark.parametrize("m_mul", [1.0, 0.7])
def test_equals_keras_restarts(t_mul: float, m_mul: float) -> None:
    schedule = ours.CosineRestarts(interval="step", first=2.0, mult=t_mul, cycle_decay=m_mul)
    compare(schedule, [keras_cosine_decay_restarts(k, 2 * E, t_mul, m_mul) for k in range(N)])


def test_equals_keras_cosine_decay_with_a_warmup_target() -> None:
    # CosineDecay(initial=0.25 lr, decay_steps=N - W, alpha=0.1, warmup_target=lr, warmup_steps=W)
    schedule = ours.Cosine(**REST, warmup_from=0.25, final=0.1)
    warm = [0.25 + (1 - 0.25) * k / W for k in range(W)]
    compare(schedule, warm + [(1 - 0.1) * half_cosine(k / (N - W)) + 0.1 for k in range(N - W)])


# torch: SequentialLR([LinearLR, x], milestones=[W]), for schedules that no other peer has after a warmup
TORCH: dict[str, tuple[Schedule, Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]]] = {
    "step": (ours.Step(**REST, step_size=2.0, gamma=0.5), lambda o: lr_scheduler.StepLR(o, 2 * E, 0.5)),
    "multistep": (
        ours.MultiStep(**REST, milestones=[1, 4], gamma=0.2),
        lambda o: lr_scheduler.MultiStepLR(o, [E, 4 * E], 0.2),
    ),
    "piecewise_constant": (
        ours.PiecewiseConstant(**REST, milestones=[[1, 1.0], [4, 0.2], [7, 0.04]]),
        lambda o: lr_scheduler.MultiStepLR(o, [E, 4 * E], 0.2),
    ),
    "exponential": (ours.Exponential(**REST, gamma=0.7), lambda o: lr_scheduler.ExponentialLR(o, 0.7 ** (1 / E))),
    "cosine": (ours.Cosine(**REST), lambda o: lr_scheduler.CosineAnnealingLR(o, N - W)),
    "polynomial, squared": (
        ours.Polynomial(**REST, power=2.0),
        lambda o: lr_scheduler.PolynomialLR(o, N - W, power=2.0),
    ),
    "piecewise_linear": (
        ours.PiecewiseLinear(**REST, milestones=[[2, 1.0], [7, 0.2]]),
        lambda o: lr_scheduler.LambdaLR(o, lambda k: float(np.interp(k / E, [2, 7], [1.0, 0.2]))),
    ),
    "lambda": (
        ours.Lambda(**REST, function="math.exp"),
        lambda o: lr_scheduler.LambdaLR(o, lambda k: math.exp(k / E)),
    ),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("name", TORCH)
def test_equals_torchs_linear_warmup_followed_by_the_schedule(name: str) -> None:
    schedule, then = TORCH[name]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    warm = lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=W)
    both, found = lr_scheduler.SequentialLR(optimizer, [warm, then(optimizer)], milestones=[W]), []
    for _ in range(N):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        both.step()
    # the lr of the switch's first step is exact only from torch 2.1 on; chained forms accumulate rounding
    np.testing.assert_allclose(lrs(schedule), found, rtol=1e-11, atol=1e-12 * LR)


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"cyclic", "one_cycle", "reduce_on_plateau"}))
@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_with_the_prefix_every_schedule_is_its_shorter_self_after_a_full_warmup(name: str, interval: str) -> None:
    keys = {"function": "math.cosh"} if name == "lambda" else {}
    plain = lrs(SCHEDULES[name](interval=interval, **keys), RunLength(E, EPOCHS - 3))
    warmed = SCHEDULES[name](interval=interval, warmup=3.0, warmup_prefix=True, warmup_from=0.2, **keys)
    mine = lrs(warmed)
    np.testing.assert_allclose(mine[W:], plain, rtol=1e-12, atol=1e-12 * LR)
    np.testing.assert_allclose(mine[:W], plain[0] * (0.2 + 0.8 * np.arange(W) / W), rtol=1e-12)
    assert (lrs(SCHEDULES[name](interval=interval, warmup=3.0, **keys))[:W] <= np.maximum(plain[0], plain[:W])).all()


def test_a_stretched_prefix_is_the_original_at_a_multiple_of_the_pace() -> None:
    keys = {"warmup": 6.0, "warmup_prefix": True, "interval": "step"}
    for long in (ours.Cosine(length=20.0, **keys), ours.PiecewiseLinear(milestones=[[4, 1.0], [14, 0.1]], **keys)):
        short = type(long)(**(vars(long) | {"stretch": True}))
        np.testing.assert_allclose(lrs(short, RunLength(10, 10)), lrs(long, RunLength(10, 20))[::2], rtol=1e-12)
    assert "made for 20 epochs" in str(length_warning(long, RunLength(10, 10)))


def keras_plateau(losses: list[float], patience: int, cooldown: int, factor: float) -> Iterator[float]:
    """keras.callbacks.ReduceLROnPlateau, min_delta 0: the lr after each epoch, as a multiple of the first."""
    lr, best, wait, counter = 1.0, math.inf, 0, 0
    for loss in losses:
        if counter > 0:
            counter, wait = counter - 1, 0
        if loss < best:
            best, wait = loss, 0
        elif counter == 0:
            wait += 1
            if wait >= patience:
                lr, counter, wait = lr * factor, cooldown, 0
        yield lr


@pytest.mark.parametrize("cooldown", [0, 1, 2, 4])
@pytest.mark.parametrize("patience", [1, 2, 5])
def test_keras_plateau_has_one_more_of_patience_and_of_cooldown(patience: int, cooldown: int) -> None:
    losses = np.random.default_rng(patience).uniform(0.9, 1.0, 60).tolist()
    schedule = ours.ReduceOnPlateau(patience=patience - 1, cooldown=max(cooldown - 1, 0), threshold=0.0, min_lr=0.0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, found = schedule.build(optimizer), []
    for loss in losses:
        scheduler.step(loss)
        found.append(optimizer.param_groups[0]["lr"])
    expected = list(keras_plateau(losses, patience, cooldown, schedule.factor))
    assert len(set(expected)) > 3
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_cyclics_momenta_are_one_cycles_and_torchs_can_be_set() -> None:
    torchs = inspect.signature(lr_scheduler.CyclicLR).parameters
    assert [torchs[name].default for name in ("base_momentum", "max_momentum")] == [0.8, 0.9]
    assert (ours.Cyclic().lowest_momentum, ours.Cyclic().highest_momentum) == (0.85, 0.95)
    assert "0.8 and 0.9" in str(ours.Cyclic.__doc__)


def test_keras_nadam_is_momentum_decay_1() -> None:
    """keras.optimizers.Nadam.update_step, with its momentum schedule u_t = beta_1 (1 - 0.5 x 0.96^t)."""
    config = tiny("optimizer=nadam", "optimizer.momentum_decay=1", "regularization=none")
    w = torch.nn.Linear(1, 1, bias=False).double()
    torch.nn.init.constant_(w.weight, 1.0)
    built = config.optimizer.build(w, lr=0.1, momentum=0.9, wd=None, regularization=config.regularization)
    m, v, product, x = 0.0, 0.0, 1.0, 1.0
    for t in range(1, 30):
        gradient = math.cos(3.0 * t) + x
        w.weight.grad = torch.full((1, 1), gradient, dtype=torch.float64)
        built.step()
        u, u_next = (0.9 * (1 - 0.5 * 0.96**s) for s in (t, t + 1))
        product *= u
        m, v = m + (gradient - m) * (1 - 0.9), v + (gradient**2 - v) * (1 - 0.999)
        m_hat = u_next * m / (1 - product * u_next) + (1 - u) * gradient / (1 - product)
        x -= m_hat * 0.1 / (math.sqrt(v / (1 - 0.999**t)) + 1e-7)
        assert w.weight.item() == pytest.approx(x, rel=1e-4)  # eps stands elsewhere, and the product is a float32


@pytest.mark.parametrize("anneal", ["cos", "linear"])
@pytest.mark.parametrize("epochs", [0, 1, 3, 5, 20])
def test_swas_rate_is_annealed_as_torchs_swalr(anneal: str, epochs: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    decay = lr_scheduler.ExponentialLR(optimizer, 0.9)
    swalr, found = None, []
    for epoch in range(EPOCHS):
        if epoch == 4:
            swalr = SWALR(optimizer, swa_lr=0.05, anneal_epochs=epochs, anneal_strategy=anneal)  # type: ignore[arg-type]
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        (swalr or decay).step()
    averaging = SWA(start=4, lr=0.05, anneal_epochs=epochs, anneal=anneal)
    averaging.check()
    table = schedule_table(ours.Exponential(gamma=0.9), LR, 0.9, SPAN)
    averaging.override_lr(table, SPAN)
    assert (table[:, 0].reshape(EPOCHS, E) == table[::E, :1]).all()  # once an epoch
    np.testing.assert_allclose(table[::E, 0], found, rtol=1e-12)


def test_a_plateau_after_a_warmup_is_timms(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's PlateauLRScheduler: linear up to lr, then torch's plateau, which sees the epochs after the warmup only."""
    from resnetlab import run
    from resnetlab.runs.files import read_rows

    losses = [1.0, 5.0, 3.0, 3.0, 3.0, 2.0, 2.0, 2.0]
    keys = ["schedule=reduce_on_plateau", "schedule.warmup=2", "schedule.patience=0", "schedule.factor=0.5"]
    config = tiny(*keys, "schedule.min_lr=0", "epochs=8", "lr=0.001", "data.limit=40", "batch_size=20")
    step = lr_scheduler.ReduceLROnPlateau.step
    seen: list[float] = []

    def told(self: lr_scheduler.ReduceLROnPlateau, metrics: float, epoch: int | None = None) -> None:
        seen.append(losses[2 + len(seen)])
        step(self, seen[-1], epoch)

    monkeypatch.setattr(lr_scheduler.ReduceLROnPlateau, "step", told)
    run(config)
    assert seen == losses[2:]
    lr = [row["lr"] for row in read_rows(config.folder.metrics)]
    # of each epoch's first step: 0.1, half way, then 3.0 is the best; two epochs without improvement halve it twice
    np.testing.assert_allclose(lr, [1e-4, 5.5e-4, 1e-3, 1e-3, 5e-4, 2.5e-4, 2.5e-4, 1.25e-4], rtol=1e-9)
    planned = lr_momentum_table(config, RunLength(2, 8))[:, 0]
    np.testing.assert_allclose(planned[:5], np.array([0.1, 0.325, 0.55, 0.775, 1.0]) * 1e-3, rtol=1e-9)
