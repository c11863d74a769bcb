"""The step that a CUDA graph records, on a CPU: it reads nothing back, and FewerLaunches' is the plain one; what a run
does where no graph can be recorded; and that a GPU is waited for no oftener than needed."""

import io
import json
import math
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

from conftest import rows_of, tiny
from resnetlab import Config, LabError, compose, run
from resnetlab.console import installed_version
from resnetlab.models.options import MODELS
from resnetlab.optim.averaging import batch_norms, reestimated_statistics
from resnetlab.optim.optimizers import OPTIMIZERS
from resnetlab.optim.schedules import SCHEDULES
from resnetlab.training import module as training_module
from resnetlab.training.build import build
from resnetlab.training.callbacks.checkpoints import on_host
from resnetlab.training.engine.cuda_graph import CaptureFailed, CudaGraphRunner, StatisticsRunner
from rig import CYCLING, Rig

ALL = ("batch_size=8", "data.limit=30", "epochs=3")
SMALLEST = {"resnet56v1": "model.depth=8", "resnet56v1_concat": "model.depth=8"}


class NoReadBack(TorchDispatchMode):
    """Fails at an operation that a device would have to be waited for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.item.default)
        assert func is not torch.ops.aten.nonzero.default
        return func(*args, **(kwargs or {}))


def recipes() -> list[tuple[str, ...]]:
    """Every optimizer that is captured with a momentum that changes and one that stays; every schedule, average,
    network and part of the step once."""
    capturable = [f"optimizer={name}" for name, kind in OPTIMIZERS.items() if kind.capturable]
    momenta = ("schedule=one_cycle", "schedule=constant")  # that change and stay
    schedules = [f"schedule={name}" for name, kind in SCHEDULES.items() if not kind.stateful]
    return [
        *((name, schedule, "regularization=l2_weight_decay") for name in capturable for schedule in momenta),
        *((name,) for name in schedules if name not in ("schedule=lambda",)),
        *((f"model={name}", SMALLEST[name]) for name in SMALLEST),
        ("model=resnet20v2", "model.depth=11", "model.norm=group_ws"),
        ("optimizer=sgd", "optimizer.nesterov=true", "regularization=coupled", "schedule=cyclic"),
        ("averaging=ema", "averaging.warmup=true", "averaging.overwrite_frequency=2"),
        ("averaging=swa", "averaging.start=1", "trainer.accumulate=2", "trainer.gradient_clip=1.0"),
        ("data.translate=pad_crop", "data.normalize=channel", "regularization.label_smoothing=0.1"),
        ("optimizer=sgd", "optimizer.sam=0.1", "optimizer.norm_bias_lr=64", "data.flip=true", "data.cutout=4"),
        ("data.translate=pad_crop", "data.fill=reflect", "data.brightness=0.2", "data.contrast=0.2"),
    ]  # fmt: skip


@pytest.mark.parametrize("overrides", recipes(), ids=" ".join)
def test_no_step_reads_anything_back(overrides: tuple[str, ...]) -> None:
    """One value read on the host ends a recording; torch's foreach functions do it with a tensor for a number."""
    rig = Rig(tiny(*ALL, *overrides), "cpu", "fewer")
    with NoReadBack():
        for index in range(2):
            if index == 0:
                rig.step.start_epoch(1, 0)
            assert isinstance(rig.engine, CudaGraphRunner)
            rig.engine.step_at_global_step(8)
            if rig.lab.average is not None:
                momentum = rig.config.ema_momentum
                rig.config.averaging.update(rig.lab.average, rig.lab.model, index, rig.lab.span, momentum)


def with_biases(rig: Rig) -> Rig:
    """Convolutions' biases of size 0.1, as no run begins with, and the running means another's."""
    generator = torch.Generator().manual_seed(1)
    for name, values in rig.lab.model.state_dict().items():
        if name.endswith(("bias", "running_mean")):
            values.copy_(0.1 * torch.randn(values.shape, generator=generator))
    return rig


@pytest.mark.parametrize(
    "overrides",
    [
        ("optimizer=sgd", "regularization=l2_weight_decay", "schedule=one_cycle"),
        ("optimizer=sgd", "regularization=coupled", "schedule=constant", "trainer.accumulate=2", "freeze=[stem]"),
    ],
    ids=["cycling", "parts"],
)
@pytest.mark.parametrize("half", [False, torch.bfloat16], ids=["32-true", "bf16-mixed"])
def test_fewer_launches_train_the_same_network(overrides: tuple[str, ...], half: Any) -> None:
    """With SGD, for Adam makes steps of size lr of the biases' gradients, which are 0 but for rounding."""
    config = tiny(*ALL, "lr=0.01", *overrides)
    rigs = [with_biases(Rig(config, "cpu", engine, half=half)) for engine in ("timed", "fewer")]
    for rig in rigs:
        rig.step.micro_batches = config.trainer.accumulate
    losses = [rig.train(3) for rig in rigs]
    assert losses[1] == pytest.approx(losses[0], rel=0.02 if half else 1e-5)  # bfloat16 has 8 bits
    plain, fewer = (rig.state() for rig in rigs)
    assert plain.keys() == fewer.keys()
    for key, value in plain.items():
        if key.endswith("num_batches_tracked"):
            assert int(fewer[key]) == int(value) == 3 * config.trainer.accumulate
        elif not half:
            assert float((fewer[key] - value).abs().max()) <= 1e-5 + 1e-3 * float(value.abs().max()), key


def test_the_weights_copies_are_autocasts_to_the_bit() -> None:
    """Where no bias is left out, only who casts differs: the first step's losses and gradients are the same bits."""
    config = tiny(*ALL, "model=resnet56v1", "model.depth=8", "optimizer=sgd", "momentum=0.0", "regularization=l2")
    rigs = [Rig(config, "cpu", engine, half=torch.bfloat16) for engine in ("timed", "fewer")]
    losses = [rig.train(1) for rig in rigs]
    assert losses[0] == losses[1]
    for (name, plain), fewer in zip(rigs[0].lab.model.named_parameters(), rigs[1].lab.model.parameters(), strict=True):
        assert plain.grad is not None
        assert fewer.grad is not None
        assert fewer.grad.dtype == torch.float32
        torch.testing.assert_close(fewer.grad, plain.grad, rtol=0, atol=1e-7, msg=name)


@pytest.mark.parametrize("name", ["resnet20v2", "resnet56v2"])
def test_the_biases_without_effect_are_those_that_only_a_norm_reads(name: str) -> None:
    """As torch.fx sees them: a convolution's only reader is a batch norm."""
    model = MODELS[name].build(10)
    nodes, modules = list(fx.Tracer().trace(model).nodes), dict(model.named_modules())
    read = [(node, next(iter(node.users))) for node in nodes if node.op == "call_module" and len(node.users) == 1]
    pairs = [(modules[str(a.target)], modules[str(b.target)]) for a, b in read if b.op == "call_module"]
    wanted = [pair for pair in pairs if type(pair[0]) is nn.Conv2d and type(pair[1]) is nn.BatchNorm2d]
    found: Any = model.normalized_convolutions()  # type: ignore[operator]
    assert {(id(a), id(b)) for a, b in found} == {(id(a), id(b)) for a, b in wanted}
    assert len(found) == {"resnet20v2": 13, "resnet56v2": 37}[name]
    assert MODELS[name].__class__("g", norm="group").build(10).normalized_convolutions() == []  # type: ignore[operator]


class Replay:
    """What a recording of the runner's forward pass does, with the momentum that the norms had when it was made."""

    def __init__(self, runner: StatisticsRunner) -> None:
        self.runner, self.momenta = runner, [norm.momentum for norm in batch_norms(runner.network)]

    def replay(self) -> None:
        for norm, momentum in zip(batch_norms(self.runner.network), self.momenta, strict=True):
            norm.momentum = momentum
        self.runner.network(self.runner.images)


def test_replayed_statistics_are_the_mean_over_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal to forward passes but for rounding, also when they are re-estimated again, of other batches and weights."""
    monkeypatch.setattr(StatisticsRunner, "record", lambda runner: Replay(runner))
    rig = Rig(tiny("batch_size=8"), "cpu", "eager")
    network = rig.lab.model
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    runner = StatisticsRunner(network)
    for epoch in (1, 2):
        inputs = list(rig.data.recalibration_inputs(60, epoch, rig.device))
        assert len(inputs) == 7
        found = []
        for take in (None, runner):
            with reestimated_statistics(network, inputs, take):
                found.append({name: buffer.clone() for name, buffer in network.named_buffers()})
        for name, wanted in found[0].items():
            torch.testing.assert_close(found[1][name], wanted, rtol=1e-5, atol=1e-6, msg=name)
            assert torch.equal(dict(network.named_buffers())[name], before[name])
        for weight in network.parameters():
            weight.data.mul_(1.1)
        for mean in runner.means:
            mean.fill_(math.nan)  # of an epoch that overflowed


def test_statistics_are_those_of_forward_passes_where_no_graph_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, and the recording is tried once."""
    tried = []

    def record(runner: StatisticsRunner) -> None:
        tried.append(runner)
        raise CaptureFailed("planted")

    monkeypatch.setattr(StatisticsRunner, "record", record)
    rig = Rig(tiny("batch_size=8"), "cpu", "eager")
    network, runner = rig.lab.model, StatisticsRunner(rig.lab.model)
    inputs, found = list(rig.data.recalibration_inputs(60, 1, rig.device)), []
    for take in (None, runner, runner):
        with reestimated_statistics(network, inputs, take):
            found.append([buffer.clone() for buffer in network.buffers()])
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*found, strict=True))
    assert tried == [runner]


def test_the_statistics_of_a_run_as_a_graph_are_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the raw weights and of the average, which are two networks; not those of an eager run."""
    used = []
    monkeypatch.setattr(StatisticsRunner, "__call__", lambda runner, x, number: used.append(runner.network))
    rig = Rig(tiny("batch_size=8", "trainer.recalibration_images=16", "averaging=ema"), "cpu", "eager")
    lab = rig.lab
    lab.trainer, lab.data = SimpleNamespace(current_epoch=0), rig.data  # type: ignore[assignment]
    assert lab.average is not None
    networks = {"reestimated": lab.model, "averaged": lab.average.module}
    for engine, calls in (("eager", 0), ("graph", 2), ("graph", 2)):  # of two batches
        lab.engine_name = engine
        for weights, network in networks.items():
            used.clear()
            lab.validate_with_fresh_statistics(network, "", weights)
            assert used == [network] * calls
    assert lab.statistics_runners.keys() == networks.keys()


# --- a run


def plant_graph(monkeypatch: pytest.MonkeyPatch, fails_at: int) -> None:
    """Runs on a CPU as if it had graphs, whose replay is the step itself; recording number `fails_at` fails."""
    recorded: list[int] = []

    class Replayed:
        def __init__(self, runner: CudaGraphRunner, images: int) -> None:
            self.runner, self.images = runner, images

        def replay(self) -> None:
            self.runner.step_at_global_step(self.images)

    def record(runner: CudaGraphRunner, images: int) -> Replayed:
        recorded.append(images)
        if len(recorded) == fails_at:
            raise CaptureFailed("this step cannot be captured (planted)")
        return Replayed(runner, images)

    monkeypatch.setattr(CudaGraphRunner, "record", record)
    monkeypatch.setattr(StatisticsRunner, "record", lambda runner: Replay(runner))
    monkeypatch.setattr(training_module, "select_engine", lambda config: ("graph", None))


def manifest_of(config: Config) -> Any:
    return json.loads(config.folder.manifest.read_text())


def test_auto_goes_on_eagerly_from_the_same_state_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = (*CYCLING, "epochs=2", "trainer.progress=lines")
    plain, planted = tiny(*more, "study=plain"), tiny(*more, "study=planted")
    run(plain)
    plant_graph(monkeypatch, fails_at=1)
    run(planted)
    assert rows_of(planted) == rows_of(plain)
    said = "engine=eager, because this step cannot be captured (planted)"
    assert capsys.readouterr().out.count(said) == 1
    assert manifest_of(planted)["engine"] == "eager"


def test_auto_goes_on_after_a_graph_for_another_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second recording, of the epoch's smaller batch, fails: the steps before count. Momentum as a tensor."""
    plain, planted = tiny(*CYCLING, "study=plain"), tiny(*CYCLING, "study=planted")
    run(plain)
    plant_graph(monkeypatch, fails_at=2)
    run(planted)
    curves = [[row["train/ce"] for row in rows_of(config)] for config in (plain, planted)]
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
    assert manifest_of(planted)["engine"] == "eager"
    module, data, trainer = build(tiny(*CYCLING, "study=again"))
    plant_graph(monkeypatch, fails_at=99)
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == 6


def test_graph_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    plant_graph(monkeypatch, fails_at=1)
    with pytest.raises(LabError, match=r"engine=graph: this step cannot be captured \(planted\); take engine=eager"):
        run(tiny("engine=graph"))


def test_cudnn_searches_for_shapes_that_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for the last batch of an epoch, the validation and the statistics; and again in the next epoch."""
    seen: dict[str, list[bool]] = {"train": [], "eval": []}

    class Spy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen["train" if torch.is_grad_enabled() else "eval"].append(torch.backends.cudnn.benchmark)
            return x

    config = tiny("batch_size=25", "epochs=2", "recalibrate_bn=true", "trainer.recalibration_images=50")
    module, data, trainer = build(config)
    module.model.stem = nn.Sequential(module.model.stem, Spy())  # type: ignore[arg-type]
    before = torch.backends.cudnn.benchmark
    try:
        trainer.fit(module, datamodule=data)
    finally:
        torch.backends.cudnn.benchmark = before
    assert seen["train"] == [True, True, False] * 2
    assert len(seen["eval"]) >= 6
    assert not any(seen["eval"])


def test_the_loss_of_mixed_precision_is_computed_in_float32() -> None:
    rig = Rig(tiny(), "cpu", "eager", half=torch.bfloat16)
    seen = []
    rig.lab.losses = lambda logits, labels, **_: seen.append(logits.dtype) or (logits.sum(), logits.sum())  # type: ignore
    with rig.autocast():
        rig.step.forward(8)
    assert seen == [torch.float32]


# --- checkpoints, versions, TF32


def test_a_checkpoint_waits_once_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[None] = []
    model = nn.Sequential(nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last), nn.BatchNorm2d(4))
    checkpoint = {"state_dict": model.state_dict(), "rows": [{"epoch": 1}], "states": [{"a": torch.ones(2), 3: None}]}
    assert on_host(checkpoint) is checkpoint  # on a CPU
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(None))
    found = on_host(checkpoint)
    assert len(waits) == 1
    assert found is not checkpoint
    assert isinstance(found["state_dict"], OrderedDict)
    assert found["state_dict"]._metadata == model.state_dict()._metadata  # type: ignore[attr-defined]
    files = [io.BytesIO(), io.BytesIO()]
    for file, content in zip(files, (checkpoint, found), strict=True):
        torch.save(content, file)
    assert files[0].getvalue() == files[1].getvalue()


def test_a_package_that_is_not_installed_has_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the package itself has none, run from its source tree alone."""
    assert torch.__version__.startswith(installed_version("torch"))
    assert installed_version("no-package-of-this-name") == "unknown"


@pytest.mark.parametrize("tf32", [True, False])
def test_tf32_is_set_for_the_run_alone(tf32: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("resnetlab.training.run.build_session", lambda *_, **__: seen.append(flags()) or 1 / 0)
    before = flags()
    with pytest.raises(ZeroDivisionError):
        run(tiny(f"trainer.tf32={tf32}"))
    assert seen == [(tf32, "high" if tf32 else "highest")]
    assert flags() == before


def flags() -> tuple[bool, str]:
    return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()


def test_tf32_makes_another_run_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tiny("trainer.tf32=false").identity == tiny().identity
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert tiny("trainer.tf32=false").identity == tiny().identity | {"trainer.tf32": False}
    assert compose("trainer.tf32=null").identity == compose().identity
