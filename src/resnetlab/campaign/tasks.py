"""What a campaign does beside training: the bench table and the tests that need a GPU, each a process of its own."""

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from resnetlab.campaign.child import LAB, PYTEST, begin, end
from resnetlab.campaign.clock import Clock
from resnetlab.campaign.listing import Task
from resnetlab.console import say

__all__ = ["done", "perform", "perform_all"]

LEAST_PART = 0.5  # of a task's seconds: a bench of less measures little, and is not made again


def files(task: Task, out: Path) -> tuple[Path, Path]:
    """(what it says, what it leaves)."""
    log = out / f"{task.name}.log"
    return log, out / "bench.json" if task.name == "bench" else out / "gpu-tests.txt"


def done(task: Task, out: Path) -> bool:
    """The bench writes its file after every round already, but how long it took only at its end."""
    try:
        text = files(task, out)[1].read_text()
        return task.name != "bench" or "seconds" in json.loads(text)
    except (OSError, ValueError):
        return False


def command(task: Task, result: Path, seconds: float) -> tuple[str, list[str]] | str:
    """(the code, its arguments), or why there is none."""
    if task.name == "bench":
        return LAB, ["bench", "--budget", f"{0.9 * min(seconds, task.seconds):.0f}", "--out", str(result)]
    if not torch.cuda.is_available():
        return "torch sees no CUDA device here"
    if not Path("tests").is_dir():
        return "there is no folder tests here"
    return PYTEST, ["-q", "-m", "gpu", "tests"]


def perform(task: Task, out: Path, seconds: float) -> str:
    """Runs the task for at most `seconds`; done | failed | cut | skipped. What fails or is cut is tried again."""
    log, result = files(task, out)
    line = command(task, result, seconds)
    if isinstance(line, str):
        say(f"{task.name}: skipped, {line}")
        return "skipped"
    began = time.monotonic()
    process = begin(*line, log)
    try:
        status = process.wait(max(0.1, min(seconds, 1.2 * task.seconds + 60)))
    except subprocess.TimeoutExpired:
        status = None
    finally:
        end(process)
    if status == 0 and task.name == "gpu-tests":
        log.replace(result)
    what = "cut" if status is None else "failed" if status else "done"
    say(f"{task.name}: {what} after {time.monotonic() - began:.0f} s{f'; see {log}' if status != 0 else ''}")
    return what


def perform_all(tasks: Sequence[Task], out: Path, clock: Clock) -> list[str]:
    """Performs what is not done, if half of its seconds are left at least; the names of what failed."""
    failed = []
    for task in tasks:
        if done(task, out):
            continue
        if clock.left < (least := LEAST_PART * task.seconds):
            say(f"{task.name}: not begun; it wants {least:.0f} s at least, and {max(0.0, clock.left):.0f} s are left")
        elif perform(task, out, clock.left) == "failed":
            failed.append(task.name)
    return failed
