"""The NVIDIA card behind a torch device, as NVML knows it: its energy, power and utilisation.

The figures are the card's, not a process's: whoever computes on it besides is in them.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pynvml
import torch

__all__ = ["Card", "NoCard", "energy_source", "open_card"]


class NoCard(Exception):
    """There is nothing that could tell the energy; the message says why."""


class Card:
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
            raise NoCard("the card tells neither its energy nor its power")

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
        give_back()


def open_card(device: torch.device) -> Card:
    """The card that torch computes on, to be closed by the caller. Raises NoCard."""
    if device.type != "cuda":
        raise NoCard(f"no CUDA device: {device.type}")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NoCard(f"NVML cannot be used: {error}") from None
    try:
        return Card(find_handle(torch.cuda.get_device_properties(device)))
    except (NoCard, pynvml.NVMLError) as error:
        give_back()
        raise NoCard(str(error)) from None


def give_back() -> None:
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
        card = open_card(device)
    except NoCard as error:
        return {"energy_source": None, "energy_reason": str(error)}
    card.close()
    return {"energy_source": card.source, "energy_reason": None}
