"""torch_loop: a plain training loop in the usual style, eager, NCHW, with torch's defaults."""

import torch
from torch.nn import functional as F

from benchmarks.peers.protocol import JsonLines, PeerSpec
from benchmarks.peers.torch_parts import (
    AMP_TYPES,
    network,
    optimizer,
    parameter_count,
    torchvision_loader,
    turn_counter,
)


def main() -> None:
    lines, spec = JsonLines(), PeerSpec.from_command_line()
    loader, device, amp_type = torchvision_loader(spec), torch.device(spec.device), AMP_TYPES.get(spec.precision)
    model = network(spec).train()
    adamw = optimizer(spec, model)
    scaler = torch.amp.GradScaler(spec.device, enabled=spec.precision == "16-mixed")
    value = float("nan")
    turns = turn_counter(lines, spec, "torch_loop", lambda: value)
    lines.write(ready=True, parameters=parameter_count(model), version=torch.__version__)
    turns.begin()
    while True:
        running_loss = 0.0
        for x, y in loader:
            turns.resume()
            x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
            adamw.zero_grad()
            with torch.autocast(spec.device, dtype=amp_type, enabled=amp_type is not None):
                loss = F.cross_entropy(model(x), y)
            scaler.scale(loss).backward()
            scaler.step(adamw)
            scaler.update()
            value = loss.item()
            running_loss += value
            turns.stepped()
        turns.pause()


if __name__ == "__main__":
    main()
