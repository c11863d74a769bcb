"""How long a step of the lab takes, against a bare loop over the same network, in turn in one run."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from itertools import chain, count
from pathlib import Path
from typing import Any

import lightning as L
import torch
from scipy import stats
from torch.nn import functional as F

from resnetlab.build import build, build_module, quiet
from resnetlab.callbacks.recorder import Recorder
from resnetlab.config import Config, compose
from resnetlab.data import ImageData, Images
from resnetlab.data.normalize import Normalizer
from resnetlab.errors import ConfigError
from resnetlab.files import write_json
from resnetlab.manifest import processor

__all__ = ["bench"]

EPOCHS = 3  # so that the change from an epoch to the next is seen twice
WARM_UP = 3  # turns that are not counted, in the first epoch


def bench(model: str, steps: int, turn: int, batch_size: int, out: Path | None) -> list[dict[str, Any]]:
    """Prints a table of medians over `steps` steps of each kind, after a few that are not counted.

    Kinds: lab_eager, a step through Lightning with everything on, from the end of one batch's callbacks to the end of
    the next one's; bare, the same network, optimizer and memory format on one resident batch, without data, statistics
    or Lightning; pipeline, making the batch alone. They take turns of `turn` steps, one after the other, so that the
    ratio of a turn survives a machine whose speed drifts; on a GPU a turn ends with a synchronization and should be
    long. What the lab does between two epochs, without validation, is given apart. The images are noise of CIFAR-10's
    shape, every batch whole. out: where the JSON goes. Raises ConfigError.
    """
    if turn < 1 or steps < 6 * turn:  # fewer give no interval of the median
        raise ConfigError(f"--turn (={turn}) must be at least 1, and --steps (={steps}) six times as many")
    rounds = -(-steps // turn) + WARM_UP
    per_epoch = turn * -(-rounds // EPOCHS)
    config = compose(
        f"model={model}", f"batch_size={batch_size}", f"epochs={EPOCHS}", "schedule=constant", "trainer.progress=off"
    )
    data = noise(config, per_epoch * batch_size)
    turns = Turns({"bare": bare_step(config, data), "pipeline": batch_alone(config, data)}, turn)
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        module, data, trainer = build(config, data)
        trainer.callbacks.append(turns)  # type: ignore[attr-defined]
        print(f"{EPOCHS} epochs of {per_epoch} steps of each kind; {WARM_UP} turns are not counted", flush=True)
        with quiet():
            trainer.fit(module, datamodule=data)
    seconds = {name: [t / turn for t in times[WARM_UP:]] for name, times in turns.seconds.items()}
    rows = [row(name, times, seconds["bare"], turn, config) for name, times in seconds.items()]
    between = statistics.median(turns.between_epochs)
    show(rows, between)
    if out is not None:
        write_json(out, {"machine": machine(config), "rows": rows, "seconds_between_epochs": between})
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


def bare_step(config: Config, data: ImageData) -> Callable[[], None]:
    """A plain PyTorch step on one batch that lies on the device."""
    device, module = config.trainer.device, build_module(config, data).to(config.trainer.device)
    model = module.model.train()
    optimizer = module.build_optimizer()
    x, y = next(data.batches(1, device))

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def batch_alone(config: Config, data: ImageData) -> Callable[[], None]:
    """A batch, gathered, normalised and augmented, and thrown away."""
    batches: Iterator[Any] = chain.from_iterable(data.batches(epoch, config.trainer.device) for epoch in count(1))
    return lambda: next(batches) and None


class Turns(L.Callback):
    """The last of the callbacks: after each `turn` of the lab's steps, times as many of each other kind."""

    def __init__(self, others: dict[str, Callable[[], None]], turn: int) -> None:
        self.others, self.turn = others, turn
        self.seconds: dict[str, list[float]] = {name: [] for name in ("lab_eager", *others)}
        self.between_epochs: list[float] = []
        self.mark = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        now = time.perf_counter()
        if trainer.current_epoch > 0:
            recorder = next(c for c in trainer.callbacks if isinstance(c, Recorder))  # type: ignore[attr-defined]
            validation = recorder.rows[-1]["time/epoch"] - recorder.rows[-1]["time/train"]
            self.between_epochs.append(now - self.mark - validation)
        self.mark = now

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % self.turn:
            return
        device = pl_module.device
        synchronize(device)
        self.seconds["lab_eager"].append(time.perf_counter() - self.mark)
        for name, step in self.others.items():
            start = time.perf_counter()
            for _ in range(self.turn):
                step()
            synchronize(device)
            self.seconds[name].append(time.perf_counter() - start)
        self.mark = time.perf_counter()


def row(name: str, times: list[float], bare: list[float], turn: int, config: Config) -> dict[str, Any]:
    """One line of the table; ratio: the median over turns of this kind's seconds over the bare loop's."""
    ratios = [a / b for a, b in zip(times, bare, strict=True)]
    interval = stats.quantile_test(ratios, p=0.5).confidence_interval(0.95)
    seconds = statistics.median(times)
    return {
        "name": name,
        "batch_size": config.batch_size,
        "precision": config.trainer.resolved_precision,
        "images_per_second": config.batch_size / seconds,
        "seconds_per_step": seconds,
        "ratio_to_bare": statistics.median(ratios),
        "ratio_95": [interval.low, interval.high],
        "rounds": len(times),
        "steps_per_round": turn,
    }


def show(rows: list[dict[str, Any]], between_epochs: float) -> None:
    print(f"{'name':<12}{'images/s':>10}{'ms/step':>10}{'x bare':>9}  (95 % interval of the median)")
    for r in rows:
        low, high = r["ratio_95"]
        print(
            f"{r['name']:<12}{r['images_per_second']:>10.1f}{1000 * r['seconds_per_step']:>10.1f}"
            f"{r['ratio_to_bare']:>9.4f}  ({low:.4f} to {high:.4f}; n = {r['rounds']})"
        )
    print(f"between two epochs the lab takes {between_epochs:.2f} s, validation not counted")


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
