"""What only a CUDA device can show: run with make test-slow where there is one."""

import json

import pytest
import torch
from test_run import deterministic, stop_after

from conftest import tiny
from resnetlab import run
from resnetlab.runs.files import read_rows
from rig import Rig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "radam", "nadam", "muon"])
@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed", "32-true"])
def test_every_optimizer_trains_in_every_precision(optimizer: str, precision: str) -> None:
    config = tiny(
        f"optimizer={optimizer}", f"trainer.precision={precision}", "regularization=l2_weight_decay",
        "recalibrate_bn=true", "trainer.recalibration_images=32", "lr=1e-3",
    )  # fmt: skip
    summary = run(config)
    assert summary["status"] == "finished"
    assert summary["final_train_ce"] < 2.5  # ln(10) = 2.3 is chance; a broken scaler or device mix-up explodes


def test_a_float32_run_on_the_gpu_is_close_to_the_cpu() -> None:
    """Same plan, same weights: after one epoch of two steps the losses differ by rounding (TF32 is off by default)."""
    rows = []
    for accelerator in ("cpu", "cuda"):
        config = tiny(f"study={accelerator}", f"trainer.accelerator={accelerator}", "trainer.precision=32-true")
        run(config)
        rows.append(read_rows(config.folder.metrics)[0])
    assert rows[1]["train/ce"] == pytest.approx(rows[0]["train/ce"], rel=1e-2)


def test_a_resumed_run_starts_from_the_same_weights_and_data() -> None:
    whole, broken = tiny("study=whole"), tiny("study=broken")
    run(whole)
    stop_after(broken, epochs=2)
    run(broken)
    ends = [deterministic(read_rows(config.folder.metrics))[-1] for config in (whole, broken)]
    assert ends[0]["lr"] == ends[1]["lr"]
    # cuDNN may round differently from run to run: the loss of the resumed epoch agrees, but not to the bit
    assert ends[1]["train/ce"] == pytest.approx(ends[0]["train/ce"], rel=2e-2)


@pytest.mark.parametrize("engine", ["eager", "graph"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
def test_a_step_reads_nothing_back_from_the_device(engine: str, optimizer: str, schedule: str) -> None:
    """In float16 with the scaler and an average: what a device waits for, it waits for at the end of an epoch."""
    more = (f"schedule={schedule}", f"optimizer={optimizer}", "regularization=l2_weight_decay", "averaging=ema")
    rig = Rig(tiny("batch_size=8", *more), "cuda", engine, scale=1024.0, half=True)
    rig.train(2)  # they make the gradients, and the graph
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(4):  # not the last of the epoch, whose size is another
            rig.advance()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert int(rig.step.global_step) == 6


def test_a_run_tells_its_energy_power_and_load() -> None:
    """75 steps an epoch, some seconds in all: the GPU's counter moves ten times a second or so."""
    config = tiny("data.limit=600", "batch_size=8")
    summary = run(config)
    rows = read_rows(config.folder.metrics)
    assert json.loads(config.folder.manifest.read_text())["energy_source"] == "counter"
    assert all(row["power/joules"] > 0 for row in rows)
    assert all(0 <= row["power/gpu_load"] <= 100 for row in rows)
    assert summary["energy_wh"] == pytest.approx(sum(row["power/joules"] for row in rows) / 3600)
    assert 10 <= summary["power_w"] <= 2000
    assert 0 <= summary["gpu_load"] <= 100
    power, seconds = summary["power_w"], sum(row["time/epoch"] for row in rows)
    assert 3600 * summary["energy_wh"] == pytest.approx(power * seconds)
