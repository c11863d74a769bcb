"""torch_loop: a plain training loop in the style that everybody uses, eager, NCHW, with torch's defaults."""

import torch
from torch.nn import functional as F

from resnetlab.bench_peers.spec import Spec
from resnetlab.bench_peers.turns import Turns
from resnetlab.bench_peers.usual import usual_loader
from resnetlab.bench_peers.wire import Wire

__all__ = ["main"]


def main() -> None:
    wire, spec = Wire(), Spec.read()
    loader, device = usual_loader(spec), torch.device(spec.device)
    model = spec.network().train()
    optimizer = spec.optimizer(model)
    scaler = torch.amp.GradScaler(spec.device, enabled=spec.precision == "16-mixed")
    value = float("nan")
    turns = Turns(wire, "torch_loop", device, spec.batch_size, {"torch_loop": lambda: value})
    wire.say(ready=True, parameters=sum(p.numel() for p in model.parameters()), version=torch.__version__)
    turns.begin()
    while True:
        running_loss = 0.0
        for x, y in loader:
            turns.resume()
            x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
            optimizer.zero_grad()
            with torch.autocast(spec.device, dtype=spec.amp_type, enabled=spec.amp_type is not None):
                loss = F.cross_entropy(model(x), y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            value = loss.item()
            running_loss += value
            turns.stepped()
        turns.pause()


if __name__ == "__main__":
    main()
