"""lightning_plain: the plain loop's network, optimizer and DataLoader in a LightningModule as in the tutorials."""

import logging
import warnings
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.peers.protocol import JsonLines, PeerSpec
from benchmarks.peers.torch_parts import network, optimizer, parameter_count, torchvision_loader, turn_counter


class PlainModule(L.LightningModule):
    """Automatic optimization, and the loss logged in every step."""

    def __init__(self, spec: PeerSpec) -> None:
        super().__init__()
        self.network, self.spec = network(spec), spec

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self.network(x), y)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimizer(self.spec, self.network)


class TurnCallback(L.Callback):
    """Reports each step, and the epochs' ends."""

    def __init__(self, lines: JsonLines, spec: PeerSpec) -> None:
        self.loss = torch.tensor(float("nan"))
        self.turns = turn_counter(lines, spec, "lightning_plain", lambda: self.loss)

    def on_train_start(self, *_: Any) -> None:
        self.turns.begin()

    def on_train_batch_start(self, *_: Any) -> None:
        self.turns.resume()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        self.loss = outputs["loss"]
        self.turns.stepped()

    def on_train_epoch_end(self, *_: Any) -> None:
        self.turns.pause()


def main() -> None:
    lines, spec = JsonLines(), PeerSpec.from_command_line()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    loader, module = torchvision_loader(spec), PlainModule(spec)
    trainer = L.Trainer(
        accelerator=spec.device,
        devices=1,
        precision=spec.precision,  # type: ignore[arg-type]
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[TurnCallback(lines, spec)],
    )
    lines.write(ready=True, parameters=parameter_count(module.network), version=L.__version__)
    trainer.fit(module, loader)


if __name__ == "__main__":
    main()
