"""Energy of a run: reads the GPU's counters through NVML in a thread of its own."""

import statistics
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any, NamedTuple

import lightning as L
import pynvml
import torch

from resnetlab.training.distributed import gather
from resnetlab.training.module import ImageClassifier


class NoGpuSensor(Exception):
    """There is nothing that could tell the energy; the message says why."""


class GpuSensor:
    """A card that tells its energy. Every figure is None while NVML does not answer.

    source: "counter" where the card counts its energy (Volta and newer), "sampled" where it tells its power alone.
    """

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        if self.joules() is not None:
            self.source = "counter"
        elif self.watts() is not None:
            self.source = "sampled"
        else:
            raise NoGpuSensor("the card tells neither its energy nor its power")

    def joules(self) -> float | None:
        """Since the driver was loaded; a difference of two of them means something."""
        return self.ask(lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(self.handle) / 1000)  # from mJ

    def watts(self) -> float | None:
        """At the moment, or over the last second: that depends on the card."""
        return self.ask(lambda: pynvml.nvmlDeviceGetPowerUsage(self.handle) / 1000)  # from mW

    def load(self) -> float | None:
        """The percentage of the last moments (a sixth of a second to a second) in which a kernel ran."""
        return self.ask(lambda: float(pynvml.nvmlDeviceGetUtilizationRates(self.handle).gpu))

    @staticmethod
    def ask(figure: Callable[[], float]) -> float | None:
        try:
            return figure()
        except pynvml.NVMLError:
            return None

    def close(self) -> None:
        """The card answers no more."""
        shutdown()


def open_sensor(device: torch.device) -> GpuSensor:
    """The card that torch computes on, to be closed by the caller. Raises NoCard."""
    if device.type != "cuda":
        raise NoGpuSensor(f"no CUDA device: {device.type}")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NoGpuSensor(f"NVML cannot be used: {error}") from None
    try:
        return GpuSensor(find_handle(torch.cuda.get_device_properties(device)))
    except (NoGpuSensor, pynvml.NVMLError) as error:
        shutdown()
        raise NoGpuSensor(str(error)) from None


def shutdown() -> None:
    """NVML counts who has asked for it, and is unloaded by the last."""
    with suppress(pynvml.NVMLError):
        pynvml.nvmlShutdown()


def find_handle(properties: Any) -> Any:
    """NVML's handle of the device with these properties.

    By its identifier, never by its number: CUDA_VISIBLE_DEVICES renumbers torch's devices and not NVML's. A part of a
    card (MIG) has an identifier of its own, and leads to the whole card by its place on the bus.
    """
    try:
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}")
    except pynvml.NVMLError:
        bus, slot = properties.pci_bus_id, properties.pci_device_id
        return pynvml.nvmlDeviceGetHandleByPciBusId(f"{properties.pci_domain_id:08x}:{bus:02x}:{slot:02x}.0")


def energy_source(device: torch.device) -> dict[str, str | None]:
    """For the manifest: energy_source counter | sampled | None, and the reason where there is none."""
    try:
        card = open_sensor(device)
    except NoGpuSensor as error:
        return {"energy_source": None, "energy_reason": str(error)}
    card.close()
    return {"energy_source": card.source, "energy_reason": None}


class Sample(NamedTuple):
    """time: s. watts: only of a card that does not count its energy. load: %."""

    time: float
    watts: float | None
    load: float | None


class EnergyMeter:
    """Measures the stretch between start() and stop(). A thread of its own asks the card, so that no step waits."""

    def __init__(self, card: GpuSensor, interval: float = 1.0) -> None:
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
        self.gauge: EnergyMeter | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        try:
            self.gauge = EnergyMeter(open_sensor(pl_module.device))
        except NoGpuSensor:
            self.gauge = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.gauge is not None:
            self.gauge.start()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, ImageClassifier)
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
