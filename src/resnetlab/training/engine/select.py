"""Selects the engine of a run."""

from resnetlab.config.schema import Config

GRAPH_CHUNK = 50  # steps in a batch of Lightning's with engine=graph, whose steps are short beside its cost


def select_engine(config: Config) -> tuple[str, str | None]:
    """(eager | compile | graph, a remark or None). auto: graph where it can be captured, else without_graph."""
    if config.engine not in ("auto", "graph"):
        return config.engine, None
    reason = why_no_graph(config)
    if reason is None:
        return "graph", None
    silent = config.engine == "auto" and config.trainer.device.type == "cpu"  # nobody expects a graph there
    name = without_graph(config)
    return name, None if silent else f"engine={name}, because {reason}"


def without_graph(config: Config) -> str:
    """The engine of a run whose step is not captured, though it might be."""
    return "compile" if config.trainer.compile else "eager"


def why_no_graph(config: Config) -> str | None:
    """Why a step cannot be captured; None if it can."""
    optimizer, schedule, kind = config.optimizer, config.schedule, config.trainer.device.type
    unfused = getattr(optimizer, "fused", None) is False
    reasons = (
        (kind != "cuda", f"a CUDA graph needs a CUDA device, and this is a {kind}"),
        (config.data.device == "cpu", "data.device=cpu gathers each batch on the host"),
        (config.trainer.devices > 1, "gradients that are averaged over several devices are not captured"),
        (not optimizer.capturable, f"optimizer={optimizer.name} may read values back on the host"),
        (unfused, "optimizer.fused=false asks the host, for the scaler or for lr, and is not captured"),
        (schedule.stateful, f"schedule={schedule.name} sets the lr on the host"),
    )
    return next((reason for holds, reason in reasons if holds), None)


def steps_per_chunk(config: Config) -> int:
    """The steps in a batch of Lightning's."""
    return config.trainer.chunk or (GRAPH_CHUNK if select_engine(config)[0] == "graph" else 1)
