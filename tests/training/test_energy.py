"""Energy per epoch, with a fake NVML: there is no card here, and a driver cannot be had without one.

The fake answers the six calls that are used, as NVIDIA's reference describes them, and knows its cards by UUID and bus
address only, so that a look-up by number would fail. What a real card says is in test_gpu.py.
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
from resnetlab.config.identity import run_folder
from resnetlab.runs.files import read_rows
from resnetlab.runs.summary import summarize
from resnetlab.training.callbacks.energy import (
    Energy,
    EnergyMeter,
    GpuSensor,
    NoGpuSensor,
    Sample,
    energy_source,
    integral,
    open_sensor,
)
from resnetlab.training.callbacks.progress import ProgressDisplay

POWER_COLUMNS = {"power/joules", "power/watts", "power/gpu_load"}


class FakeNvml:
    """Two cards of constant power (200 W and 300 W, 40 % and 60 %). counts: whether they count their energy."""

    NVMLError = pynvml.NVMLError
    WATTS: ClassVar = {"GPU-aaaa": 200.0, "GPU-bbbb": 300.0}
    PLACES: ClassVar = {"00000000:3b:00.0": "GPU-aaaa", "00000001:af:00.0": "GPU-bbbb"}

    def __init__(self, counts: bool = True, tells_power: bool = True) -> None:
        self.counts, self.tells_power, self.users = counts, tells_power, 0

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

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        if not self.tells_power:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return int(1000 * self.WATTS[handle])  # mW

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        return SimpleNamespace(gpu={"GPU-aaaa": 40, "GPU-bbbb": 60}[handle], memory=1)


def use(monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml) -> FakeNvml:
    """Puts the fake in NVML's place, and gives the (CPU) runs of this test its first card."""
    monkeypatch.setattr("resnetlab.training.callbacks.energy.pynvml", nvml)
    monkeypatch.setattr("resnetlab.training.callbacks.energy.open_sensor", lambda device: GpuSensor("GPU-aaaa"))
    return nvml


def watching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "resnetlab-energy"]


def measured(card: GpuSensor, seconds: float) -> tuple[dict[str, float], float]:
    """(what a gauge says of so many seconds, what they were)."""
    gauge = EnergyMeter(card, interval=0.01)
    begin = time.perf_counter()
    gauge.start()
    time.sleep(seconds)
    figures = gauge.stop()
    taken = time.perf_counter() - begin
    gauge.close()
    return figures, taken


@pytest.mark.parametrize(("counts", "source"), [(True, "counter"), (False, "sampled")])
def test_power_times_time(monkeypatch: pytest.MonkeyPatch, counts: bool, source: str) -> None:
    """200 W for a while: joules are watts times seconds, from the counter in mJ or from the power in mW."""
    use(monkeypatch, FakeNvml(counts))
    card = GpuSensor("GPU-aaaa")
    figures, seconds = measured(card, 0.3)
    assert card.source == source
    assert figures.keys() == POWER_COLUMNS
    assert figures["power/joules"] == pytest.approx(
        200 * seconds, rel=0.3
    )  # reads on a busy machine are not one moment
    assert figures["power/watts"] == pytest.approx(200, rel=0.3)
    assert figures["power/gpu_load"] == 40
    assert not watching()


def test_the_integral_by_hand() -> None:
    samples = [Sample(10.0, 100.0, None), Sample(11.0, 300.0, None), Sample(13.0, 200.0, None)]
    assert integral(samples) == 200 + 500
    assert integral([*samples, Sample(14.0, None, None)]) is None  # a gap is unknown, not nothing


def test_the_load_is_the_mean_of_what_was_sampled_since_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeNvml())
    gauge = EnergyMeter(GpuSensor("GPU-aaaa"), interval=60)
    gauge.start()
    gauge.samples = [
        Sample(0.0, None, 100.0),
        Sample(1.0, None, 10.0),
        Sample(2.0, None, None),
        Sample(3.0, None, 70.0),
    ]
    assert gauge.stop()["power/gpu_load"] == 40  # of 10, 70 and the last, 40
    gauge.close()


def test_a_card_that_stops_answering_leaves_its_columns_out(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = use(monkeypatch, FakeNvml())
    gauge = EnergyMeter(GpuSensor("GPU-aaaa"))
    gauge.start()
    nvml.counts = False
    assert gauge.stop().keys() == {"power/gpu_load"}
    gauge.close()


def test_the_card_is_found_by_what_it_is_and_not_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA_VISIBLE_DEVICES=1 makes the second card torch's cuda:0, whose properties are then the second card's."""
    nvml = FakeNvml()
    monkeypatch.setattr("resnetlab.training.callbacks.energy.pynvml", nvml)
    for uuid, place, expected in (
        ("bbbb", (0, 0, 0), "GPU-bbbb"),
        ("aaaa", (0, 0, 0), "GPU-aaaa"),
        ("a part of a card", (1, 0xAF, 0), "GPU-bbbb"),
    ):
        names = ("pci_domain_id", "pci_bus_id", "pci_device_id")
        properties = SimpleNamespace(uuid=uuid, **dict(zip(names, place, strict=True)))
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, found=properties: found)
        card = open_sensor(torch.device("cuda", 0))
        assert card.handle == expected
        card.close()
    assert nvml.users == 0


def test_the_manifest_says_where_the_energy_is_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="aaaa"))
    for nvml, source in ((FakeNvml(), "counter"), (FakeNvml(counts=False), "sampled"), (FakeNvml(False, False), None)):
        monkeypatch.setattr("resnetlab.training.callbacks.energy.pynvml", nvml)
        said = energy_source(torch.device("cuda"))
        assert said["energy_source"] == source
        assert (said["energy_reason"] is None) == (source is not None)
        assert nvml.users == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card, and a driver")
def test_without_a_driver_there_is_a_reason_and_no_complaint() -> None:
    """The real library: warnings are errors in these tests."""
    with pytest.raises(NoGpuSensor, match=r"NVML cannot be used: .*Not Found"):
        open_sensor(torch.device("cuda"))


def test_on_a_cpu_there_are_no_columns_and_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    config, seen = tiny("epochs=1", "trainer.accelerator=cpu"), []
    monkeypatch.setattr(Energy, "on_train_epoch_start", lambda *_: seen.append(len(watching())))
    summary = run(config)
    (row,) = read_rows(run_folder(config).metrics)
    assert not [key for key in row if key.startswith("power/")]
    assert (summary["energy_wh"], summary["power_w"], summary["gpu_load"]) == (None, None, None)
    manifest = json.loads(run_folder(config).manifest.read_text())
    assert (manifest["energy_source"], manifest["energy_reason"]) == (None, "no CUDA device: cpu")
    assert seen == [0]


def test_a_resumed_run_keeps_what_the_epochs_before_used(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeNvml())
    config = tiny()
    stop_after(config, epochs=2)
    assert not watching()  # an exception ends the thread
    before = read_rows(run_folder(config).metrics)
    summary = run(config)
    rows = read_rows(run_folder(config).metrics)
    assert not watching()
    assert rows[:2] == before
    assert all(row.keys() >= POWER_COLUMNS for row in rows)
    assert summary["energy_wh"] == pytest.approx(sum(row["power/joules"] for row in rows) / 3600)
    assert summary["power_w"] == pytest.approx(200, rel=0.3)
    assert summary["gpu_load"] == pytest.approx(40)


def test_ctrl_c_ends_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = use(monkeypatch, FakeNvml())
    alive = []

    def interrupted(*_: Any) -> None:
        alive.append(len(watching()))
        raise KeyboardInterrupt

    monkeypatch.setattr(ProgressDisplay, "on_train_batch_end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tiny())
    assert alive == [1]
    assert not watching()
    assert nvml.users == -1  # given back; the test's card was made without asking for it


def test_the_summary_by_hand() -> None:
    """900 J in 10 s and 2,700 J in 10 s are 1 Wh at 180 W; means weigh an epoch by its seconds."""
    common = {"train/ce": 1.0, "val/ce": 1.0, "val/acc": 0.5}
    rows = [
        {"epoch": 1, "time/epoch": 5.0, "power/joules": 900.0, "power/watts": 180.0, "power/gpu_load": 80.0, **common},
        {
            "epoch": 2,
            "time/epoch": 15.0,
            "power/joules": 2700.0,
            "power/watts": 180.0,
            "power/gpu_load": 40.0,
            **common,
        },
    ]
    row = summarize(tiny(), rows, status="finished")
    assert (row["energy_wh"], row["power_w"], row["gpu_load"]) == (1.0, 180.0, 50.0)
    for name in ("power/joules", "power/gpu_load"):
        del rows[0][name]
    row = summarize(tiny(), rows, status="finished")  # half of the energy is not the run's
    assert (row["energy_wh"], row["power_w"], row["gpu_load"]) == (None, None, None)
