"""What a run costs: the card's energy, power and load of every epoch, where an NVIDIA card tells them.

Each epoch's figures are in its row, and the rows are in every checkpoint, so that a resumed run keeps what the epochs
before it used. An epoch that was interrupted and is trained again counts once. Elsewhere (a CPU, AMD, no driver) there
are no columns, no thread and no complaint; the manifest says why.
"""

import statistics
import threading
import time
from itertools import pairwise
from typing import Any, NamedTuple

import lightning as L

from resnetlab.module import Lab
from resnetlab.nvml import Card, NoCard, open_card
from resnetlab.ranks import gather

__all__ = ["Energy", "Gauge"]


class Sample(NamedTuple):
    """time: s. watts: only of a card that does not count its energy. load: %."""

    time: float
    watts: float | None
    load: float | None


class Gauge:
    """Measures the stretch between start() and stop(). A thread of its own asks the card, so that no step waits."""

    def __init__(self, card: Card, interval: float = 1.0) -> None:
        self.card, self.interval = card, interval
        self.samples: list[Sample] = []
        self.counted: float | None = None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="resnetlab-energy", daemon=True)
        self.thread.start()

    def start(self) -> None:
        self.counted = self.card.joules()
        self.samples = [self.sample()]

    def stop(self) -> dict[str, float]:
        """power/joules, power/watts and power/gpu_load since start(); without what the card did not tell."""
        samples = sorted([*self.samples, self.sample()], key=lambda sample: sample.time)
        joules = self.counter_difference() if self.card.source == "counter" else integral(samples)
        figures = {}
        if joules is not None and joules > 0:  # no card runs on nothing
            figures = {"power/joules": joules, "power/watts": joules / (samples[-1].time - samples[0].time)}
        loads = [
            sample.load for sample in samples[1:] if sample.load is not None
        ]  # the first looks back before start()
        return figures | ({"power/gpu_load": statistics.fmean(loads)} if loads else {})

    def counter_difference(self) -> float | None:
        now = self.card.joules()
        return None if now is None or self.counted is None else now - self.counted

    def sample(self) -> Sample:
        watts = self.card.watts() if self.card.source == "sampled" else None
        load = self.card.load()
        return Sample(time.perf_counter(), watts, load)

    def close(self) -> None:
        """Ends the thread."""
        self.ended.set()
        self.thread.join(timeout=5)
        self.card.close()

    def _watch(self) -> None:
        while not self.ended.wait(self.interval):
            samples = self.samples  # a start() in between begins another list, which this sample is not part of
            samples.append(self.sample())


def integral(samples: list[Sample]) -> float | None:
    """Joules, by trapezoids; None if the card once did not tell its power."""
    total = 0.0
    for a, b in pairwise(samples):
        if a.watts is None or b.watts is None:
            return None
        total += (a.watts + b.watts) / 2 * (b.time - a.time)
    return total


def over_cards(cards: list[dict[str, float]]) -> dict[str, float]:
    """The figures of a run on several cards: energy and power are summed, the load is the mean; what all cards told."""
    told = set(cards[0]).intersection(*cards)
    means = {"power/gpu_load"}
    return {
        key: sum(card[key] for card in cards) / (len(cards) if key in means else 1) for key in cards[0] if key in told
    }


class Energy(L.Callback):
    """Adds the power/* columns to the epoch's row; stands before the Recorder, which writes it."""

    def __init__(self) -> None:
        self.gauge: Gauge | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        try:
            self.gauge = Gauge(open_card(pl_module.device))
        except NoCard:
            self.gauge = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.gauge is not None:
            self.gauge.start()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Lab)
        figures = {} if self.gauge is None else self.gauge.stop()
        pl_module.row |= over_cards(gather(figures))  # or the others would wait for a card that tells nothing

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._close()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: Any) -> None:
        self._close()

    def _close(self) -> None:
        if self.gauge is not None:
            self.gauge.close()
            self.gauge = None
