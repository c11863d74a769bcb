"""SIGKILL in the middle of an epoch, the same command again: to the bit as if nothing had happened."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from conftest import TINY
from processes import command, environment, train
from resnetlab.callbacks.checkpoints import read_checkpoint
from resnetlab.files import read_rows
from test_run import deterministic

# 640 images in 80 steps an epoch: long enough to be caught in the middle of an epoch
LONG = ("data.limit=640", "batch_size=8", "epochs=3", "schedule=one_cycle", "recalibrate_bn=true", "wd=0.05")


def heed_interrupts() -> None:
    """A shell that runs the tests in the background makes all below it ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def stop_in_the_middle_of_an_epoch(rows: int, stop: signal.Signals, status: int) -> None:
    """Starts the run, waits until metrics.csv holds `rows` rows and a moment more, and sends it the signal."""
    with open("log", "w") as log:
        arguments = command(*TINY, *LONG, "trainer.progress=lines")
        process = subprocess.Popen(arguments, env=environment(), stdout=log, stderr=log, preexec_fn=heed_interrupts)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        found = list(Path("outputs").rglob("metrics.csv"))
        if found and len(read_rows(found[0])) >= rows and list(Path("outputs").rglob("last.ckpt")):
            break
        assert process.poll() is None, Path("log").read_text()
        time.sleep(0.05)
    time.sleep(0.4)
    assert process.poll() is None, "the run ended before it could be killed"
    os.kill(process.pid, stop)
    assert process.wait(60) == status
    assert not list(Path("outputs").rglob("summary.json"))


def test_a_killed_run_equals_an_undisturbed_one(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for name in ("undisturbed", "killed"):
        (empty_folder / name).mkdir()
        monkeypatch.chdir(empty_folder / name)
        if name == "killed":
            stop_in_the_middle_of_an_epoch(1, signal.SIGKILL, -signal.SIGKILL)
            stop_in_the_middle_of_an_epoch(2, signal.SIGKILL, -signal.SIGKILL)
        done = train(*LONG, "trainer.progress=lines")
        assert done.returncode == 0, done.stderr
        assert ("resuming after epoch" in done.stdout) == (name == "killed")
        (summary,) = Path("outputs").rglob("summary.json")
        results.append(summary.parent.absolute())
    assert results[0] != results[1]
    rows = [deterministic(read_rows(folder / "metrics.csv")) for folder in results]
    assert rows[0] == rows[1]
    for checkpoint in ("last.ckpt", "best.ckpt"):
        weights = [read_checkpoint(folder / "checkpoints" / checkpoint)["state_dict"] for folder in results]
        assert weights[0].keys() == weights[1].keys()
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not list(results[1].rglob("*.part"))


@pytest.mark.parametrize(
    ("stop", "status"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_an_interrupted_run_says_what_is_kept_and_its_status_tells(stop: signal.Signals, status: int) -> None:
    stop_in_the_middle_of_an_epoch(1, stop, status)
    said = Path("log").read_text()
    assert "interrupted; epochs kept: 1; the same command goes on from there" in said
    assert "Traceback" not in said
