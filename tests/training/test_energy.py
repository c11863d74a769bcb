"""Energy per epoch, with a fake NVML: there is no GPU here, and a driver cannot be had without one.

The fake answers the calls that are used, as NVIDIA's reference describes them, and finds its GPUs by UUID and bus
address only, so that a look-up by number would fail. A real GPU's answers are in test_gpu.py.
"""

import json
import threading
import time
from types import SimpleNamespace
from typing import Any, ClassVar

import pynvml
import pytest
import torch
from test_run import stop_after

from conftest import tiny
from resnetlab import run
from resnetlab.runs.files import read_rows
from resnetlab.runs.summary import summarize
from resnetlab.training.callbacks import energy
from resnetlab.training.callbacks.energy import Energy, NoGpuSensor, energy_source, open_gpu
from resnetlab.training.callbacks.progress import ProgressDisplay

POWER_COLUMNS = {"power/joules", "power/watts", "power/gpu_load"}


class FakeNvml:
    """Two GPUs of constant power (200 W and 300 W, 40 % and 60 %). counts: whether they count their energy."""

    NVMLError = pynvml.NVMLError
    WATTS: ClassVar = {"GPU-aaaa": 200.0, "GPU-bbbb": 300.0}
    PLACES: ClassVar = {"00000000:3b:00.0": "GPU-aaaa", "00000001:af:00.0": "GPU-bbbb"}

    def __init__(self, counts: bool = True) -> None:
        self.counts, self.users = counts, 0

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
        return int(1000 * self.WATTS[handle] * time.perf_counter())  # mJ

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        return SimpleNamespace(gpu={"GPU-aaaa": 40, "GPU-bbbb": 60}[handle], memory=1)


def use(monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml) -> FakeNvml:
    """Puts the fake in NVML's place, and gives the (CPU) runs of this test its first GPU."""
    monkeypatch.setattr(energy, "pynvml", nvml)

    def opened(device: torch.device) -> str:
        nvml.nvmlInit()
        return "GPU-aaaa"

    monkeypatch.setattr(energy, "open_gpu", opened)
    return nvml


def meter_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "resnetlab-energy"]


def test_power_times_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 W for a while: joules are watts times seconds, from the counter in mJ."""
    use(monkeypatch, FakeNvml())
    meter = Energy(interval=0.01)
    meter.on_train_start(None, SimpleNamespace(device="cpu"))
    begin = time.perf_counter()
    meter.on_train_epoch_start(None, None)
    time.sleep(0.3)
    metrics = meter.metrics()
    seconds = time.perf_counter() - begin
    meter.teardown(None, None)
    assert metrics.keys() == POWER_COLUMNS
    # reads on a busy machine are not one moment
    assert metrics["power/joules"] == pytest.approx(200 * seconds, rel=0.3)
    assert metrics["power/watts"] == pytest.approx(200, rel=0.3)
    assert metrics["power/gpu_load"] == 40
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
    with pytest.raises(NoGpuSensor, match=r"NVML cannot be used: .*Not Found"):
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
    assert all(row.keys() >= POWER_COLUMNS for row in rows)
    assert summary["energy_wh"] == pytest.approx(sum(row["power/joules"] for row in rows) / 3600)
    assert summary["power_w"] == pytest.approx(200, rel=0.3)
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
    """900 J in 10 s and 2,700 J in 10 s are 1 Wh at 180 W; means weigh an epoch by its seconds."""
    common = {"train/ce": 1.0, "val/ce": 1.0, "val/acc": 0.5, "power/watts": 180.0}
    rows = [
        {"epoch": epoch, "time/epoch": seconds, "power/joules": joules, "power/gpu_load": load, **common}
        for epoch, seconds, joules, load in ((1, 5.0, 900.0, 80.0), (2, 15.0, 2700.0, 40.0))
    ]
    row = summarize(tiny(), rows, status="finished")
    assert (row["energy_wh"], row["power_w"], row["gpu_load"]) == (1.0, 180.0, 50.0)
    for name in ("power/joules", "power/gpu_load"):
        del rows[0][name]
    row = summarize(tiny(), rows, status="finished")  # half of the energy is not the run's
    assert (row["energy_wh"], row["power_w"], row["gpu_load"]) == (None, None, None)
