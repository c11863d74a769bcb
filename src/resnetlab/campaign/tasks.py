"""What a campaign does beside training: the bench table and the tests that need a GPU, each a process of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from resnetlab.campaign.listing import Task
from resnetlab.speech import speak

__all__ = ["LAB", "done", "environment", "perform"]

LAB = [sys.executable, "-c", "import sys; from resnetlab.cli import main; sys.exit(main())"]


def files(task: Task, out: Path) -> tuple[Path, Path]:
    """(what it says, what says that it is done)."""
    log = out / f"{task.name}.log"
    return log, out / "bench.json" if task.name == "bench" else out / "gpu-tests.txt"


def done(task: Task, out: Path) -> bool:
    return files(task, out)[1].exists()


def command(task: Task, result: Path, seconds: float) -> list[str] | str:
    """The command line, or why there is none."""
    if task.name == "bench":
        return [*LAB, "bench", "--budget", f"{0.9 * min(seconds, task.seconds):.0f}", "--out", str(result)]
    if not torch.cuda.is_available():
        return "torch sees no CUDA device here"
    if not Path("tests").is_dir():
        return "there is no folder tests here"
    return [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"]


def perform(task: Task, out: Path, seconds: float) -> str:
    """Runs the task for at most `seconds`; done | failed | cut | skipped. What fails or is cut is tried again."""
    log, result = files(task, out)
    line = command(task, result, seconds)
    if isinstance(line, str):
        speak(f"{task.name}: skipped, {line}")
        return "skipped"
    began = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(
            line, stdout=file, stderr=subprocess.STDOUT, env=environment(), start_new_session=True
        )
        try:
            status = process.wait(max(0.1, min(seconds, 1.2 * task.seconds + 60)))
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if status == 0 and task.name == "gpu-tests":
        log.replace(result)
    what = "cut" if status is None else "failed" if status else "done"
    speak(f"{task.name}: {what} after {time.monotonic() - began:.0f} s{f'; see {log}' if status != 0 else ''}")
    return what


def environment() -> dict[str, str]:
    """For a process that finds the packages that this one has found."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(place or os.getcwd() for place in sys.path)}
