"""Selects the engine of a run."""

import torch

from resnetlab.config.schema import Config

GRAPH_CHUNK = 50  # steps in a batch of Lightning's with engine=graph, whose steps are short beside its cost


def select_engine(config: Config, device: torch.device | None = None) -> tuple[str, str | None]:
    """(eager | compile | graph, a remark or None). auto: graph where it can be captured, else eager.

    device: instead of the configuration's.
    """
    device = device or config.trainer.device
    if config.engine not in ("auto", "graph"):
        return config.engine, None
    reason = why_no_graph(config, device)
    if reason is None:
        return "graph", None
    silent = config.engine == "auto" and device.type == "cpu"  # nobody expects a graph there
    return "eager", None if silent else f"engine=eager, because {reason}"


def why_no_graph(config: Config, device: torch.device) -> str | None:
    """Why a step cannot be captured; None if it can."""
    if device.type != "cuda":
        return f"a CUDA graph needs a CUDA device, and this is a {device.type}"
    if config.data.device == "cpu":
        return "data.device=cpu gathers each batch on the host"
    if config.trainer.devices > 1:
        return "gradients that are averaged over several devices are not captured"
    if not config.optimizer.capturable:
        return f"torch's {config.optimizer.name} reads values back on the host, which a graph cannot"
    if getattr(config.optimizer, "fused", None) is False:
        return "optimizer.fused=false asks the host, for the scaler or for lr, and is not captured"
    if config.schedule.stateful:
        return f"schedule={config.schedule.name} sets the lr on the host"
    return None


def steps_per_chunk(config: Config) -> int:
    """The steps in a batch of Lightning's."""
    return config.trainer.chunk or (GRAPH_CHUNK if select_engine(config)[0] == "graph" else 1)
