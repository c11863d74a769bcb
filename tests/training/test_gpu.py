"""What only a CUDA device can show, the captured step against the plain one above all: with make test-slow.

cuDNN is held to deterministic algorithms (the fixture), so that what differs is the engines. Those that a graph replays
are compared with the same operations run plainly ("timed"), tightly; with the eager engine, whose fused kernels take lr
in double precision and, where the momentum changes, compute the same formulas in another order, tightly over the first
steps, and loosely over a hundred, in which rounding grows (tests/test_engine.py, on a CPU: by less than 5 % of a loss).
"""

import ctypes
import gzip
import json
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from test_run import stop_after

from conftest import tiny
from resnetlab import Config, LabError, compose, run
from resnetlab.data import ImageData
from resnetlab.optim.averaging import reestimated_statistics
from resnetlab.runs.files import read_rows
from resnetlab.sweeps.one_process import InterleavedRun
from resnetlab.training.callbacks.checkpoints import read_checkpoint
from resnetlab.training.engine.cuda_graph import CudaGraphRunner, StatisticsRunner
from resnetlab.training.isolation import preserve_process_state
from resnetlab.training.metrics import EpochMetrics
from rig import CYCLING, HUNDRED, Rig, assert_same_state, read_values, resumed

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]
CONSTANT = ("schedule=constant", "regularization=weight_decay")  # torch's fused kernels, lr alone a tensor


@pytest.fixture(autouse=True)
def exact_convolutions() -> Iterator[None]:
    """Deterministic, and without TF32, whose 10 bits the tolerances do not know; torch has it on in convolutions."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = True, False, False
    yield
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = before


@pytest.fixture
def no_waiting() -> Iterator[Callable[[], None]]:
    """From its call on, what waits for the device raises; off again whatever happens, or all later tests would fail."""
    with warnings.catch_warnings(action="ignore"):  # torch's about a prototype, when it is set already
        yield lambda: torch.cuda.set_sync_debug_mode("error")
        torch.cuda.set_sync_debug_mode("default")


def graph_of(rig: Rig) -> CudaGraphRunner:
    assert isinstance(rig.engine, CudaGraphRunner)
    return rig.engine


def assert_close(found: list[float], wanted: list[float], first: int, rel: float) -> None:
    """The first losses to `rel`; all of them, which are of size 1 and fall, to 15 %: of engines that round apart."""
    assert len(found) == len(wanted)
    assert found[:first] == pytest.approx(wanted[:first], rel=rel)
    assert found == pytest.approx(wanted, rel=0.15, abs=0.05)


@pytest.mark.parametrize("half", [True, False], ids=["16-mixed", "32-true"])
@pytest.mark.parametrize("recipe", [CYCLING, CONSTANT], ids=["one_cycle", "constant"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_graph_equals_eager_over_a_hundred_steps(optimizer: str, recipe: tuple[str, ...], half: bool) -> None:
    """1cycle with its momentum, L2, decay, EMA and the scaler. A frozen lr or momentum would show in ten steps."""
    config = tiny(*HUNDRED, *recipe, f"optimizer={optimizer}")
    scale = 1024.0 if half else None
    rigs = {engine: Rig(config, "cuda", engine, scale=scale, half=half) for engine in ("eager", "timed", "graph")}
    losses = {engine: rig.train(104) for engine, rig in rigs.items()}
    assert len(graph_of(rigs["graph"]).graphs) == 2
    assert losses["graph"] == pytest.approx(losses["timed"], rel=1e-5)  # the same kernels
    assert_same_state(rigs["graph"].state(), rigs["timed"].state(), rtol=1e-4, atol=1e-5)
    assert_close(losses["graph"], losses["eager"], first=10, rel=2e-3 if half else 1e-4)


@pytest.mark.parametrize(
    "words",
    [
        ("data.randaugment=2", "data.mixup=0.2"),
        ("data.translate=pad_crop", "data.fill=reflect", "data.cutout=4", "data.brightness=0.2", "data.contrast=0.2"),
        ("optimizer.sam=0.1", "optimizer.norm_bias_lr=8", "data.flip=true", "data.alternating_flip=true"),
    ],
    ids=["randaugment", "cutout", "sam"],
)
def test_augmentation_of_every_replay_is_that_of_the_plain_steps(words: tuple[str, ...]) -> None:
    config = tiny(*HUNDRED, *CONSTANT, *words)
    losses = [Rig(config, "cuda", engine).train(24) for engine in ("timed", "graph")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    images = ImageData(config.data, 32, 0.07, 0)
    (on_host, _), (on_device, _) = (next(images.batches(1, torch.device(kind))) for kind in ("cpu", "cuda"))
    assert (on_host - on_device.cpu()).abs().mean() < 1e-3  # a pixel between two may come from either


def test_the_lr_and_momentum_of_every_replay_are_the_tables() -> None:
    rig = Rig(tiny(*HUNDRED, *CYCLING), "cuda", "graph")
    assert read_values(rig, 24) == pytest.approx(rig.lab.lr_momentum_table[:24], rel=1e-6)  # float32


def test_graph_skips_the_steps_that_eager_skips() -> None:
    """With a scale that overflows at first; the first step of all is one of them."""
    config = tiny(*HUNDRED, *CYCLING)
    rigs = [Rig(config, "cuda", engine, scale=2.0**24, half=True) for engine in ("eager", "graph")]
    losses = [rig.train(24) for rig in rigs]
    assert float(rigs[0].state()["scaler/scale"]) == float(rigs[1].state()["scaler/scale"]) < 2.0**24
    assert_close(losses[1], losses[0], first=8, rel=2e-3)


def test_graph_scales_up_again() -> None:
    config = tiny(*HUNDRED, *CYCLING)
    rig = Rig(config, "cuda", "graph", scale=16.0, half=True)
    rig.scaled.scaler.set_growth_interval(5)  # before the recording
    rig.train(12)
    assert float(rig.state()["scaler/scale"]) == 64.0


def test_the_main_recipes_step_has_at_most_600_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """ResNet56v2, batch 64, AdamW, 16-mixed, copies and fills included; 1,047 as autocast and torch's layers have them.

    Measured on an emulated device, whose kernels compute nothing: 598. cuDNN's own choice of kernels may add to that.
    """
    kept = partial(torch.cuda.CUDAGraph, keep_graph=True)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", kept)
    rig = Rig(compose("data=digits", "schedule=constant"), "cuda", "graph", scale=1024.0, half=True)
    rig.train(1)
    count, graph = ctypes.c_size_t(), ctypes.c_void_p(graph_of(rig).graphs[64].raw_cuda_graph())
    assert ctypes.CDLL(None).cudaGraphGetNodes(graph, None, ctypes.byref(count)) == 0  # torch has loaded it for all
    assert 400 < count.value <= 600


def test_a_failed_recording_goes_on_eagerly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the same weights, optimizer and random state, with dropout and the scaler; engine=graph refuses."""
    plain = EpochMetrics.add

    def reads_back(metrics: EpochMetrics, loss: torch.Tensor, *more: Any) -> None:
        loss.item()
        plain(metrics, loss, *more)

    more = ("model=resnet56v1_concat", "model.depth=8", *CYCLING, "trainer.progress=lines")
    wanted = trained(*more, "study=eager", "engine=eager")[1]
    monkeypatch.setattr(EpochMetrics, "add", reads_back)
    capsys.readouterr()
    found = trained(*more, "study=auto")[1]
    assert capsys.readouterr().out.count("engine=eager, because this step cannot be captured") == 1
    assert [row["train/ce"] for row in found] == pytest.approx([row["train/ce"] for row in wanted], rel=0.05)
    with pytest.raises(LabError, match="engine=graph: this step cannot be captured"):
        trained(*more, "study=graph", "engine=graph")


def test_dropout_is_drawn_anew_in_every_replay() -> None:
    """And from the epoch's seed, which torch.manual_seed sets between replays."""
    config = tiny(*HUNDRED, "model=resnet56v1_concat", "model.depth=8", "lr=1e-12", "wd=0.0")
    rigs = [Rig(config, "cuda", engine) for engine in ("timed", "graph")]
    plain, captured = (rig.train(24) for rig in rigs)
    assert captured == pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize("images", [8, 4])
def test_the_recording_leaves_the_state_as_it_was(images: int) -> None:
    rig = Rig(tiny(*HUNDRED, *CYCLING, "model=resnet56v1_concat", "model.depth=8"), "cuda", "graph", 1024.0, half=True)
    rig.train(11)  # into the second epoch
    graph = graph_of(rig)
    before, random = rig.state(), torch.cuda.get_rng_state()
    with rig.autocast():
        graph.record(images)
    after = rig.state()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert torch.equal(random, torch.cuda.get_rng_state())


def test_two_graphs_fed_in_turn_are_two_single_runs() -> None:
    """On a stream each, step by step, of two seeds: the same bits as alone, and no memory that both may write to.

    Without dropout: its seed lies in memory that all graphs of a device's generator share.
    """
    configs = [tiny(*HUNDRED, *CYCLING, f"seed={seed}") for seed in (0, 1)]
    alone = []
    for config in configs:
        rig = Rig(config, "cuda", "graph")
        for _ in range(16):
            rig.advance()
        alone.append(rig.state())
    rigs, streams = [Rig(config, "cuda", "graph") for config in configs], [torch.cuda.Stream() for _ in configs]
    for _ in range(16):
        for rig, stream in zip(rigs, streams, strict=True):
            stream.wait_stream(torch.cuda.default_stream())  # on which the rig was made
            with torch.cuda.stream(stream):
                rig.advance()
    torch.cuda.synchronize()
    pools = [{graph.pool() for graph in graph_of(rig).graphs.values()} for rig in rigs]
    assert [len(pool) for pool in pools] == [1, 1]
    assert not pools[0] & pools[1]
    for rig, wanted in zip(rigs, alone, strict=True):
        assert_same_state(rig.state(), wanted, rtol=0, atol=0)


def test_the_smaller_last_batch_has_a_graph_of_its_own() -> None:
    rig = Rig(tiny(*HUNDRED), "cuda", "graph")
    rig.train(7)
    assert set(graph_of(rig).graphs) == {8}
    rig.train(1)
    assert set(graph_of(rig).graphs) == {8, 4}
    graphs = dict(graph_of(rig).graphs)
    rig.train(16)
    assert graph_of(rig).graphs == graphs  # none is made again


@pytest.mark.parametrize("engines", [("graph", "graph"), ("graph", "eager"), ("eager", "graph")], ids="-".join)
@pytest.mark.parametrize("half", [True, False], ids=["16-mixed", "32-true"])
def test_a_resumed_run_equals_an_undisturbed_one(engines: tuple[str, str], half: bool) -> None:
    config, scale = tiny(*HUNDRED, *CYCLING), 1024.0 if half else None
    undisturbed = Rig(config, "cuda", engines[1], scale, half)
    whole = undisturbed.train(48)
    found, state = resumed(config, "cuda", engines, (16, 32), scale=scale, half=half)
    if engines == ("graph", "graph"):
        assert_same_state(state, undisturbed.state(), rtol=1e-4, atol=1e-5)
    assert_close(found, whole, first=16 if engines[0] == engines[1] else 10, rel=2e-3 if half else 1e-4)


def test_validation_between_replays_changes_nothing() -> None:
    """In inference mode, with re-estimated statistics, as Lightning and recalibrate_bn do."""
    config = tiny(*HUNDRED, *CYCLING)
    plain, disturbed = (Rig(config, "cuda", "graph") for _ in range(2))
    wanted = plain.train(24)
    found = []
    for _ in range(24):
        found.append(disturbed.next())
        with torch.inference_mode():
            data, lab = disturbed.data, disturbed.lab
            lab.model.eval()
            for x, y in data.eval_batches(data.val, disturbed.device):
                lab.validate_batch(lab.model, x, y)
            with reestimated_statistics(lab.model, data.recalibration_inputs(16, 1, disturbed.device)):
                lab.validate_batch(lab.model, x, y)
            lab.model.train()
    assert found == pytest.approx(wanted, rel=1e-5)
    assert_same_state(disturbed.state(), plain.state(), rtol=1e-4, atol=1e-5)


def test_replayed_statistics_are_those_of_forward_passes() -> None:
    """Of 7 batches, recorded once for two epochs; the weights between them are others, in the same memory."""
    rig = Rig(tiny("batch_size=8"), "cuda", "eager")
    network, runner = rig.lab.model, StatisticsRunner(rig.lab.model)
    for epoch in (1, 2):
        found = []
        for take in (None, runner):
            inputs = rig.data.recalibration_inputs(60, epoch, rig.device)
            with torch.inference_mode(), reestimated_statistics(network, inputs, take):
                found.append({name: buffer.clone() for name, buffer in network.named_buffers()})
        for name, wanted in found[0].items():
            torch.testing.assert_close(found[1][name], wanted, rtol=1e-4, atol=1e-5, msg=name)
        rig.train(1)


@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_a_trace_has_the_kernels_of_the_gpu(engine: str) -> None:
    config, _ = trained(f"engine={engine}", "trainer.profile=2")
    with gzip.open(config.folder.trace, "rt") as file:
        assert any(event.get("cat") == "kernel" for event in json.load(file)["traceEvents"])


@pytest.mark.parametrize("engine", ["eager", "graph"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
def test_a_step_reads_nothing_back_from_the_device(
    engine: str, optimizer: str, schedule: str, no_waiting: Callable[[], None]
) -> None:
    """In float16 with the scaler and an average: what a device waits for, it waits for at the end of an epoch."""
    more = (f"schedule={schedule}", f"optimizer={optimizer}", "regularization=l2_weight_decay", "averaging=ema")
    rig = Rig(tiny("batch_size=8", *more), "cuda", engine, scale=1024.0, half=True)
    rig.train(2)  # they make the gradients, and the graph
    no_waiting()
    for _ in range(4):  # not the last of the epoch, whose size is another
        rig.advance()
    torch.cuda.set_sync_debug_mode("default")
    assert int(rig.step.global_step) == 6


# --- through Lightning


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "radam", "nadam", "muon"])
@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed", "32-true"])
def test_every_optimizer_trains_in_every_precision(optimizer: str, precision: str) -> None:
    config = tiny(
        f"optimizer={optimizer}", f"trainer.precision={precision}", "regularization=l2_weight_decay",
        "recalibrate_bn=true", "trainer.recalibration_images=32", "lr=1e-3",
    )  # fmt: skip
    summary = run(config)
    assert summary["status"] == "finished"
    assert summary["final_train_ce"] < 2.5  # ln(10) = 2.3 is chance; a broken scaler or device mix-up explodes


def test_a_float32_run_on_the_gpu_is_close_to_the_cpu() -> None:
    """Same plan, same weights: after one epoch of two steps the losses differ by rounding."""
    rows = []
    for accelerator in ("cpu", "cuda"):
        precision = ("trainer.precision=32-true", "trainer.tf32=false")
        config = tiny(f"study={accelerator}", f"trainer.accelerator={accelerator}", *precision)
        run(config)
        rows.append(read_rows(config.folder.metrics)[0])
    assert rows[1]["train/ce"] == pytest.approx(rows[0]["train/ce"], rel=1e-2)


def trained(*overrides: str) -> tuple[Config, list[dict[str, float]]]:
    config = tiny("batch_size=8", "epochs=4", "lr=1e-3", *overrides)
    assert run(config)["status"] == "finished"
    return config, read_rows(config.folder.metrics)


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed", "32-true"])
def test_a_run_of_either_engine_has_the_same_curve(precision: str) -> None:
    """Lightning lets cuDNN choose by timing, so this is looser: the first epoch to 2 %, all to 20 %."""
    more = (*CYCLING, f"trainer.precision={precision}")
    rows = [trained(*more, f"study={e}", f"engine={e}")[1] for e in ("eager", "graph")]
    curves = [[row["train/ce"] for row in found] for found in rows]
    assert curves[1][0] == pytest.approx(curves[0][0], rel=0.02)
    assert curves[1] == pytest.approx(curves[0], rel=0.2)
    assert [row["lr"] for row in rows[0]] == [row["lr"] for row in rows[1]]


@pytest.mark.parametrize("chunk", [1, 3, 50])
def test_lightning_counts_the_steps_of_a_graph(chunk: int) -> None:
    config, rows = trained("engine=graph", f"trainer.chunk={chunk}")
    assert len(rows) == 4
    assert read_checkpoint(config.folder.last)["global_step"] == 4 * 8


@pytest.mark.parametrize("engines", list(product(("graph", "eager"), repeat=2)), ids="-".join)
def test_a_stopped_run_goes_on_on_either_engine(engines: tuple[str, str]) -> None:
    more = ("batch_size=8", "epochs=4", "lr=1e-3", *CYCLING)
    whole = tiny(*more, "study=whole", f"engine={engines[1]}")
    run(whole)
    stop_after(tiny(*more, "study=broken", f"engine={engines[0]}"), epochs=2)
    broken = tiny(*more, "study=broken", f"engine={engines[1]}")
    run(broken)
    rows = [read_rows(config.folder.metrics) for config in (whole, broken)]
    assert len(rows[1]) == 4
    assert [row["train/ce"] for row in rows[1]] == pytest.approx([row["train/ce"] for row in rows[0]], rel=0.2)


def test_two_captured_runs_in_one_process_are_the_same_run() -> None:
    """The second's graph is recorded beside what is left of the first's."""
    curves = [[row["train/ce"] for row in trained("engine=graph", f"study={n}")[1]] for n in ("one", "two")]
    assert curves[1] == pytest.approx(curves[0], rel=0.05)


def test_a_gpus_generator_is_behind_a_run_what_it_was() -> None:
    torch.cuda.manual_seed(5)
    before = torch.cuda.get_rng_state()
    with preserve_process_state():
        assert torch.equal(torch.cuda.get_rng_state(), before)
        torch.cuda.manual_seed(9)
        assert not torch.equal(torch.cuda.get_rng_state(), before)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_runs_in_turn_have_streams_of_their_own_and_are_the_single_runs(
    sweep: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, whose draws are those of each run's generator. rel: cuDNN may search out other algorithms."""
    recipe = ("model=resnet56v1_concat", "model.depth=8", "epochs=2", "engine=graph")
    used: dict[int, set[int]] = {}
    found = {}
    original = InterleavedRun.turn

    def turn(interleaved: InterleavedRun, *error: Any) -> None:
        original(interleaved, *error)
        streams = [stream for function, *_, stream in interleaved.state if function is torch.cuda.set_stream]
        used.setdefault(interleaved.job.number, set()).update(stream.cuda_stream for stream in streams)

    monkeypatch.setattr(InterleavedRun, "turn", turn)
    for study, launcher in (("alone", ()), ("in_turn", ("hydra/launcher=one_process", "hydra.launcher.jobs=3"))):
        assert sweep(*recipe, f"study={study}", "wd=0.1,0.2,0.3", *launcher)[0] == 0
        folders = [tiny(*recipe, f"study={study}", f"wd={wd}").folder for wd in (0.1, 0.2, 0.3)]
        found[study] = [row["train/ce"] for folder in folders for row in read_rows(folder.metrics)]
    own = [streams - {torch.cuda.default_stream().cuda_stream} for streams in used.values()]
    assert [len(streams) for streams in own] == [1, 1, 1]
    assert len(set.union(*own)) == 3
    assert found["in_turn"] == pytest.approx(found["alone"], rel=0.05)


def test_what_cannot_be_captured_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    trained("optimizer=muon", "engine=graph", "trainer.progress=lines")
    assert capsys.readouterr().out.count("engine=eager, because torch's muon") == 1


def test_a_compiled_run_has_the_curve_of_the_plain_one() -> None:
    engines = {
        "eager": ["engine=eager"],
        "compile": ["engine=compile"],
        "both": ["engine=graph", "trainer.compile=true"],
    }
    found = {name: trained(*CYCLING, f"study={name}", *more) for name, more in engines.items()}
    manifest = json.loads(found["both"][0].folder.manifest.read_text())
    assert manifest["engine"] == "graph + compile"
    for _, rows in found.values():
        assert rows[0]["train/ce"] == pytest.approx(found["eager"][1][0]["train/ce"], rel=0.05)


@pytest.mark.parametrize("half", [True, False], ids=["16-mixed", "32-true"])
def test_a_graph_of_compiled_kernels_replays_them(half: bool) -> None:
    """Inductor's kernels in a recording of our own; not compiled, it is the same step but for rounding."""
    config, scale = tiny(*HUNDRED, *CYCLING), 1024.0 if half else None
    plain, compiled = (Rig(config, "cuda", engine, scale, half).train(24) for engine in ("graph", "graph compiled"))
    assert_close(compiled, plain, first=10, rel=2e-3 if half else 1e-4)


def test_a_run_tells_its_energy_power_and_load() -> None:
    """359 eager steps an epoch, each of some 5 ms: the GPU's counter moves ten times a second or so."""
    config = tiny("data.limit=null", "batch_size=4", "epochs=2", "engine=eager")
    summary = run(config)
    rows = read_rows(config.folder.metrics)
    assert json.loads(config.folder.manifest.read_text())["energy_source"] == "counter"
    assert all(row["power/joules"] > 0 for row in rows)
    assert all(0 <= row["power/gpu_load"] <= 100 for row in rows)
    assert summary["energy_wh"] == pytest.approx(sum(row["power/joules"] for row in rows) / 3600)
    assert 10 <= summary["power_w"] <= 2000
    assert 0 <= summary["gpu_load"] <= 100
    power, seconds = summary["power_w"], sum(row["time/epoch"] for row in rows)
    assert 3600 * summary["energy_wh"] == pytest.approx(power * seconds)
