"""What a peer is told, and how it answers: one JSON object a line, orders on stdin, answers on what was stdout.

An order is {"steps": n} or {"seconds": s}: train until so many steps are done, or so long. The answer is
{"grains": {name: [[images, seconds], ...]}, "losses": {name: x}, "peak_mib": {name: x}, "between_epochs": [s, ...]}.
Between an answer and the next order a peer waits on stdin and does not step. Its DataLoader's workers stall when their
queues are full: two workers had four batches ready within half a second, and then used no processor time (torch 2.15).

Needs the standard library and numpy only, since the Keras peer runs in an interpreter of its own.
"""

import atexit
import json
import os
import pickle
import resource
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class PeerSpec:
    """One peer at one batch size and precision.

    names: its rows. root: the folder of CIFAR-10, None for noise of its shape. images: of the training set. workers: of
    a DataLoader. grain: steps in a row of the lab and of the bare loop. epoch_steps: of the lab, None for all images.
    """

    names: tuple[str, ...]
    model: str
    batch_size: int
    precision: str
    device: str
    root: str | None
    images: int
    lr: float
    wd: float
    shift: float
    depth: int | None = None
    workers: int = 2
    grain: int = 1
    epoch_steps: int | None = None

    @classmethod
    def from_command_line(cls) -> "PeerSpec":
        content = json.loads(sys.argv[1])
        return cls(**content | {"names": tuple(content["names"])})

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @property
    def whole(self) -> int:
        """Images of a training set that is whole batches."""
        return self.images // self.batch_size * self.batch_size

    @property
    def lead(self) -> int:
        """Steps at a turn's beginning that are not counted: their batches were fetched in the others' turns.

        Keras' queue has ten batches, a DataLoader's two for each worker. On a CPU these are some milliseconds' work.
        """
        return max(10, 2 * self.workers) if self.device == "cuda" else 0

    def training_images(self) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (N, H, W, C) and int64 (N,)."""
        if self.root is None:
            generator = np.random.default_rng(0)
            pixels = generator.integers(256, size=(self.whole, 32, 32, 3), dtype=np.uint8)
            return pixels, generator.integers(10, size=self.whole)
        parts = []
        for number in range(1, 6):
            with (Path(self.root) / "cifar-10-batches-py" / f"data_batch_{number}").open("rb") as file:
                parts.append(pickle.load(file, encoding="latin1"))
        pixels = np.concatenate([part["data"] for part in parts]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(pixels[: self.whole]), np.concatenate([p["labels"] for p in parts])[: self.whole]


class JsonLines:
    """Reads orders and writes answers. Takes stdout for itself: what a library prints goes to stderr."""

    def __init__(self) -> None:
        self.answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)

    def write(self, **content: Any) -> None:
        print(json.dumps(content), file=self.answers)

    def read(self) -> dict[str, Any]:
        """The next order. Raises SystemExit when there will be none."""
        line = sys.stdin.readline()
        if not line:
            if folder := os.environ.get("RESNETLAB_BENCH_FOLDER"):  # a killed bench cannot remove it
                atexit.register(shutil.rmtree, folder, ignore_errors=True)
            raise SystemExit
        order: dict[str, Any] = json.loads(line)
        return order


class TurnCounter:
    """Counts the steps of `name`, and waits for orders between its turns.

    facts: what is told at a turn's end, {"losses": {name: x}, "peak_mib": {name: x}}. lead: PeerSpec.lead. others:
    steps of other kinds, {name: a step}; after each `grain` steps of the first kind, as many of each of them, so that
    the ratio within a grain survives a machine whose speed drifts. Time between two epochs is reported apart.
    """

    def __init__(
        self,
        lines: JsonLines,
        name: str,
        batch_size: int,
        synchronize: Callable[[], object],
        facts: Callable[[], dict[str, dict[str, float]]],
        lead: int = 0,
        others: Mapping[str, Callable[[], object]] | None = None,
        grain: int | None = None,
    ) -> None:
        self.lines, self.name, self.batch_size = lines, name, batch_size
        self.synchronize, self.facts, self.lead = synchronize, facts, lead
        self.others, self.grain = others or {}, grain
        self.paused: float | None = None

    def begin(self) -> None:
        """Wait for the next turn. Raises SystemExit when there is none."""
        self.order = self.lines.read()
        self.grains: dict[str, list[list[float]]] = {name: [] for name in (self.name, *self.others)}
        self.between_epochs: list[float] = []
        self.steps, self.spent = 0, 0.0
        self.uncounted = self.lead if "seconds" in self.order else 0
        self.start_grain()

    def start_grain(self) -> None:
        self.in_grain, self.banked, self.mark = 0, 0.0, time.perf_counter()

    def stepped(self, steps: int = 1) -> None:
        """Count steps; at the end of a turn, answer and wait for the next one."""
        if self.uncounted > 0:
            self.uncounted -= steps
            if self.uncounted <= 0:
                self.synchronize()
                self.start_grain()
            return
        self.in_grain, self.steps = self.in_grain + steps, self.steps + steps
        seconds = self.banked + time.perf_counter() - self.mark
        over = self.steps >= self.order.get("steps", sys.maxsize)
        over |= self.spent + seconds >= self.order.get("seconds", float("inf"))
        if over or (self.grain is not None and self.in_grain >= self.grain):
            self.end_grain()
        if over:
            self.lines.write(grains=self.grains, between_epochs=self.between_epochs, **self.facts())
            self.begin()

    def end_grain(self) -> None:
        self.synchronize()
        seconds = self.banked + time.perf_counter() - self.mark
        self.spent += seconds
        images = self.in_grain * self.batch_size
        self.grains[self.name].append([images, seconds])
        for name, step in self.others.items():
            start = time.perf_counter()
            for _ in range(self.in_grain):
                step()
            self.synchronize()
            self.grains[name].append([images, time.perf_counter() - start])
        self.start_grain()

    def pause(self) -> None:
        """Stop the clock at the end of an epoch."""
        self.synchronize()
        self.paused = time.perf_counter()
        self.banked += self.paused - self.mark

    def resume(self, not_counted: float = 0.0) -> None:
        """Go on with the first step of an epoch; not_counted: seconds of validation since the last one."""
        if self.paused is not None:
            self.mark = time.perf_counter()
            self.between_epochs.append(self.mark - self.paused - not_counted)
            self.paused = None


def resident_peak() -> float:
    """MiB that the process had resident at most, without children."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**10
    # not on Linux: there a process begins with the ru_maxrss of the one that started it
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
