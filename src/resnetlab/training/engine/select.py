"""Selects the engine of a run."""

import torch

from resnetlab.optim.optimizers import Optimizer
from resnetlab.optim.schedules import Schedule


def select_engine(
    engine: str, device: torch.device, devices: int, optimizer: Optimizer, schedule: Schedule
) -> tuple[str, str | None]:
    """(eager | compile | graph, a remark or None). auto: graph where it can be captured, else eager."""
    if engine not in ("auto", "graph"):
        return engine, None
    reason = why_no_graph(device, devices, optimizer, schedule)
    if reason is None:
        return "graph", None
    silent = engine == "auto" and device.type == "cpu"  # nobody expects a graph there
    return "eager", None if silent else f"engine=eager, because {reason}"


def why_no_graph(device: torch.device, devices: int, optimizer: Optimizer, schedule: Schedule) -> str | None:
    """Why a step cannot be captured; None if it can."""
    if device.type != "cuda":
        return f"a CUDA graph needs a CUDA device, and this is a {device.type}"
    if devices > 1:
        return "gradients that are averaged over several devices are not captured"
    if not optimizer.capturable:
        return f"torch's {optimizer.name} reads values back on the host, which a graph cannot"
    if getattr(optimizer, "fused", None) is False:
        return "optimizer.fused=false asks the host, for the scaler or for lr, and is not captured"
    if schedule.stateful:
        return f"schedule={schedule.name} sets the lr on the host"
    return None
