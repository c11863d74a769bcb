"""lab_*: the lab as train.py runs it, through its own Trainer with everything on; between its steps, the bare one."""

from typing import Any

import lightning as L
import torch

from resnetlab.bench_peers.bare import bare_step
from resnetlab.bench_peers.spec import Spec
from resnetlab.bench_peers.turns import Turns, peak_mib
from resnetlab.bench_peers.wire import Wire
from resnetlab.data import Chunk, ImageData, Images
from resnetlab.data.normalize import Normalizer
from resnetlab.training.build import build, choose_engine, silence_lightning
from resnetlab.training.callbacks.recorder import Recorder
from resnetlab.training.module import ImageClassifier

__all__ = ["lab_data", "main"]

BARE_FIRST = 2  # steps of the bare loop before the lab is built, to see what memory it takes alone


def lab_data(spec: Spec) -> ImageData:
    """Whole batches to train on, and ten images to validate on.

    An epoch has epoch_steps steps, if that is given: so that a slow machine sees its end too.
    """
    config = spec.config
    data = ImageData(config.data, config.batch_size, config.shift, config.seed)
    if spec.root is None:
        pixels, labels = (torch.from_numpy(part) for part in spec.noise())
        everything = Images(pixels.permute(0, 3, 1, 2).contiguous(), labels)
        data.class_names = tuple(map(str, range(10)))
    else:
        data.setup()
        everything = data.train
    images = min(spec.whole, spec.batch_size * (spec.epoch_steps or spec.whole))
    data.train_images, data.val_images = everything[torch.arange(images)], everything[torch.arange(10)]
    data.normalizer = Normalizer(config.data.normalize, data.train_images)
    return data


def epoch_loss(module: ImageClassifier) -> float:
    """The mean over the epoch so far, which is left to go on."""
    loss, _, images, _ = module.step.metrics.sums.tolist()
    return loss / images


class Waiting(L.Callback):
    """The last of the callbacks: tells the turns of each batch of Lightning's, which may be several steps."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.turns.begin()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.turns.paused is not None:
            recorder = next(c for c in trainer.callbacks if isinstance(c, Recorder))  # type: ignore[attr-defined]
            self.turns.resume(recorder.rows[-1]["time/epoch"] - recorder.rows[-1]["time/train"])

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Chunk, batch_idx: int
    ) -> None:
        self.turns.stepped(batch.steps)
        if batch_idx + 1 == trainer.num_training_batches:
            self.turns.pause()


def main() -> None:
    wire, spec = Wire(), Spec.read()
    data, device = lab_data(spec), torch.device(spec.device)
    data.to_device(device)
    memory, resident, others, losses = {}, 0.0, {}, {}
    if "bare" in spec.names:
        step, losses["bare"] = bare_step(spec, data)
        for _ in range(BARE_FIRST):
            step()
        others["bare"], memory["bare"] = step, peak_mib(device)
        if device.type == "cuda":
            resident = torch.cuda.memory_allocated(device) / 2**20
            torch.cuda.reset_peak_memory_stats(device)
    lab = next((name for name in spec.names if name.startswith("lab_")), None)
    if lab is None:
        turns = Turns(wire, "bare", device, spec.batch_size, losses, memory=lambda: memory)
        wire.say(ready=True, version=torch.__version__)
        turns.begin()
        while True:
            others["bare"]()
            turns.stepped()
    module, data, trainer = build(spec.config, data)
    found, why = choose_engine(spec.config)
    if found != lab.removeprefix("lab_"):
        raise SystemExit(why)
    # the images lie on the GPU for both, so of what the bare loop holds only its network and optimizer are taken off
    resident -= data.train.pixels.nbytes / 2**20 if resident else 0.0
    turns = Turns(
        wire,
        lab,
        device,
        spec.batch_size,
        {lab: lambda: epoch_loss(module), **losses},
        others,
        spec.grain,
        lambda: {lab: peak_mib(device) - resident, **memory},
    )
    trainer.callbacks.append(Waiting(turns))  # type: ignore[attr-defined]
    wire.say(ready=True, parameters=sum(p.numel() for p in module.model.parameters()), version=torch.__version__)
    with silence_lightning():
        trainer.fit(module, datamodule=data)


if __name__ == "__main__":
    main()
