"""When a peer that trains on and on has to wait, and what it has to report."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from resnetlab.bench_peers.keras_series import resident_peak
from resnetlab.bench_peers.wire import Wire

__all__ = ["Turns", "peak_mib", "synchronize"]


class Turns:
    """Counts the steps of `name`, and waits for orders between its turns.

    others: steps of other kinds, {name: a step}; after each `grain` steps of the first kind, as many of each of them.
    So the ratio within a grain survives a machine whose speed drifts. losses: {name: the present loss}.
    Time between pause and resume, from an epoch to the next, is nobody's, and is reported apart.
    """

    def __init__(
        self,
        wire: Wire,
        name: str,
        device: torch.device,
        batch_size: int,
        losses: Mapping[str, Callable[[], float]],
        others: Mapping[str, Callable[[], Any]] | None = None,
        grain: int | None = None,
        memory: Callable[[], dict[str, float]] | None = None,
    ) -> None:
        self.wire, self.name, self.device, self.batch_size = wire, name, device, batch_size
        self.losses, self.others, self.grain = losses, others or {}, grain
        self.memory = memory or (lambda: {name: peak_mib(device)})
        self.between_epochs: list[float] = []
        self.paused: float | None = None

    def begin(self) -> None:
        """Waits for the next turn. Raises SystemExit when there is none."""
        self.order = self.wire.hear()
        self.grains: dict[str, list[list[float]]] = {name: [] for name in (self.name, *self.others)}
        self.between_epochs.clear()
        self.steps, self.spent = 0, 0.0
        self.start()

    def start(self) -> None:
        self.in_grain, self.banked, self.mark = 0, 0.0, time.perf_counter()

    def stepped(self, steps: int = 1) -> None:
        """After each step, or each few. At the end of a turn it answers, and waits for the next one."""
        self.in_grain, self.steps = self.in_grain + steps, self.steps + steps
        seconds = self.banked + time.perf_counter() - self.mark
        over = self.steps >= self.order.get("steps", sys.maxsize)
        over |= self.spent + seconds >= self.order.get("seconds", float("inf"))
        if over or (self.grain is not None and self.in_grain >= self.grain):
            self.end_grain()
        if over:
            self.answer()
            self.begin()

    def end_grain(self) -> None:
        synchronize(self.device)
        seconds = self.banked + time.perf_counter() - self.mark
        self.spent += seconds
        images = self.in_grain * self.batch_size
        self.grains[self.name].append([images, seconds])
        for name, step in self.others.items():
            start = time.perf_counter()
            for _ in range(self.in_grain):
                step()
            synchronize(self.device)
            self.grains[name].append([images, time.perf_counter() - start])
        self.start()

    def pause(self) -> None:
        """At the end of an epoch."""
        synchronize(self.device)
        self.paused = time.perf_counter()
        self.banked += self.paused - self.mark

    def resume(self, not_counted: float = 0.0) -> None:
        """Before the first step of an epoch; not_counted: seconds of validation since the last one."""
        if self.paused is not None:
            self.mark = time.perf_counter()
            self.between_epochs.append(self.mark - self.paused - not_counted)
            self.paused = None

    def answer(self) -> None:
        self.wire.say(
            grains=self.grains,
            losses={name: loss() for name, loss in self.losses.items()},
            peak_mib=self.memory(),
            between_epochs=self.between_epochs,
        )


def peak_mib(device: torch.device) -> float:
    """The most memory so far: what torch had allocated on a GPU, or what the process had resident, without children."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resident_peak()


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
