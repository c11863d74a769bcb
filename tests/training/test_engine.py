"""The engines against each other, and the updates with tensors against torch's optimizers."""

import math
from typing import Any
from unittest.mock import patch

import pytest
import torch
from test_run import stop_after
from torch import Tensor

from conftest import TINY, rows_of, tiny
from resnetlab import Config, compose
from resnetlab.config.trainer import TrainerOptions
from resnetlab.errors import ConfigError
from resnetlab.optim.optimizers import OPTIMIZERS
from resnetlab.optim.optimizers.base import make_capturable, set_lr_momentum
from resnetlab.training.engine.cuda_graph import CudaGraphRunner, snapshot
from resnetlab.training.engine.select import select_engine
from resnetlab.training.engine.step import TrainStep
from rig import CYCLING, HUNDRED, Rig, assert_same_state, read_values, resumed

CPU = torch.device("cpu")
CAPTURABLE = [name for name, kind in OPTIMIZERS.items() if kind.capturable]


def losses(config: Config, engine: str, steps: int) -> list[float]:
    """Of a run's first steps, without Lightning. engine: as of Rig."""
    rig = Rig(config, "cpu", engine)
    found = rig.train(steps)
    assert int(rig.step.first_nonfinite_step) == TrainStep.NO_STEP
    return found


def test_steps_in_chunks_are_the_same_steps() -> None:
    """To the bit, 24 steps with dropout, 1cycle, EMA and both decays."""
    more = ("batch_size=8", *CYCLING, "model=resnet56v1_concat", "model.depth=8")
    configs = [tiny(*more, f"study=of{chunk}", f"trainer.chunk={chunk}") for chunk in (1, 3, 100)]
    for config in configs:
        stop_after(config, epochs=3)
    rows = [rows_of(config) for config in configs]
    assert len(rows[0]) == 3
    assert rows[0] == rows[1] == rows[2]


def test_neither_chunk_nor_engine_nor_profile_are_part_of_what_a_run_is() -> None:
    others = ("trainer.chunk=7", "engine=compile", "trainer.profile=7", "trainer.compile=true")
    assert tiny(*others).folder.path == tiny().folder.path


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_step_that_reads_its_own_time_equals_the_plain_one(optimizer: str) -> None:
    """What a graph replays, over 104 steps of 1cycle with its momentum, against lr and momentum set from outside.

    The optimizers' formulas are torch's in another order, and rounding grows in a network that learns: the first
    steps agree to 1e-5, the last to a few per cent of a loss of about 1.
    """
    config = tiny(*HUNDRED, *CYCLING, f"optimizer={optimizer}")
    plain, timed = losses(config, "eager", 104), losses(config, "timed", 104)
    assert timed[:10] == pytest.approx(plain[:10], rel=1e-5)
    assert timed == pytest.approx(plain, rel=0.05)


def test_a_graph_reads_the_lr_and_momentum_of_the_table() -> None:
    rig = Rig(tiny(*HUNDRED, *CYCLING), "cpu", "timed")
    assert read_values(rig, 24) == pytest.approx(rig.lab.lr_momentum_table[:24], rel=1e-6)  # float32


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_constant_momentum_that_is_the_schedules_own_is_the_graphs(optimizer: str) -> None:
    """Not the one that the optimizer was built with."""
    momenta = ("schedule.lowest_momentum=0.5", "schedule.highest_momentum=0.5")
    config = tiny("batch_size=8", "epochs=3", "schedule=one_cycle", f"optimizer={optimizer}", *momenta)
    rig = Rig(config, "cpu", "timed")
    assert set(read_values(rig, 24)[:, 1]) == {0.5}
    assert losses(config, "timed", 10) == pytest.approx(losses(config, "eager", 10), rel=1e-5)


def test_what_does_not_change_the_momentum_keeps_torchs_kernel() -> None:
    """With a constant momentum only lr is a tensor, of float32, and torch's fused kernel takes it."""
    config = tiny("batch_size=8", "epochs=3", "schedule=constant", "lr=0.0009765625")  # 2^-10: the same in float32
    assert losses(config, "eager", 24) == losses(config, "timed", 24)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "compiled", "steps"), [("eager", "compile", 104), ("fewer", "fewer compiled", 24)])
def test_a_compiled_step_equals_the_plain_one(engine: str, compiled: str, steps: int) -> None:
    """Other kernels, so other rounding: as above. fewer: the step that a CUDA graph records."""
    config = tiny(*HUNDRED, *CYCLING)
    plain, found = losses(config, engine, steps), losses(config, compiled, steps)
    assert found[:10] == pytest.approx(plain[:10], rel=1e-4)
    assert found == pytest.approx(plain, rel=0.05)


@pytest.mark.parametrize("half", [False, torch.bfloat16], ids=["32-true", "bf16-mixed"])
def test_what_a_graph_records_compiles_as_one_region(monkeypatch: pytest.MonkeyPatch, half: Any) -> None:
    """With FewerLaunches, whose copies of the weights stand in for them; traced by Dynamo and by autograd, no kernels.

    Both batch sizes of an epoch, so that the second does not reuse what was traced of the first.
    """
    compiler, traced = torch.compile, []

    def compile_without_kernels(function: Any, *, dynamic: bool, options: dict[str, bool]) -> Any:
        traced.append((dynamic, options))
        return compiler(function, backend="aot_eager", fullgraph=True, dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", compile_without_kernels)
    config = tiny("batch_size=8", "data.limit=20", "lr=1e-3", *CYCLING)
    rigs = [Rig(config, "cpu", engine, half=half) for engine in ("fewer", "fewer compiled")]
    most = 4 if half else 2  # traces: of two batch sizes, in and out of autocast; with fullgraph one more raises
    with torch._dynamo.config.patch(recompile_limit=most):
        losses = [rig.train(6) for rig in rigs]
    assert traced == [(False, {"triton.cudagraphs": False})]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3 if half else 1e-6)
    if not half:
        assert_same_state(rigs[1].state(), rigs[0].state(), rtol=1e-4, atol=1e-6)


def test_the_state_is_as_it_was_after_the_warm_up() -> None:
    rig = Rig(tiny(*HUNDRED, *CYCLING), "cpu", "timed", scale=1024.0)
    assert isinstance(rig.engine, CudaGraphRunner)
    rig.step.start_epoch(1, 0)
    before = rig.state()
    restore = snapshot(rig.engine.state())
    rig.engine.step_at_global_step(8)
    after = rig.state()
    changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert changed >= {
        key for key in before if key.startswith(("model.", "optimizer/", "position", "global_step", "sums"))
    }
    restore()
    left = {key for key, value in rig.state().items() if not torch.equal(value, before[key])}
    assert left == {"scaler/_growth_tracker"}  # which has a state_dict of its own


# --- with the gradient scaler


@pytest.mark.slow  # float16 on a CPU
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_first_steps_with_a_scaler_are_skipped_by_both(optimizer: str) -> None:
    """In float16 a scale of 2^24 overflows, as 2^16, torch's initial one, often does: nothing moves until it fits.

    Sums in float16 part ways soon, where rounding grows: the losses are compared while the skips last, and loosely.
    """
    config = tiny(*HUNDRED, *CYCLING, f"optimizer={optimizer}")
    rigs = [Rig(config, "cpu", engine, scale=2.0**24, half=True) for engine in ("eager", "timed")]
    before = [p.detach().clone() for p in rigs[1].lab.model.parameters()]
    for rig in rigs:
        rig.train(1)
    assert all(torch.equal(a, b) for a, b in zip(before, rigs[1].lab.model.parameters(), strict=True))
    losses = [rig.train(11) for rig in rigs]
    scales = [float(rig.state()["scaler/scale"]) for rig in rigs]
    assert scales[0] == scales[1] < 2.0**20
    assert all(map(math.isfinite, losses[1]))
    assert losses[1][:5] == pytest.approx(losses[0][:5], rel=1e-3)
    assert losses[1] == pytest.approx(losses[0], rel=0.2)


@pytest.mark.parametrize("engines", [("timed", "timed"), ("timed", "eager"), ("eager", "timed")])
def test_a_resumed_run_equals_an_undisturbed_one(engines: tuple[str, str]) -> None:
    config = tiny(*HUNDRED, *CYCLING)
    undisturbed = Rig(config, "cpu", engines[1], scale=1024.0)
    whole = undisturbed.train(24)
    found, state = resumed(config, "cpu", engines, (16, 8), scale=1024.0)
    if engines == ("timed", "timed"):
        assert found == whole
        assert_same_state(state, undisturbed.state(), rtol=0, atol=0)
    assert found[:18] == pytest.approx(whole[:18], rel=1e-4)
    assert found == pytest.approx(whole, rel=0.05)


# --- the updates


def twins(name: str, decay: str, **keys: object) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Two equal optimizers over two equal pairs of tensors, one in channels_last; the second of tensors."""
    made = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(1)
        model = torch.nn.Module()
        kernel = torch.randn(4, 3, 3, 3, generator=generator).to(memory_format=torch.channels_last)
        model.kernel, model.bias = torch.nn.Parameter(kernel), torch.nn.Parameter(torch.randn(4, generator=generator))
        config = compose(*TINY, f"optimizer={name}", f"regularization={decay}", *(f"{k}={v}" for k, v in keys.items()))
        made.append(
            config.optimizer.build(model, lr=0.1, momentum=0.9, wd=config.wd, regularization=config.regularization)
        )
    make_capturable(made[1], CPU, cycles_momentum=True)
    return made[0], made[1]


def tensors(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def step_both(pair: tuple[torch.optim.Optimizer, torch.optim.Optimizer], k: int) -> None:
    generator = torch.Generator().manual_seed(100 + k)
    gradients = [torch.randn(p.shape, generator=generator) for p in tensors(pair[0])]
    for optimizer in pair:
        lr, momentum = 0.1 / (1 + k), 0.95 - 0.1 * math.sin(k)
        set_lr_momentum(optimizer, *((lr, momentum) if optimizer is pair[0] else map(torch.tensor, (lr, momentum))))
        for p, gradient in zip(tensors(optimizer), gradients, strict=True):
            p.grad = gradient.clone(memory_format=torch.channels_last if p.ndim == 4 else torch.contiguous_format)
        optimizer.step()


@pytest.mark.parametrize("decay", ["none", "weight_decay", "coupled"])
@pytest.mark.parametrize(
    ("name", "keys"), [*((name, {}) for name in CAPTURABLE), ("sgd", {"optimizer.nesterov": "true"})]
)
def test_updates_with_tensors_are_torchs(name: str, keys: dict[str, str], decay: str) -> None:
    """30 steps, lr and momentum another at each, weights of size 1. The same formulas in another order, and lr, beta1
    and the bias corrections in float32: Adam's weights differ by up to 3e-6."""
    pair = twins(name, decay, **keys)
    for k in range(30):
        step_both(pair, k)
    for a, b in zip(tensors(pair[0]), tensors(pair[1]), strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=1e-5)
        assert not torch.equal(a, torch.zeros_like(a))


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_step_that_the_scaler_skips_changes_nothing(name: str, steps: int) -> None:
    """Nor the very first, which the scaler's initial scale lets overflow."""
    _, optimizer = twins(name, "weight_decay")
    for k in range(steps):
        step_both((optimizer, optimizer), k)
    held = [*tensors(optimizer), *(v for s in optimizer.state.values() for v in s.values())]
    before = [tensor.detach().clone() for tensor in held]
    for p, bad in zip(tensors(optimizer), (math.inf, math.nan), strict=True):
        p.grad = torch.full_like(p, bad)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(2.0), torch.tensor(1.0)  # type: ignore[attr-defined]
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, held, strict=True))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_scalers_factor_is_taken_out(name: str) -> None:
    pair = twins(name, "weight_decay")
    make_capturable(pair[0], CPU, cycles_momentum=True)
    for optimizer, scale in zip(pair, (1.0, 1024.0), strict=True):  # a power of two: exact
        for p in tensors(optimizer):
            p.grad = torch.full_like(p, 0.25 * scale)
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(scale), torch.tensor(0.0)  # type: ignore[attr-defined]
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(tensors(pair[0]), tensors(pair[1]), strict=True))


# --- the choice


def chosen(*overrides: str, device: str = "cuda") -> tuple[str, str | None]:
    config = compose(*TINY, *overrides)
    with patch.object(TrainerOptions, "device", torch.device(device)):
        return select_engine(config)


def test_the_engine_is_the_one_that_fits() -> None:
    assert chosen() == ("graph", None)
    assert chosen(device="cpu") == ("eager", None)
    assert chosen("engine=eager") == ("eager", None)
    assert chosen("engine=compile", device="cpu") == ("compile", None)
    assert chosen("trainer.compile=true") == ("graph", None)
    assert chosen("trainer.compile=true", device="cpu") == ("compile", None)
    why = "engine=compile, because a CUDA graph needs a CUDA device, and this is a cpu"
    assert chosen("engine=graph", "trainer.compile=true", device="cpu") == ("compile", why)
    assert chosen("optimizer=muon", "trainer.compile=true")[0] == "compile"


@pytest.mark.parametrize(
    ("overrides", "device", "reason"),
    [
        (["engine=graph"], "cpu", "needs a CUDA device"),
        (["engine=graph", "trainer.devices=2"], "cuda", "several devices"),
        (["optimizer=muon"], "cuda", "optimizer=muon may"),
        (["optimizer=radam"], "cuda", "optimizer=radam may"),
        (["optimizer.fused=false"], "cuda", "optimizer.fused=false"),
        (["schedule=reduce_on_plateau"], "cuda", "schedule=reduce_on_plateau"),
    ],
)
def test_what_does_not_fit_is_run_eagerly_and_said(overrides: list[str], device: str, reason: str) -> None:
    name, remark = chosen(*overrides, device=device)
    assert name == "eager"
    assert remark is not None
    assert reason in remark


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["engine=eager"], r"trainer\.compile \(=true\) goes with engine=auto or graph; .* engine=compile"),
        (["data.device=cpu"], r"trainer\.compile \(=true\) gathers the images on their device, .*; leave it out"),
        (
            ["data.device=cpu", "engine=compile", "trainer.compile=false"],
            r"engine \(=compile\) gathers .*; take engine=eager",
        ),
    ],
)
def test_what_cannot_be_compiled_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny("trainer.compile=true", *overrides)


def test_an_engine_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"engine \(=jit\) must be one of auto, eager, compile, graph"):
        tiny("engine=jit")
