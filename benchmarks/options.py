"""What `resnetlab bench` is asked to measure; wrong requests are refused before anything is started."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from resnetlab.config import Config, compose
from resnetlab.errors import ConfigError
from resnetlab.trainer import PRECISIONS

__all__ = ["NAMES", "SIZES", "Options", "Setting", "names", "numbers", "writable"]

NAMES = ("keras", "torch_loop", "lightning_plain", "bare", "lab_eager", "lab_compile", "lab_graph")
SIZES = (64, 32, 128, 512)
HAS_KERAS = "import sys; from importlib.util import find_spec as f; sys.exit(not (f('keras') and f('tensorflow')))"


@dataclass(frozen=True)
class Setting:
    """One table: everybody at one batch size and precision."""

    batch_size: int
    precision: str


@dataclass
class Options:
    """None: what the machine can. seconds: of a turn, None for 5, or 2 on a GPU. budget: seconds for everything."""

    model: str = "resnet56v2"
    names: tuple[str, ...] | None = None
    batch_sizes: tuple[int, ...] | None = None
    precisions: tuple[str, ...] | None = None
    rounds: int = 12
    seconds: float | None = None
    budget: float = 660.0
    concurrent: tuple[int, ...] | None = None
    keras_python: str | None = None
    images: int = 50_000
    workers: int | None = None
    out: Path | None = None

    def check(self) -> None:
        """Raises ConfigError, naming the option, the value and the cure."""
        lists = {"--names": self.names, "--batch-sizes": self.batch_sizes, "--precisions": self.precisions}
        for option, asked in lists.items():
            if asked == ():
                raise ConfigError(f"{option} (=) must name one at least; leave it out for the default")
        _among("--names", self.names, NAMES)
        _among("--precisions", self.precisions, [p for p in PRECISIONS if p != "auto"])
        for name, values, least, most in (
            ("--batch-sizes", self.batch_sizes or (), 2, 65_536),
            ("--concurrent", self.concurrent or (), 1, 256),
            ("--rounds", (self.rounds,), 1, 100_000),
            ("--seconds-per-turn", (self.turn_seconds,), 0.01, 3_600),
            ("--budget", (self.budget,), 1, 10**6),
            ("--workers", (self.worker_count,), 0, 256),
            ("--images", (self.images,), 2 * max(self.sizes), 50_000),
        ):
            for value in values:
                if not least <= value <= most:
                    raise ConfigError(f"{name} (={value:g}) must be in {least:g}..{most:,}")
        self.check_device()
        self.check_keras()
        if self.out is not None:
            writable(self.out)

    def check_device(self) -> None:
        if self.device == "cuda":
            return
        if "lab_graph" in (self.names or ()):
            raise ConfigError("--names (=lab_graph) needs a CUDA device, and torch sees none; leave it out")
        if "16-mixed" in (self.precisions or ()):
            raise ConfigError("--precisions (=16-mixed) needs a CUDA device; on the cpu take 32-true or bf16-mixed")

    def check_keras(self) -> None:
        if self.keras_python is not None and self.why_no_keras is not None:
            raise ConfigError(f"--keras-python (={self.keras_python}) must be a Python that has keras and tensorflow")
        if "keras" in (self.names or ()) and (reason := self.why_no_keras) is not None:
            raise ConfigError(f"--names (=keras): {reason}")

    @cached_property
    def why_no_keras(self) -> str | None:
        """Why there can be no row for Keras, or None."""
        if not self.model.startswith("resnet") or not self.model.endswith("v2"):
            return f"the series' Keras code has no {self.model}"
        if self.keras_python is None:
            found = find_spec("keras") and find_spec("tensorflow")
            cure = "no TensorFlow here; pip install 'resnetlab[bench]', or --keras-python PATH of a Python that has it"
            return None if found else cure
        try:
            done = subprocess.run([self.keras_python, "-c", HAS_KERAS], capture_output=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return f"{self.keras_python} cannot be run"
        return f"{self.keras_python} has no keras or no tensorflow" if done.returncode else None

    @cached_property
    def config(self) -> Config:
        return compose(f"model={self.model}", "schedule=constant")

    @cached_property
    def device(self) -> str:
        return self.config.trainer.resolved_accelerator

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.batch_sizes or (SIZES if self.device == "cuda" else SIZES[:3])

    @property
    def settings(self) -> list[Setting]:
        """The first is the main one, and has twice the time of each other; all sizes of its precision come first."""
        usual = ("16-mixed", "32-true") if self.device == "cuda" else ("32-true",)
        return [Setting(size, precision) for precision in self.precisions or usual for size in self.sizes]

    @property
    def turn_seconds(self) -> float:
        return (2.0 if self.device == "cuda" else 5.0) if self.seconds is None else self.seconds

    @property
    def counts(self) -> tuple[int, ...]:
        """How many runs at once."""
        usual = (1, 2, 4, 8) if self.device == "cuda" else (1, 2)
        return usual if self.concurrent is None else self.concurrent

    @property
    def worker_count(self) -> int:
        """A DataLoader's processes: two, as everybody has it, or more where there are cores for them."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
        return max(2, min(8, cores)) if self.workers is None else self.workers

    @property
    def keras(self) -> str:
        return self.keras_python or sys.executable


def numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    """(64, 128) of "64,128,64". Raises ConfigError."""
    if text is None:
        return None
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",") if part.strip()))
    except ValueError:
        raise ConfigError(f"{option} (={text}) must be whole numbers with commas between them, such as 1,2") from None


def names(text: str | None) -> tuple[str, ...] | None:
    """("a", "b") of "a,b,a"."""
    return None if text is None else tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def writable(out: Path) -> None:
    """Raises ConfigError where no such file can be written."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.is_dir() or not os.access(out if out.exists() else out.parent, os.W_OK):
            raise PermissionError(errno.EACCES, "not a file that may be written")
    except OSError as error:
        raise ConfigError(f"--out (={out}): {error.strerror}") from None


def _among(option: str, values: Iterable[str] | None, choices: Iterable[str]) -> None:
    for value in values if values is not None else ():
        if value not in tuple(choices):
            raise ConfigError(f"{option} (={value}) must be of {', '.join(choices)}")
