"""The lines printed before a run trains, and the files written then: config.yaml and manifest.json."""

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from resnetlab.config.compose import to_plain, to_yaml
from resnetlab.config.schema import Config
from resnetlab.console import installed_version
from resnetlab.optim.optimizers.base import group_counts
from resnetlab.optim.schedules import length_warning
from resnetlab.runs.files import sha256, write_json, write_text
from resnetlab.runs.layout import RunFolder
from resnetlab.runs.load import read_manifest
from resnetlab.training.build import Session
from resnetlab.training.callbacks.energy import energy_source
from resnetlab.training.callbacks.profiler import steps_warning
from resnetlab.training.engine.select import select_engine, without_graph
from resnetlab.training.isolation import BACKENDS
from resnetlab.training.result import finished, print_line

CONDITIONS = ("device", "threads", "precision", "engine", "versions", "git")  # they decide about rounding
PACKAGES = ("resnetlab", "torch", "torchvision", "lightning", "hydra-core", "omegaconf", "torchmetrics", "numpy")


def describe(config: Config, session: Session, manifest: dict[str, Any], resumed: bool) -> None:
    """Writes config.yaml and manifest.json, prints what is trained."""
    folder = config.folder
    if resumed and (earlier := read_manifest(folder.path)):
        manifest |= {"trunk": earlier["trunk"]} if "trunk" in earlier else {}
        manifest["earlier"] = [*earlier.pop("earlier", []), earlier]
        pairs = {key: (earlier[key], manifest[key]) for key in CONDITIONS if key in earlier}  # older: without engine
        if "images" in earlier.get("digests", {}):  # of the lab's own sets: another library may round other pixels
            pairs["images"] = (earlier["digests"]["images"], manifest["digests"]["images"])
        if changed := ", ".join(f"{key} {before} -> {now}" for key, (before, now) in pairs.items() if before != now):
            print_line(config, f"note: resumed under other conditions ({changed}); equality to the bit is not promised")
    write_text(folder.config, to_yaml(config))
    write_json(folder.manifest, manifest)
    session.module.on_fallback = partial(record_fallback, config, manifest)
    for line in description(config, session, manifest):
        print_line(config, line)


def record_fallback(config: Config, manifest: dict[str, Any], reason: str) -> None:
    """Says that the run goes on without a graph, and notes it in its manifest."""
    print_line(config, f"note: {reason}")
    write_json(config.folder.manifest, manifest | {"engine": without_graph(config)})


def description(config: Config, session: Session, manifest: dict[str, Any]) -> Iterator[str]:
    """The network, where it is trained, what the optimizer does to which tensors, the images, what may surprise."""
    counts, devices = manifest["model"], config.trainer.devices
    yield (
        f"{config.model.name}: {counts['trainable_parameters']:,} trainable parameters + {counts['statistics']:,} "
        f"batch-norm statistics, {counts['convolutions']} convolutions; on "
        f"{f'{devices} x ' if devices > 1 else ''}{manifest['device']}, "
        f"{manifest['precision']}, engine: {manifest['engine']}, threads: {manifest['threads']}"
    )
    if manifest["tf32"] is not None:
        yield f"products of float32 that are in TF32: {', '.join(manifest['tf32']) or 'none'}"
    for group in manifest["optimizer_groups"]:
        counted = f"{group['tensors']} tensors, {group['parameters']:,} parameters"
        yield f"optimizer group {group['name']}: {counted}, wd {group['wd']:g}"
    data, span = session.data, session.module.span
    if config.init is not None:
        yield f"weights of {config.init}; drawn anew for other classes: {', '.join(session.module.drawn) or 'none'}"
    images = f"{len(data.train):,} training and {len(data.val):,} validation images"
    yield f"{images}; run folder {config.folder.path}"
    notes = [select_engine(config)[1], data.subset_warning(), length_warning(config.schedule, span)]
    for note in (*notes, shorter_run(config), steps_warning(config.trainer.profile, span.steps_per_epoch)):
        if note:
            yield f"note: {note}"


def shorter_run(config: Config) -> str | None:
    """One sentence if the same run with fewer epochs is finished, and how to begin with its weights; else None."""
    mine = json.loads(json.dumps(config.identity | {"epochs": config.epochs}))
    options = "-".join(config.name.split("-")[:4])  # network, data, optimizer, schedule
    for folder in map(RunFolder, config.folder.path.parents[1].glob(f"{options}*/{config.folder.path.name}")):
        theirs: dict[str, Any] = {"epochs": Config.epochs} | read_manifest(folder.path).get("differs_from_defaults", {})
        shorter = theirs["epochs"] < config.epochs and theirs | {"epochs": config.epochs} == mine
        if shorter and (done := finished(folder, config)) and done["status"] == "finished" and folder.last.is_file():
            begin = f"init='{folder.last}' begins with its weights (the = in it needs quotes)"
            return f"{folder.path} is this run for {theirs['epochs']} epochs, with a schedule of that length; {begin}"
    return None


def make_manifest(config: Config, session: Session, command: Sequence[str]) -> dict[str, Any]:
    """Plain data: command, code, versions, device, threads, precision as resolved, counts of tensors and parameters.

    command: of this run alone.
    """
    device, module = config.trainer.device, session.module
    compiled = " + compile" if module.engine_name == "graph" and config.trainer.compile else ""
    products: dict[str, Any] = {"convolutions": BACKENDS.cudnn.conv, "matrices": BACKENDS.cuda.matmul}
    tf32 = [name for name, backend in products.items() if backend.fp32_precision == "tf32"]
    return {
        **{"configuration": config.folder.path.parent.name, "differs_from_defaults": config.identity},
        **{"config": to_plain(config), "digests": session.digests, "classes": len(session.data.class_names)},
        "command": [Path(command[0]).name, *command[1:]],
        "git": git_state(),
        "versions": {"python": platform.python_version(), **{name: installed_version(name) for name in PACKAGES}},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        **{"accelerator": device.type, "devices": config.trainer.devices, "cores": os.cpu_count()},
        **{"threads": torch.get_num_threads(), "precision": config.trainer.resolved_precision},
        **energy_source(device),
        **{"model": model_counts(module.model), "optimizer_groups": group_counts(module.build_optimizer())},
        **{"engine": module.engine_name + compiled, "tf32": tf32 if device.type == "cuda" else None},
    }


def model_counts(model: nn.Module) -> dict[str, int]:
    """Trainable parameters, batch-norm statistics and convolutions."""
    return {
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "statistics": sum(b.numel() for b in model.buffers() if b.is_floating_point()),
        "convolutions": sum(isinstance(m, nn.Conv2d) for m in model.modules()),
    }


def git_state() -> dict[str, Any]:
    """The source tree's commit, and whether it was changed since; null where git does not know it. A digest of it."""
    commands = ["rev-parse", "HEAD"], ["status", "--porcelain"], ["ls-files", "--error-unmatch", __file__]
    git = partial(subprocess.run, cwd=Path(__file__).parent, check=True, capture_output=True, text=True)
    code = sha256(b"".join(file.read_bytes() for file in sorted(Path(__file__).parents[1].rglob("*.py"))))
    try:
        sha, status, _ = (git(["git", *words]).stdout.strip() for words in commands)
    except (OSError, subprocess.CalledProcessError):
        return {"sha": None, "dirty": None, "code": code}
    return {"sha": sha, "dirty": bool(status), "code": code}


def processor() -> str:
    """The processor's name, from Linux' /proc/cpuinfo where there is one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
