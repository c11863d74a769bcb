"""Energy per epoch, with a fake NVML: there is no GPU here, and a driver cannot be had without one.

The fake answers the calls that are used, as NVIDIA's reference describes them, and finds its GPUs by UUID and bus
address only, so that a look-up by number would fail. A real GPU's answers are in test_gpu.py.
"""

import json
import threading
from types import SimpleNamespace
from typing import Any, ClassVar

import pynvml
import pytest
import torch
from test_run import stop_after

from conftest import tiny
from resnetlab import run
from resnetlab.errors import LabError
from resnetlab.runs.files import read_rows
from resnetlab.runs.summary import summarize
from resnetlab.training.callbacks import energy
from resnetlab.training.callbacks.energy import Energy, energy_source, open_gpu
from resnetlab.training.callbacks.progress import ProgressDisplay


class FakeNvml:
    """Two GPUs of constant power (200 W and 300 W, 40 % and 60 %). counts: whether they count their energy.

    seconds: the time of its clock, which goes on by one at each look at the counter.
    """

    NVMLError = pynvml.NVMLError
    WATTS: ClassVar = {"GPU-aaaa": 200.0, "GPU-bbbb": 300.0}
    PLACES: ClassVar = {"00000000:3b:00.0": "GPU-aaaa", "00000001:af:00.0": "GPU-bbbb"}

    def __init__(self, counts: bool = True) -> None:
        self.counts, self.users, self.seconds = counts, 0, 0.0

    def nvmlInit(self) -> None:
        self.users += 1

    def nvmlShutdown(self) -> None:
        self.users -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid not in self.WATTS:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return uuid

    def nvmlDeviceGetHandleByPciBusId(self, address: str) -> str:
        return self.PLACES[address]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        if not self.counts:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        self.seconds += 1
        return int(1000 * self.WATTS[handle] * self.seconds)  # mJ

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        return SimpleNamespace(gpu={"GPU-aaaa": 40, "GPU-bbbb": 60}[handle], memory=1)


def use(monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml) -> FakeNvml:
    """Puts the fake and its clock in their places, and gives the (CPU) runs of this test its first GPU."""
    monkeypatch.setattr(energy, "pynvml", nvml)
    monkeypatch.setattr(energy, "time", SimpleNamespace(perf_counter=lambda: nvml.seconds))

    def opened(device: torch.device) -> str:
        nvml.nvmlInit()
        return "GPU-aaaa"

    monkeypatch.setattr(energy, "open_gpu", opened)
    return nvml


def meter_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "resnetlab-energy"]


def test_power_times_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 W for 5 s: joules are watts times seconds, from the counter in mJ."""
    nvml = use(monkeypatch, FakeNvml())
    meter = Energy(interval=0.01)
    meter.on_train_start(None, SimpleNamespace(device="cpu"))
    meter.on_train_epoch_start(None, None)
    nvml.seconds += 4
    assert meter.metrics() == {"power/joules": 1000, "power/watts": 200, "power/gpu_load": 40}
    meter.teardown(None, None)
    assert not meter_threads()


def test_the_load_is_the_mean_since_the_start_and_a_gpu_that_stops_answering_leaves_its_columns_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nvml = use(monkeypatch, FakeNvml())
    meter = Energy(interval=60)
    meter.on_train_start(None, SimpleNamespace(device="cpu"))
    meter.loads = [100.0]
    meter.on_train_epoch_start(None, None)
    meter.loads += [10.0, None, 70.0]
    nvml.counts = False
    assert meter.metrics() == {"power/gpu_load": 40}  # of 10, 70 and the last, 40
    meter.teardown(None, None)


def test_the_gpu_is_found_by_its_uuid_and_not_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA_VISIBLE_DEVICES=1 makes the second GPU torch's cuda:0, whose properties are then the second GPU's."""
    nvml = FakeNvml()
    monkeypatch.setattr(energy, "pynvml", nvml)
    for uuid, place, expected in (
        ("bbbb", (0, 0, 0), "GPU-bbbb"),
        ("aaaa", (0, 0, 0), "GPU-aaaa"),
        ("a part of a GPU", (1, 0xAF, 0), "GPU-bbbb"),
    ):
        names = ("pci_domain_id", "pci_bus_id", "pci_device_id")
        properties = SimpleNamespace(uuid=uuid, **dict(zip(names, place, strict=True)))
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, found=properties: found)
        assert open_gpu(torch.device("cuda", 0)) == expected
        energy.shutdown()
    assert nvml.users == 0


def test_the_manifest_says_where_the_energy_is_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="aaaa"))
    for nvml, source in ((FakeNvml(), "counter"), (FakeNvml(counts=False), None)):
        monkeypatch.setattr(energy, "pynvml", nvml)
        found = energy_source(torch.device("cuda"))
        assert found["energy_source"] == source
        assert (found["energy_reason"] is None) == (source is not None)
        assert nvml.users == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, and a driver")
def test_without_a_driver_there_is_a_reason_and_no_warning() -> None:
    """The real library: warnings are errors in these tests."""
    with pytest.raises(LabError, match=r"NVML cannot be used: .*Not Found"):
        open_gpu(torch.device("cuda"))


def test_on_a_cpu_there_are_no_columns_and_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    config, seen = tiny("epochs=1", "trainer.accelerator=cpu"), []
    monkeypatch.setattr(Energy, "on_train_epoch_start", lambda *_: seen.append(len(meter_threads())))
    summary = run(config)
    (row,) = read_rows(config.folder.metrics)
    assert not [key for key in row if key.startswith("power/")]
    assert (summary["energy_wh"], summary["power_w"], summary["gpu_load"]) == (None, None, None)
    manifest = json.loads(config.folder.manifest.read_text())
    assert (manifest["energy_source"], manifest["energy_reason"]) == (None, "no CUDA device: cpu")
    assert seen == [0]


def test_a_resumed_run_keeps_what_the_epochs_before_used(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeNvml())
    config = tiny()
    stop_after(config, epochs=2)
    assert not meter_threads()  # an exception ends the thread
    before = read_rows(config.folder.metrics)
    summary = run(config)
    rows = read_rows(config.folder.metrics)
    assert not meter_threads()
    assert rows[:2] == before
    assert [(row["power/joules"], row["power/watts"]) for row in rows] == [(200, 200)] * 3
    assert summary["energy_wh"] == pytest.approx(600 / 3600)
    assert summary["power_w"] == pytest.approx(600 / sum(row["time/epoch"] for row in rows))
    assert summary["gpu_load"] == pytest.approx(40)


def test_ctrl_c_ends_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = use(monkeypatch, FakeNvml())
    alive = []

    def interrupted(*_: Any) -> None:
        alive.append(len(meter_threads()))
        raise KeyboardInterrupt

    monkeypatch.setattr(ProgressDisplay, "on_train_batch_end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tiny())
    assert alive == [1]
    assert not meter_threads()
    assert nvml.users == 0


def test_the_summary_by_hand() -> None:
    """1,500 J in 5 s (300 W) and 2,100 J in 15 s (140 W) are 1 Wh at 180 W; means weigh an epoch by its seconds."""
    common = {"train/ce": 1.0, "val/ce": 1.0, "val/acc": 0.5}
    keys = ("epoch", "time/epoch", "power/joules", "power/watts", "power/gpu_load")
    values = ((1, 5.0, 1500.0, 300.0, 80.0), (2, 15.0, 2100.0, 140.0, 40.0))
    rows = [common | dict(zip(keys, row, strict=True)) for row in values]
    row = summarize(tiny(), rows, status="finished")
    assert (row["energy_wh"], row["power_w"], row["gpu_load"]) == (1.0, 180.0, 50.0)
    for name in ("power/joules", "power/gpu_load"):
        del rows[0][name]
    row = summarize(tiny(), rows, status="finished")  # half of the energy is not the run's
    assert (row["energy_wh"], row["power_w"], row["gpu_load"]) == (None, None, None)
