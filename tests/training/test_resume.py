"""SIGKILL in the middle of an epoch, the same command again: to the bit as if nothing had happened."""

import ctypes
import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from conftest import TINY, rows_of
from processes import command, environment
from resnetlab import compose, run
from resnetlab.runs.files import read_rows
from resnetlab.runs.layout import RunFolder
from resnetlab.training.callbacks.checkpoints import read_checkpoint

# 640 images in 80 steps an epoch: long enough to be caught in the middle of an epoch
LONG = (
    *("data.limit=640", "batch_size=8", "epochs=3", "schedule=one_cycle", "recalibrate_bn=true", "wd=0.05"),
    "logger=tensorboard",
)


def heed_interrupts() -> None:
    """A shell that runs the tests in the background makes all below it ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start_and_wait(rows: int, overrides: Sequence[str] = LONG) -> "subprocess.Popen[bytes]":
    """Starts the run, and waits until metrics.csv holds `rows` rows and a moment more; what it says is in log."""
    with open("log", "w") as log:
        arguments = command(*TINY, *overrides, "trainer.progress=lines")
        process = subprocess.Popen(arguments, env=environment(), stdout=log, stderr=log, preexec_fn=heed_interrupts)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        found = list(Path("outputs").rglob("metrics.csv"))
        if found and len(read_rows(found[0])) >= rows and list(Path("outputs").rglob("last.ckpt")):
            break
        assert process.poll() is None, Path("log").read_text()
        time.sleep(0.05)
    time.sleep(0.4)
    assert process.poll() is None, "the run ended before it could be disturbed"
    return process


def stop_in_the_middle_of_an_epoch(rows: int, stop: signal.Signals, status: int) -> None:
    """Starts the run, waits for `rows` rows, and sends it the signal."""
    process = start_and_wait(rows)
    os.kill(process.pid, stop)
    assert process.wait(60) == status
    assert not list(Path("outputs").rglob("summary.json"))


def interrupt(rows: int, stop: signal.Signals, status: int) -> None:
    """Sends the run a signal that it answers."""
    stop_in_the_middle_of_an_epoch(rows, stop, status)
    said, (metrics,) = Path("log").read_text(), Path("outputs").rglob("metrics.csv")
    assert f"interrupted; epochs kept: {len(read_rows(metrics))}; the same command goes on from there" in said
    assert "Traceback" not in said


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The same run, in one piece."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("undisturbed"))
        config = compose(*TINY, *LONG)
        run(config)
        return RunFolder(config.folder.path.absolute())


def test_an_interrupted_and_killed_run_equals_an_undisturbed_one(
    undisturbed: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt(1, signal.SIGINT, 130)
    stop_in_the_middle_of_an_epoch(2, signal.SIGKILL, -signal.SIGKILL)
    run(compose(*TINY, *LONG, "trainer.progress=lines"))
    assert re.search(r"resuming after epoch [12] from", capsys.readouterr().out)
    folders = [undisturbed, compose(*TINY, *LONG).folder]
    assert rows_of(folders[1]) == rows_of(undisturbed)
    for name in ("last", "best"):
        weights = [read_checkpoint(getattr(folder, name))["state_dict"] for folder in folders]
        assert weights[0].keys() == weights[1].keys()
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not list(folders[1].path.rglob("*.part"))


@pytest.mark.slow
def test_a_terminated_run_says_what_is_kept_and_its_status_tells() -> None:
    interrupt(1, signal.SIGTERM, 143)


@pytest.mark.slow
def test_a_disk_that_fills_up_is_one_line_and_costs_nothing(
    undisturbed: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit on the size of files stands in for the disk: no checkpoint fits in, while it trains."""
    process = start_and_wait(1)
    (folder,) = (path.parent.absolute() for path in Path("outputs").rglob("metrics.csv"))
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
    assert process.wait(60) == 1
    errors = [line for line in Path("log").read_text().splitlines() if "rror" in line]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert "is the disk full?" in errors[0]
    assert "Traceback" not in Path("log").read_text()
    assert not list(folder.rglob("*.part"))
    kept = len(read_checkpoint(folder / "checkpoints" / "last.ckpt")["callbacks"]["Recorder"]["rows"])
    run(compose(*TINY, *LONG, "trainer.progress=lines"))
    assert f"resuming after epoch {kept} from" in capsys.readouterr().out
    rows = rows_of(RunFolder(folder))
    assert len(rows) == 3
    assert rows == rows_of(undisturbed)


def without_roots_privilege() -> None:
    """Modes of files count for root too, in a process that may not regain CAP_DAC_OVERRIDE."""
    ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP


def test_a_folder_that_may_not_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir(mode=0o555)
    done = subprocess.run(
        command(*TINY, "epochs=1"), capture_output=True, text=True, env=environment(),
        preexec_fn=without_roots_privilege, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "outputs" in done.stderr
    assert "ermission" in done.stderr
    assert not list((tmp_path / "outputs").iterdir())
