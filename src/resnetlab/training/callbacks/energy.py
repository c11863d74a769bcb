"""Energy and load of the GPU during each epoch, read from NVML's counters."""

import statistics
import threading
import time
from contextlib import suppress
from typing import Any

import lightning as L
import pynvml
import torch

from resnetlab.errors import LabError
from resnetlab.training.distributed import gather

Metrics = dict[str, float]


def open_gpu(device: torch.device) -> Any:
    """NVML's handle of the GPU that torch computes on; shutdown() closes it.

    Raises LabError, which says why no energy can be measured: a GPU counts its own from Volta (2017) on.
    """
    if device.type != "cuda":
        raise LabError(f"no CUDA device: {device.type}")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise LabError(f"NVML cannot be used: {error}") from None
    try:
        handle = find_handle(torch.cuda.get_device_properties(device))
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError as error:
        shutdown()
        raise LabError(f"the GPU does not count its energy (Volta and newer do): {error}") from None
    return handle


def shutdown() -> None:
    """Closes NVML, which counts its users and is unloaded by the last."""
    with suppress(pynvml.NVMLError):
        pynvml.nvmlShutdown()


def find_handle(gpu: Any) -> Any:
    """NVML's handle of the device with torch's properties `gpu`.

    By its UUID, never by its number: CUDA_VISIBLE_DEVICES renumbers torch's devices and not NVML's. A part of a GPU
    (MIG) has a UUID of its own; its address on the bus leads to the whole GPU.
    """
    try:
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{gpu.uuid}")
    except pynvml.NVMLError:
        address = f"{gpu.pci_domain_id:08x}:{gpu.pci_bus_id:02x}:{gpu.pci_device_id:02x}.0"
        return pynvml.nvmlDeviceGetHandleByPciBusId(address)


def energy_source(device: torch.device) -> dict[str, str | None]:
    """For the manifest: energy_source is "counter", or None with the reason."""
    try:
        open_gpu(device)
    except LabError as error:
        return {"energy_source": None, "energy_reason": str(error)}
    shutdown()
    return {"energy_source": "counter", "energy_reason": None}


class Energy(L.Callback):
    """Measures every training epoch, its validation included. A thread samples the load, so no step waits for NVML."""

    def __init__(self, interval: float = 1.0) -> None:
        self.interval = interval  # of the samples, in seconds
        self.handle: Any = None  # NVML's, while a GPU is measured
        self.loads: list[float | None] = []
        self.joules: float | None = None
        self.started = 0.0
        self.ended = threading.Event()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        with suppress(LabError):
            self.handle = open_gpu(pl_module.device)
            self.ended.clear()
            self.thread = threading.Thread(target=self._sample, name="resnetlab-energy", daemon=True)
            self.thread.start()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.handle is not None:
            self.joules, self.started, self.loads = self.read_joules(), time.perf_counter(), []

    def metrics(self) -> Metrics:
        """The power/* columns of the epoch that ends now, over all devices; every process has to call it."""
        return combine_gpus(gather({} if self.handle is None else self.measured()))

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str = "fit") -> None:
        if self.handle is not None:
            self.ended.set()
            self.thread.join(timeout=5)
            shutdown()
            self.handle = None

    def measured(self) -> Metrics:
        """power/joules, power/watts and power/gpu_load since the epoch's start, but for what NVML did not answer."""
        now, seconds = self.read_joules(), time.perf_counter() - self.started
        metrics: Metrics = {}
        if now is not None and self.joules is not None and now > self.joules:  # a counter that stands still is broken
            metrics = {"power/joules": now - self.joules, "power/watts": (now - self.joules) / seconds}
        loads = [load for load in (*self.loads, self.read_load()) if load is not None]
        return metrics | ({"power/gpu_load": statistics.fmean(loads)} if loads else {})

    def read_joules(self) -> float | None:
        """Since the driver was loaded, so that only differences mean something; None while NVML does not answer."""
        with suppress(pynvml.NVMLError):
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(self.handle) / 1000)  # from mJ
        return None

    def read_load(self) -> float | None:
        """The percentage of the last moments (a sixth of a second to a second) in which a kernel ran, or None."""
        with suppress(pynvml.NVMLError):
            return float(pynvml.nvmlDeviceGetUtilizationRates(self.handle).gpu)
        return None

    def _sample(self) -> None:
        while not self.ended.wait(self.interval):
            loads = self.loads  # an epoch that starts in between begins another list, which this sample is not part of
            loads.append(self.read_load())


def combine_gpus(gpus: list[Metrics]) -> Metrics:
    """The metrics of a run on several GPUs: sums, of the load the mean; only what every GPU has measured."""
    common = [key for key in gpus[0] if all(key in gpu for gpu in gpus)]
    return {key: (statistics.fmean if key == "power/gpu_load" else sum)([gpu[key] for gpu in gpus]) for key in common}
