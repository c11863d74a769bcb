"""Checks of a whole configuration: values, and combinations of values."""

import math
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from omegaconf import DictConfig, OmegaConf

from resnetlab.config.messages import group_hint
from resnetlab.config.schema import GROUPS, OBJECTIVES, Config
from resnetlab.config.trainer import ENGINES
from resnetlab.data import Data
from resnetlab.errors import ConfigError
from resnetlab.optim.averaging import resolve_momentum
from resnetlab.optim.optimizers import check_pair
from resnetlab.optim.regularization import resolve
from resnetlab.optim.schedules import RunLength, schedule_table


def refuse_unknown(node: DictConfig, path: str = "") -> None:
    """Raises for keys that `+key=value` put past the schema."""
    schema = OmegaConf.get_type(node)
    if schema is not None and is_dataclass(schema):
        valid = [f.name for f in fields(schema)]
        extra = sorted(str(key) for key in node if key not in valid)
        if extra:
            hint = "" if path else group_hint(extra[0], GROUPS)
            raise ConfigError(f"unknown key {path}{extra[0]!s}; {hint or 'valid: ' + ', '.join(valid)}")
    for key in node:
        if not OmegaConf.is_missing(node, key) and isinstance(node[key], DictConfig):
            refuse_unknown(node[key], f"{path}{key!s}.")


def check(config: Config) -> None:
    """Raises ConfigError for the first value or combination that makes no sense; every rule of the lab is here or in
    the check() of one part."""
    for problem in problems(config):
        raise ConfigError(problem)
    for group in GROUPS:
        getattr(config, group).check()
    resolve(config.regularization, config.wd, config.l2)
    resolve_momentum(config.averaging, config.ema_momentum)
    check_pair(config.optimizer.name, config.regularization.name)
    for problem in combination_problems(config):
        raise ConfigError(problem)
    span = RunLength(config.data.steps_per_epoch(config.batch_size), config.epochs)
    config.schedule.check_span(span)
    config.averaging.check_span(span)
    # does lambda work at every t?
    schedule_table(config.schedule, config.lr, config.momentum or 0.0, RunLength(2, config.epochs))


def problems(config: Config) -> Iterator[str]:
    """What is wrong with single values at the top level."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", config.study):
        yield f"study (={config.study!r}) must be a folder's name: at most 100 letters, digits, '.', '_' and '-'"
    if config.seed < 0:
        yield f"seed (={config.seed}) must be >= 0"
    if not 1 <= config.epochs <= 100_000:
        yield f"epochs (={config.epochs}) must be in 1..100,000"
    if not 1 <= config.batch_size <= 1_000_000:
        yield f"batch_size (={config.batch_size}) must be in 1..1,000,000"
    if not (math.isfinite(config.lr) and config.lr > 0):
        yield f"lr (={config.lr}) must be a finite number above 0"
    if config.momentum is not None and not 0 <= config.momentum < 1:
        yield f"momentum (={config.momentum}) must be in [0, 1)"
    if not 0 <= config.shift <= 0.5:
        yield f"shift (={config.shift}) must be a fraction of the image's side in [0, 0.5]"
    if len(set(map(str, config.thresholds))) < len(config.thresholds):
        yield f"thresholds (={config.thresholds}) must differ from each other"
    for threshold in config.thresholds:
        if not isinstance(threshold, float) or not 0 < threshold < 1:
            yield f"thresholds (={threshold}) must be accuracies in (0, 1), such as 0.92"
    if config.objective not in OBJECTIVES:
        yield f"objective (={config.objective}) must be one of {', '.join(OBJECTIVES)}"
    for epoch in config.snapshots:
        if not 1 <= epoch <= config.epochs:
            yield f"snapshots (={config.snapshots}) must be epochs of the run, in 1..{config.epochs}"
    if config.engine not in ENGINES:
        yield f"engine (={config.engine}) must be one of {', '.join(ENGINES)}"
    if config.threads is not None and not 1 <= config.threads <= 1024:
        yield f"threads (={config.threads}) must be in 1..1024, or null for torch's default"


def combination_problems(config: Config) -> Iterator[str]:
    """What cannot go together."""
    for group, options in GROUPS.items():
        part = getattr(config, group)
        option = options.get(part.name)
        kind = option if isinstance(option, type) else type(option)
        if kind is not type(part):
            yield f"{group}.name (={part.name}) cannot be set by itself; choose with {group}=..."
    if config.recalibrate_bn and config.model.norm != "batch":
        yield f"recalibrate_bn (=true) needs model.norm=batch; {config.model.norm} keeps no running statistics"
    if config.momentum is not None and cycles_momentum(config):
        yield (
            f"momentum (={config.momentum}) is not used by schedule={config.schedule.name}, which cycles it; set "
            f"schedule.lowest_momentum and schedule.highest_momentum, or schedule.cycle_momentum=false"
        )
    last, devices = (config.data.images() - 1) % config.batch_size + 1, config.trainer.devices
    if last // devices < config.model.min_batch_size:
        yield (
            f"batch_size (={config.batch_size}) leaves a last batch of {last} of {config.data.images():,} images, "
            f"{f'{last // devices} for one of the {devices} devices, ' if devices > 1 else ''}on which "
            f"{config.model.name} cannot train; take another"
        )
    if config.data.val_images() < devices:
        yield f"trainer.devices (={devices}) must be at most the {config.data.val_images()} validation images"
    if config.objective == "final_test_acc" and not _has_test(config.data):
        yield "objective (=final_test_acc) needs untouched test images: data.split=holdout or tail"
    if (monitor := getattr(config.schedule, "monitor", None)) is not None and monitor not in monitors(config):
        yield f"schedule.monitor (={monitor}) must be one of {', '.join(monitors(config))}"
    if config.schedule.stateful and getattr(config.averaging, "lr", None) is not None:
        yield f"averaging.lr (={config.averaging.lr:g}) cannot go with schedule={config.schedule.name}; leave it out"  # type: ignore[attr-defined]
    if config.objective == "final_val_acc_avg" and config.averaging.name == "none":
        yield "objective (=final_val_acc_avg) needs an average: averaging=ema or swa"
    if getattr(config.optimizer, "nesterov", False) and config.optimizer.name == "sgd" and config.momentum == 0:
        yield "momentum (=0) cannot go with optimizer.nesterov=true; take a momentum above 0"


def monitors(config: Config) -> list[str]:
    """The figures that reduce_on_plateau can watch."""
    recalibrated = ["val/loss_recal", "val/ce_recal", "val/acc_recal"] if config.recalibrate_bn else []
    return [*(f"{part}/{name}" for part in ("val", "train") for name in ("loss", "ce", "acc")), *recalibrated]


def cycles_momentum(config: Config) -> bool:
    return bool(getattr(config.schedule, "cycle_momentum", False))


def _has_test(data: Data) -> bool:
    return data.split in ("tail", "holdout") or (data.split == "stratified" and data.pool == "train")
