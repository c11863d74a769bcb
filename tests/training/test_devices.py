"""One run on two devices: two processes on the CPU, connected by gloo, against one process."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from test_resume import start_and_wait
from test_sweeps_killed import children_of, gone, wait_for

from conftest import TINY, rows_of, tiny
from processes import train
from resnetlab import build, run
from resnetlab.cli import train_main as main
from resnetlab.config.overrides import compose_jobs
from resnetlab.data import derive_seed
from resnetlab.errors import ConfigError
from resnetlab.runs.layout import RunFolder
from resnetlab.sweeps.launchers import check_jobs
from resnetlab.training.callbacks.energy import combine_gpus
from resnetlab.training.engine.step import DeviceBatches
from resnetlab.training.evaluate import evaluate_checkpoint
from resnetlab.training.run import run_lock

# 60 images in batches of 25, 25 and 10: shares of 13 and 12, so a plain mean over the ranks would be wrong
UNEVEN = ("batch_size=25", "epochs=2", "optimizer=sgd", "schedule=cosine", "lr=0.01", "model.norm=group")

# sitecustomize: logs every file below outputs that any process opens for writing, and the process's rank
AUDIT = """
import os, sys
def audit(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        path, flags = os.fsdecode(arguments[0]), arguments[2]
        if "outputs" in path and flags & (os.O_WRONLY | os.O_RDWR):
            os.write(log, f"{os.environ.get('RANK', '-')} {path}\\n".encode())
log = os.open("opened", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
sys.addaudithook(audit)
"""


def folder_of(*overrides: str) -> RunFolder:
    return tiny(*UNEVEN, *overrides).folder


def succeed(*overrides: str, **extra: str) -> None:
    done = train(*overrides, **extra)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("devices", [2, 3])
def test_the_shares_of_a_batch_are_the_batch(devices: int) -> None:
    _, data, _ = build(tiny(*UNEVEN))
    cpu = torch.device("cpu")
    whole = list(data.batches(1, cpu))
    shares = [DeviceBatches(data, cpu, (rank, devices)) for rank in range(devices)]
    for index, (x, y) in enumerate(whole):
        assert len(y) == data.batch_images(index)
        for rank in range(devices):
            shares[rank].position.fill_(index * data.batch_size)
            images, labels = shares[rank].batch(len(y))
            torch.testing.assert_close(images, x[rank::devices], rtol=0, atol=0)
            assert labels.tolist() == y[rank::devices].tolist()


def test_the_validation_images_are_shared_out_once() -> None:
    _, data, _ = build(tiny("data.limit=250", "data.eval_batch_size=16"))
    parts = [data.eval_batches(data.val, torch.device("cpu"), (rank, 3)) for rank in range(3)]
    seen = torch.cat([x.flatten(1) for part in parts for x, _ in part])
    everything = torch.cat([x.flatten(1) for x, _ in data.eval_batches(data.val, torch.device("cpu"))])
    assert sorted(seen.tolist()) == sorted(everything.tolist())
    assert len(seen) == len(data.val) == 50


def test_two_devices_equal_one_and_only_the_first_writes() -> None:
    Path("sitecustomize.py").write_text(AUDIT)
    path = os.pathsep.join([str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])])
    succeed(*UNEVEN, "logger=tensorboard", "trainer.devices=2", PYTHONPATH=path)
    run(tiny(*UNEVEN))
    ours, alone = rows_of(folder_of("trainer.devices=2")), rows_of(folder_of())
    assert len(ours) == len(alone) == 2
    for a, b in zip(ours, alone, strict=True):
        assert a == pytest.approx(b, rel=1e-6, abs=1e-6)
    opened = Path("opened").read_text().splitlines()
    assert {line.split()[0] for line in opened} == {"0"}, "a second writer"
    assert any("metrics.csv" in line for line in opened)
    assert any("events.out" in line for line in opened)


@pytest.mark.slow
def test_sam_on_two_devices_equals_one() -> None:
    overrides = (*UNEVEN, "optimizer.sam=0.2")
    succeed(*overrides, "trainer.devices=2")
    run(tiny(*overrides))
    ours, alone = (rows_of(tiny(*overrides, *more)) for more in (["trainer.devices=2"], []))
    assert len(ours) == len(alone) == 2
    for a, b in zip(ours, alone, strict=True):
        assert a == pytest.approx(b, rel=1e-6, abs=1e-6)  # as without it


@pytest.mark.slow
def test_a_batch_norm_is_validated_with_the_statistics_that_are_saved() -> None:
    overrides = (*UNEVEN, "model.norm=batch", "model.bn_momentum=0.5", "trainer.devices=2")
    succeed(*overrides)
    folder = tiny(*overrides).folder
    again = evaluate_checkpoint(folder.last)
    # the same images and weights in other batches: rounding of float32
    assert rows_of(folder)[-1]["val/ce"] == pytest.approx(again["ce"], rel=1e-6)


@pytest.mark.slow
def test_divergence_is_the_same_result() -> None:
    succeed(*UNEVEN, "lr=1e30", "trainer.devices=2")
    ours = json.loads(tiny(*UNEVEN, "lr=1e30", "trainer.devices=2").folder.summary.read_text())
    alone = run(tiny(*UNEVEN, "lr=1e30"))
    keys = ("status", "diverged_quantity", "diverged_epoch", "diverged_step", "epochs_trained")
    assert {key: ours[key] for key in keys} == {key: alone[key] for key in keys}


LONG = ("data.limit=640", "batch_size=16", "epochs=3", "schedule=one_cycle", "trainer.devices=2")


def workers(torchrun: int) -> list[int]:
    """The training processes below torchrun, in the order of their ranks."""

    def rank(pid: int) -> int:
        values = Path(f"/proc/{pid}/environ").read_text().split("\0")
        return next(int(value[5:]) for value in values if value.startswith("RANK="))

    return sorted(children_of(torchrun), key=rank)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others_and_costs_nothing(
    victim: int, empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    for name in ("undisturbed", "killed"):
        (empty_folder / name).mkdir()
        monkeypatch.chdir(empty_folder / name)
        if name == "killed":
            process = start_and_wait(1, LONG)
            pids = workers(process.pid)
            os.kill(pids[victim], signal.SIGKILL)
            assert process.wait(60) != 0
            assert all(gone(pid) for pid in pids)
            assert victim == 0 or "error: another process of the run has ended" in Path("log").read_text()
        succeed(*LONG)
        rows.append(rows_of(tiny(*LONG)))
    assert rows[0] == rows[1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_torchrun_ends_all(number: signal.Signals) -> None:
    process = start_and_wait(1, LONG)
    pids = workers(process.pid)
    os.kill(process.pid, number)
    assert process.wait(60) != 0
    wait_for(lambda: all(gone(pid) for pid in pids))
    log = Path("log").read_text()
    assert log.count("interrupted; epochs kept") == 1
    assert 'train.py", line' not in log, "a traceback of train.py"


@pytest.mark.slow
def test_what_the_first_process_cannot_begin_ends_both_with_one_line() -> None:
    with run_lock(folder_of("trainer.devices=2")):
        done = train(*UNEVEN, "trainer.devices=2")
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if "error: " in line] == [
        f"error: {folder_of('trainer.devices=2').path} is being trained by another process; wait for it or stop it"
    ]


def test_without_torchrun_its_command_is_said() -> None:
    command = "torchrun --standalone --nproc-per-node=2 -m resnetlab train ... trainer.devices=2"
    with pytest.raises(ConfigError, match=rf"trainer.devices \(=2\) needs a process for each device: {command}"):
        run(tiny(*UNEVEN, "trainer.devices=2"))


def test_torchruns_processes_are_as_many_as_the_devices(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And all but the first are silent."""
    for key, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "3", "RANK": "1"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ConfigError, match=r"trainer.devices \(=2\) must be 3, the processes that torchrun has started"):
        run(tiny(*UNEVEN, "trainer.devices=2"))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    assert main([*TINY, "trainer.devices=2"]) == 2
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (
            "data.limit=10 batch_size=10 trainer.devices=3",
            r"trainer.devices \(=3\) must be at most the 2 validation images",
        ),
        ("data.limit=61 batch_size=20 trainer.devices=2", "a last batch of 1 of 61 images, 0 for one of the 2 devices"),
    ],
)
def test_an_image_for_each_device_there_must_be(overrides: str, wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted):
        tiny(*overrides.split())


def test_a_sweep_of_runs_on_several_devices_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainer.devices \(=2\) must be 1 with -m"):
        check_jobs([c for _, c in compose_jobs([*TINY, "trainer.devices=1,2"], multirun=True)], "basic")


def test_energy_of_several_gpus_is_summed() -> None:
    gpus = [{"power/joules": 3.0, "power/gpu_load": 50.0}, {"power/joules": 4.0, "power/gpu_load": 70.0}]
    assert combine_gpus(gpus) == {"power/joules": 7.0, "power/gpu_load": 60.0}
    assert combine_gpus([gpus[0], {"power/gpu_load": 70.0}]) == {"power/gpu_load": 60.0}
    assert combine_gpus([{}]) == {}


def test_ranks_draw_their_own_dropout() -> None:
    assert derive_seed(3, 5) == derive_seed(3, 5, 0)
    assert len({derive_seed(3, 5, rank) for rank in range(4)}) == 4
