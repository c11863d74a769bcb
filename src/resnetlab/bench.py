"""How long an epoch of the lab takes, against a bare loop over the same network, in turn in one run."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.nn import functional as F

from resnetlab.build import build, build_module, quiet
from resnetlab.callbacks.recorder import Recorder
from resnetlab.config import Config, compose
from resnetlab.data import ImageData, Images
from resnetlab.data.normalize import Normalizer
from resnetlab.files import write_json
from resnetlab.manifest import processor

__all__ = ["bench"]


def bench(model: str, images: int, batch_size: int, rounds: int, out: Path | None) -> list[dict[str, Any]]:
    """Prints a table of medians over `rounds` epochs of each kind, after one of each that is not counted.

    Kinds: lab_eager, the training part of an epoch through Lightning with everything on; bare, the same network,
    optimizer and memory format on one resident batch, without data, statistics or Lightning; pipeline, the batches
    alone. Each round runs all three, one after the other, so that the ratio of a round survives a machine whose speed
    drifts. The images are noise of CIFAR-10's shape. out: where the JSON goes.
    """
    overrides = [f"model={model}", f"batch_size={batch_size}", f"epochs={rounds + 1}", "schedule=constant"]
    config = compose(*overrides, "trainer.progress=off")
    data = noise(config, images)
    side_runs = {"bare": bare_loop(config, data), "pipeline": pipeline(config, data)}
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        module, data, trainer = build(config, data)
        turns = Turns(side_runs)
        trainer.callbacks.append(turns)  # type: ignore[attr-defined]
        with quiet():
            trainer.fit(module, datamodule=data)
        recorder = next(c for c in trainer.callbacks if isinstance(c, Recorder))  # type: ignore[attr-defined]
        seconds = {"lab_eager": [row["time/train"] for row in recorder.rows], **turns.seconds}
    rows = [row(name, times[1:], seconds["bare"][1:], images, batch_size, config) for name, times in seconds.items()]
    show(rows)
    if out is not None:
        write_json(out, {"machine": machine(config), "rows": rows})
    return rows


def noise(config: Config, images: int) -> ImageData:
    """Random images of CIFAR-10's shape, `images` to train on and a few to validate on."""
    data = ImageData(config.data, config.batch_size, config.shift, config.seed)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (images + 10, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(10, (images + 10,), generator=generator)
    everything = Images(pixels, labels)
    data.train_images, data.val_images = everything[torch.arange(images)], everything[torch.arange(images, images + 10)]
    data.class_names = tuple(map(str, range(10)))
    data.normalizer = Normalizer(config.data.normalize, data.train_images)
    return data


def bare_loop(config: Config, data: ImageData) -> Callable[[], None]:
    """An epoch of plain PyTorch steps on one batch that lies on the device."""
    device, module = config.trainer.device, build_module(config, data).to(config.trainer.device)
    model = module.model.train()
    optimizer = module.build_optimizer()
    x, y = next(data.batches(1, device))
    steps = data.steps_per_epoch

    def epoch() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        synchronize(device)

    return epoch


def pipeline(config: Config, data: ImageData) -> Callable[[], None]:
    """An epoch's batches, gathered, normalised and augmented, and thrown away."""
    device = config.trainer.device

    def epoch() -> None:
        for _ in data.batches(1, device):
            pass
        synchronize(device)

    return epoch


class Turns(L.Callback):
    """After each of the lab's epochs, times one of each side run."""

    def __init__(self, side_runs: dict[str, Callable[[], None]]) -> None:
        self.side_runs = side_runs
        self.seconds: dict[str, list[float]] = {name: [] for name in side_runs}

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for name, epoch in self.side_runs.items():
            start = time.perf_counter()
            epoch()
            self.seconds[name].append(time.perf_counter() - start)
        print(f"round {trainer.current_epoch} of {trainer.max_epochs} is done", flush=True)


def row(
    name: str, times: list[float], bare: list[float], images: int, batch_size: int, config: Config
) -> dict[str, Any]:
    """One line of the table; ratio: the median over rounds of this kind's seconds over the bare loop's."""
    ratios = sorted(a / b for a, b in zip(times, bare, strict=True))
    return {
        "name": name,
        "batch_size": batch_size,
        "precision": config.trainer.resolved_precision,
        "images_per_second": images / statistics.median(times),
        "seconds_per_step": statistics.median(times) / -(-images // batch_size),
        "ratio_to_bare": statistics.median(ratios),
        "ratio_spread": [ratios[0], ratios[-1]],
        "rounds": len(times),
    }


def show(rows: list[dict[str, Any]]) -> None:
    print(f"{'name':<12}{'images/s':>10}{'ms/step':>10}{'x bare':>9}  (least to most)")
    for r in rows:
        low, high = r["ratio_spread"]
        print(
            f"{r['name']:<12}{r['images_per_second']:>10.1f}{1000 * r['seconds_per_step']:>10.1f}"
            f"{r['ratio_to_bare']:>9.3f}  ({low:.3f} to {high:.3f})"
        )


def machine(config: Config) -> dict[str, Any]:
    device = config.trainer.device
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "lightning": L.__version__,
    }


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
