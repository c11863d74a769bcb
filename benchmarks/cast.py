"""Which peers a setting has, and how each is started."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from resnetlab.bench.options import NAMES, SIZES, Options, Setting
from resnetlab.bench.peer import Peer, module_command, script
from resnetlab.bench_peers.spec import Spec
from resnetlab.trainer import PRECISIONS

__all__ = ["data_root", "expected", "not_asked", "spec_for", "start", "start_lab"]

EPOCH_STEPS = 8  # of the lab's epoch on the cpu, so that its end is seen
GRAIN = {"cpu": 1, "cuda": 20}  # steps of the lab, then as many of the bare loop: a GPU must be kept busy


def expected(options: Options, setting: Setting) -> tuple[list[str], dict[str, str]]:
    """(the rows that the setting can have, {name: why not}); a row that nobody asked for is not missed."""
    left_out = {}
    if (reason := options.why_no_keras) is not None:
        left_out["keras"] = reason
    if options.device == "cpu":
        left_out["lab_graph"] = "a CUDA graph needs a CUDA device"
    if setting.batch_size != options.sizes[0]:
        left_out["lab_compile"] = f"compiled anew for each size, so at the first one (={options.sizes[0]}) only"
    asked = [name for name in NAMES if options.names is None or name in options.names]
    return [n for n in asked if n not in left_out], {n: why for n, why in left_out.items() if n in asked}


def not_asked(options: Options) -> list[dict[str, Any]]:
    """Entries for the sizes and precisions that are measured only where somebody asks for them."""
    first = options.settings[0]
    sizes = [] if options.batch_sizes else [size for size in SIZES if size not in options.sizes]
    measured = {"auto", *(setting.precision for setting in options.settings)}
    precisions = [] if options.precisions else [precision for precision in PRECISIONS if precision not in measured]
    found = [(Setting(n, first.precision), f"on a cpu only where --batch-sizes {n} asks for it") for n in sizes]
    for precision in precisions:
        no_gpu = precision == "16-mixed" and options.device == "cpu"
        reason = "needs a CUDA device" if no_gpu else f"only where --precisions {precision} asks for it"
        found.append((Setting(first.batch_size, precision), reason))
    return [{"name": "all", "reason": reason} | vars(setting) for setting, reason in found]


def start(options: Options, setting: Setting, names: list[str]) -> list[Peer]:
    """A process for each, all started at once; bare lives with lab_eager, to take turns step by step."""
    spec, peers = spec_for(options, setting), []
    together: list[str] = [name for name in ("bare", "lab_eager") if name in names]
    for name in names:
        if name == "keras":
            config = options.config
            told = {"depth": config.model.depth, "shift": config.shift, "lr": config.lr, "wd": config.wd}  # type: ignore[attr-defined]
            line = json.dumps(json.loads(spec.line()) | told)
            peers.append(Peer([name], *script(options.keras, "keras_series", line)))
        elif name in together:
            if name == together[0]:
                peers.append(start_lab(spec, together))
        elif name.startswith("lab_"):
            peers.append(start_lab(spec, [name]))
        else:
            peers.append(Peer([name], *module_command(name, spec.line())))
    return peers


def start_lab(spec: Spec, names: list[str], threads: int | None = None) -> Peer:
    """threads: of each process, where several run at once."""
    command, env = module_command("lab", replace(spec, names=tuple(names)).line())
    return Peer(names, command, env if threads is None else env | {"OMP_NUM_THREADS": str(threads)})


def spec_for(options: Options, setting: Setting) -> Spec:
    return Spec(
        names=(),
        model=options.model,
        batch_size=setting.batch_size,
        precision=setting.precision,
        device=options.device,
        root=data_root(options),
        images=options.images,
        workers=options.worker_count,
        grain=GRAIN[options.device],
        epoch_steps=EPOCH_STEPS if options.device == "cpu" else None,
    )


def data_root(options: Options) -> str | None:
    """The folder that has CIFAR-10, or None: nothing is downloaded for a measurement."""
    root = Path(options.config.data.root).expanduser().absolute()
    return str(root) if (root / "cifar-10-batches-py" / "data_batch_1").is_file() else None
