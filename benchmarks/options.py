"""What the bench is asked to measure; wrong requests are refused before anything is started."""

import argparse
import os
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from resnetlab.config.compose import compose
from resnetlab.config.schema import Config
from resnetlab.errors import LIMITS, ConfigError

GRAPHS = ("lab_graph", "lab_graph_compile")
NAMES = ("keras", "torch_loop", "lightning_plain", "bare", "lab_eager", "lab_compile", *GRAPHS)
SIZES = (64, 32, 128, 512)
HAS_KERAS = "import sys; from importlib.util import find_spec as f; sys.exit(not (f('keras') and f('tensorflow')))"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
DEFAULT_WORKERS = max(2, min(8, CORES))  # of a DataLoader: two, as is usual, or more where there are cores for them


@dataclass(frozen=True)
class Setting:
    """One table: everybody at one batch size and precision."""

    batch_size: int
    precision: str

    def matches(self, entry: dict[str, Any]) -> bool:
        return (entry["batch_size"], entry["precision"]) == (self.batch_size, self.precision)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raises ConfigError: one line, "--rounds (=0) must be in 1..100"."""
        raise ConfigError(message.removeprefix("argument ").replace(": (=", " (="))


def number(kind: type, least: float, most: float) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        with suppress(ValueError):
            if least <= (value := kind(text)) <= most:
                return value
        raise argparse.ArgumentTypeError(f"(={text}) must be a number in {least:g}..{most:,}")

    return parse


def one_of(choices: Sequence[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"(={text}) must be of {', '.join(choices)}")
        return text

    return parse


def several(parse: Callable[[str], Any], least: int = 1) -> Callable[[str], tuple[Any, ...]]:
    """Each value once: (64, 32) of "64,32,64"."""

    def parse_all(text: str) -> tuple[Any, ...]:
        values = tuple(dict.fromkeys(parse(part.strip()) for part in text.split(",") if part.strip()))
        if len(values) < least:
            raise argparse.ArgumentTypeError("(=) must name one at least; leave it out for the default")
        return values

    return parse_all


def parser() -> Parser:
    found = Parser("python -m benchmarks", description="The lab's step against others' and the machine, in turn.")
    add = found.add_argument
    precisions = [precision for precision in LIMITS["trainer"]["precision"]["one_of"] if precision != "auto"]
    add("--names", type=several(one_of(NAMES)), metavar="A,B", help=f"of {', '.join(NAMES)}")
    sizes = "the first has twice the time (default: 64,32,128, on a GPU 512 too)"
    add("--batch-sizes", type=several(number(int, 2, 65_536)), metavar="N,M", help=sizes)
    usual = f"of {', '.join(precisions)} (default: 32-true, on a GPU after 16-mixed)"
    add("--precisions", type=several(one_of(precisions)), metavar="A,B", help=usual)
    add("--model", default="resnet56v2")
    add("--rounds", type=number(int, 1, 100_000), default=12, help="at most, at each batch size (default: 12)")
    add("--seconds-per-turn", type=number(float, 0.01, 3_600), metavar="S", help="default: 5, on a GPU 2")
    add("--budget", type=number(float, 1, 10**6), default=660.0, metavar="S", help="seconds in all (default: 660)")
    at_once = "processes of the lab at once; empty for none"
    add("--concurrent", type=several(number(int, 1, 256), least=0), metavar="N,M", help=at_once)
    add("--keras-python", metavar="PATH", help="a Python that has keras and tensorflow")
    add("--images", type=number(int, 2, 50_000), default=50_000, metavar="N", help="of training (default: 50000)")
    workers = f"of the others' DataLoader (default: the cores, 2 to 8; here {DEFAULT_WORKERS})"
    add("--workers", type=number(int, 0, 256), default=DEFAULT_WORKERS, metavar="N", help=workers)
    add("--out", type=Path, metavar="FILE", help="default: results/bench/<device>/bench.json")
    return found


class Options(argparse.Namespace):
    """The command line, and what the machine can where it says nothing (None)."""

    names: tuple[str, ...] | None
    batch_sizes: tuple[int, ...] | None
    precisions: tuple[str, ...] | None
    concurrent: tuple[int, ...] | None
    seconds_per_turn: float | None
    model: str
    rounds: int
    budget: float
    keras_python: str | None
    images: int
    workers: int
    out: Path | None

    @classmethod
    def from_command_line(cls, argv: Sequence[str] | None = None) -> "Options":
        """Raises ConfigError, naming the option, the value and the cure."""
        options = parser().parse_args(argv, cls())
        options.check()
        return options

    def check(self) -> None:
        if self.images < (least := 2 * max(self.sizes)):
            raise ConfigError(f"--images (={self.images}) must be a number in {least}..50,000")
        if self.device == "cpu" and (graphs := [name for name in GRAPHS if name in (self.names or ())]):
            raise ConfigError(f"--names (={graphs[0]}) needs a CUDA device, and torch sees none; leave it out")
        if self.device == "cpu" and "16-mixed" in (self.precisions or ()):
            raise ConfigError("--precisions (=16-mixed) needs a CUDA device; on the cpu take 32-true or bf16-mixed")
        if self.keras_python is not None and self.why_no_keras is not None:
            raise ConfigError(f"--keras-python (={self.keras_python}) must be a Python that has keras and tensorflow")
        if "keras" in (self.names or ()) and self.why_no_keras is not None:
            raise ConfigError(f"--names (=keras): {self.why_no_keras}")
        if self.out is not None:
            check_writable(self.out)

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
        return (2.0 if self.device == "cuda" else 5.0) if self.seconds_per_turn is None else self.seconds_per_turn

    @property
    def counts(self) -> tuple[int, ...]:
        """How many runs at once."""
        usual = (1, 2, 4, 8) if self.device == "cuda" else (1, 2)
        return usual if self.concurrent is None else self.concurrent

    def expected(self, setting: Setting) -> tuple[list[str], dict[str, str]]:
        """(the rows that the setting can have, {name: why not}); a row that nobody asked for is not missed.

        bare steps in the process of lab_eager, so that one comes with it.
        """
        why_not = {"keras": self.why_no_keras} if self.why_no_keras else {}
        if self.device == "cpu":
            why_not |= dict.fromkeys(GRAPHS, "a CUDA graph needs a CUDA device")
        if setting.batch_size != self.sizes[0]:
            why = f"compiled anew for each size, so at the first one (={self.sizes[0]}) only"
            why_not |= dict.fromkeys(("lab_compile", "lab_graph_compile"), why)
        names = NAMES if self.names is None else {*self.names, *(["lab_eager"] if "bare" in self.names else [])}
        asked = [name for name in NAMES if name in names]
        return [n for n in asked if n not in why_not], {n: why for n, why in why_not.items() if n in asked}


def check_writable(out: Path) -> None:
    """Raises ConfigError where no such file can be written."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out (={out}): {error.strerror}") from None
    if out.is_dir() or not os.access(out if out.exists() else out.parent, os.W_OK):
        raise ConfigError(f"--out (={out}): not a file that may be written")
