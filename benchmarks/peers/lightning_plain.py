"""lightning_plain: the plain loop's network, optimizer and DataLoader in a LightningModule as in the tutorials."""

import logging
import warnings
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnetlab.bench_peers.spec import Spec
from resnetlab.bench_peers.turns import Turns
from resnetlab.bench_peers.usual import usual_loader
from resnetlab.bench_peers.wire import Wire

__all__ = ["main"]


class Plain(L.LightningModule):
    """Automatic optimization, and the loss logged in every step."""

    def __init__(self, network: nn.Module, spec: Spec) -> None:
        super().__init__()
        self.network, self.spec = network, spec

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self.network(x), y)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.spec.optimizer(self.network)


class Waiting(L.Callback):
    """Tells the turns of each step, and of the epochs' ends."""

    def __init__(self, wire: Wire, spec: Spec) -> None:
        self.loss = torch.tensor(float("nan"))
        self.turns = Turns(
            wire,
            "lightning_plain",
            torch.device(spec.device),
            spec.batch_size,
            {"lightning_plain": lambda: float(self.loss)},
        )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.turns.begin()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.turns.resume()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.loss = outputs["loss"]
        self.turns.stepped()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.turns.pause()


def main() -> None:
    wire, spec = Wire(), Spec.read()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    loader, module = usual_loader(spec), Plain(spec.network(), spec)
    trainer = L.Trainer(
        accelerator=spec.device,
        devices=1,
        precision=spec.precision,  # type: ignore[arg-type]
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Waiting(wire, spec)],
    )
    wire.say(ready=True, parameters=sum(p.numel() for p in module.network.parameters()), version=L.__version__)
    trainer.fit(module, loader)


if __name__ == "__main__":
    main()
