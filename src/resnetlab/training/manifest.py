"""manifest.json: what a run was trained with: command, code, versions, device, counts of tensors and parameters."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from resnetlab.config.compose import to_plain
from resnetlab.config.schema import Config
from resnetlab.optim.optimizers.base import group_counts
from resnetlab.training.callbacks.energy import energy_source
from resnetlab.training.module import ImageClassifier

PACKAGES = ("resnetlab", "torch", "torchvision", "lightning", "hydra-core", "omegaconf", "torchmetrics", "numpy")


def make_manifest(config: Config, module: ImageClassifier, digests: dict[str, str]) -> dict[str, Any]:
    """Plain data: command, code, versions, device, threads, precision as resolved, counts of tensors and parameters."""
    device = config.trainer.device
    return {
        "configuration": config.folder.path.parent.name,
        "differs_from_defaults": config.identity,
        "config": to_plain(config),
        "digests": digests,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "git": git_state(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "accelerator": device.type,
        "devices": config.trainer.devices,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "precision": config.trainer.resolved_precision,
        **energy_source(device),
        "model": model_counts(module.model),
        "optimizer_groups": group_counts(module.build_optimizer()),
        "engine": module.engine_name,
    }


def model_counts(model: nn.Module) -> dict[str, int]:
    """Trainable parameters, batch-norm statistics and convolutions."""
    return {
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "statistics": sum(b.numel() for b in model.buffers() if b.is_floating_point()),
        "convolutions": sum(isinstance(m, nn.Conv2d) for m in model.modules()),
    }


def git_state() -> dict[str, Any]:
    """The commit of the source tree and whether it has uncommitted changes; nulls outside a git checkout."""
    git = ["git", "-C", str(Path(__file__).parents[1])]
    commands = ([*git, "rev-parse", "HEAD"], [*git, "status", "--porcelain"])
    try:
        sha, status = (subprocess.run(c, check=True, capture_output=True, text=True).stdout.strip() for c in commands)
    except (OSError, subprocess.CalledProcessError):
        return {"sha": None, "dirty": None}
    return {"sha": sha, "dirty": bool(status)}


def processor() -> str:
    """The processor's name, from Linux' /proc/cpuinfo where there is one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
