"""lab_*: the lab as train.py runs it, with everything on; and bare, a bare loop between the steps of lab_eager.

bare is the lab's own network, optimizer, precision and memory format on one resident batch, and nothing else.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
import torch
from torch.nn import functional as F

from benchmarks.peers.protocol import JsonLines, PeerSpec, TurnCounter
from benchmarks.peers.torch_parts import AMP_TYPES, config_of, parameter_count, peak_mib, synchronize
from resnetlab.config.schema import Config
from resnetlab.data import Chunk, ImageData, Images
from resnetlab.data.normalize import Normalizer
from resnetlab.training.build import build, build_module
from resnetlab.training.callbacks.recorder import Recorder
from resnetlab.training.engine.select import select_engine, steps_per_chunk
from resnetlab.training.lightning_internals import silence_lightning
from resnetlab.training.module import ImageClassifier

BARE_FIRST = 2  # steps of the bare loop before the lab is built, to see what memory it takes alone


def lab_data(spec: PeerSpec, config: Config) -> ImageData:
    """Whole batches to train on, few where spec.epoch_steps is to show a slow machine's epochs; ten to validate on."""
    data = ImageData(config.data, config.batch_size, config.shift, config.seed, steps_per_chunk(config))
    pixels, labels = (torch.from_numpy(part) for part in spec.training_images())
    everything = Images(pixels.permute(0, 3, 1, 2).contiguous(), labels)
    images = min(spec.whole, spec.batch_size * (spec.epoch_steps or spec.whole))
    data.train_images, data.val_images = everything[torch.arange(images)], everything[torch.arange(10)]
    data.class_names = tuple(map(str, range(10)))
    data.normalizer = Normalizer(config.data.normalize, data.train_images)
    return data


def bare_step(spec: PeerSpec, config: Config, data: ImageData) -> tuple[Callable[[], None], Callable[[], float]]:
    """(a plain PyTorch step on one batch that lies on the device, the loss of the last one)."""
    torch.backends.cudnn.benchmark = True  # as the lab's Trainer has it
    device, amp_type = torch.device(spec.device), AMP_TYPES.get(spec.precision)
    module = build_module(config, data).to(device)
    model, optimizer = module.model.train(), module.build_optimizer()
    x, y = next(data.batches(1, device))
    scaler = torch.amp.GradScaler(spec.device, enabled=spec.precision == "16-mixed")
    last = torch.tensor(float("nan"))

    def step() -> None:
        nonlocal last
        optimizer.zero_grad()
        with torch.autocast(spec.device, dtype=amp_type, enabled=amp_type is not None):
            loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        last = loss.detach()

    return step, lambda: float(last)


def epoch_loss(module: ImageClassifier) -> float:
    """The mean over the epoch so far, which is left to go on."""
    loss, _, images, _ = module.step.metrics.sums.tolist()
    return loss / images


class TurnCallback(L.Callback):
    """Reports each batch of Lightning's, which may be several steps. To be the last of the callbacks."""

    def __init__(self, turns: TurnCounter) -> None:
        self.turns = turns

    def on_train_start(self, *_: Any) -> None:
        self.turns.begin()

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if self.turns.paused is not None:
            last = next(c for c in trainer.callbacks if isinstance(c, Recorder)).rows[-1]
            self.turns.resume(last["time/epoch"] - last["time/train"])

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Chunk, batch_idx: int) -> None:
        self.turns.stepped(batch.steps)
        if batch_idx + 1 == trainer.num_training_batches:
            self.turns.pause()


def release_peak(data: ImageData, device: torch.device) -> float:
    """Count the peak anew; MiB that bare holds on a GPU beside the images, which lie there for the lab too."""
    if device.type != "cuda":
        return 0.0
    torch.cuda.reset_peak_memory_stats(device)
    return (torch.cuda.memory_allocated(device) - data.train.pixels.nbytes) / 2**20


def main() -> None:
    lines, spec = JsonLines(), PeerSpec.from_command_line()
    config, device = config_of(spec), torch.device(spec.device)
    lab = spec.names[-1]
    data = lab_data(spec, config)
    data.to_device(device)
    losses: dict[str, Callable[[], float]] = {}
    steps: dict[str, Callable[[], object]] = {}
    peaks, held = {}, 0.0
    if "bare" in spec.names:
        steps["bare"], losses["bare"] = bare_step(spec, config, data)
        for _ in range(BARE_FIRST):
            steps["bare"]()
        peaks["bare"], held = peak_mib(device), release_peak(data, device)
    module, data, trainer = build(config, data)
    losses[lab] = partial(epoch_loss, module)
    chosen, why = select_engine(config)
    if chosen != lab.removeprefix("lab_").removesuffix("_compile"):
        raise SystemExit(why)

    def facts() -> dict[str, dict[str, float]]:
        all_peaks = peaks | {lab: peak_mib(device) - held}
        return {"losses": {name: loss() for name, loss in losses.items()}, "peak_mib": all_peaks}

    sync = partial(synchronize, device)
    turns = TurnCounter(lines, lab, spec.batch_size, sync, facts, others=steps, grain=spec.grain)
    trainer.callbacks.append(TurnCallback(turns))  # type: ignore[attr-defined]
    lines.write(ready=True, parameters=parameter_count(module.model), version=torch.__version__)
    with silence_lightning():
        trainer.fit(module, datamodule=data)


if __name__ == "__main__":
    main()
