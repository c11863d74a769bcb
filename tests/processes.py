"""Real processes of train.py, for what only they can show."""

import os
import subprocess
import sys
from pathlib import Path

from conftest import TINY

TRAIN = Path(__file__).parents[1] / "train.py"


def command(*overrides: str) -> list[str]:
    """train.py, under torchrun if there is a trainer.devices."""
    devices = [override.split("=")[1] for override in overrides if override.startswith("trainer.devices=")]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices[-1]}"] if devices else []
    return [sys.executable, *launcher, str(TRAIN), *overrides]


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "", **extra}


def train(*overrides: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Runs train.py in the current folder with the tiny defaults first."""
    return subprocess.run(
        command(*TINY, *overrides), capture_output=True, text=True, env=environment(**extra), timeout=300
    )
