"""Checks of a whole configuration: top-level values, and combinations of groups. A group's own are in its check()."""

import os
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from resnetlab.config.schema import GROUPS, Config, callback_of
from resnetlab.dotted import call
from resnetlab.errors import ConfigError, check_limits, require, require_one_of
from resnetlab.optim.optimizers import check_pair
from resnetlab.optim.schedules import RunLength, schedule_table

# (keys, what they are used with, whether it is so): elsewhere they must be at a default
USES: list[tuple[str, str, Callable[[Any], bool]]] = [
    ("shift", "data.translate=shift", lambda c: c.data.translate == "shift"),
    ("data.padding", "data.translate=pad_crop", lambda c: c.data.translate == "pad_crop"),
    ("shift data.translate", "data.augment=true", lambda c: c.data.augment),
    ("data.alternating_flip", "data.flip=true and data.augment=true", lambda c: c.data.flip and c.data.augment),
    ("data.alternating_flip", "data.balance=none or weights", lambda c: c.data.balance != "sampling"),
    ("data.magnitude", "data.randaugment above 0", lambda c: c.data.randaugment > 0),
    ("data.split_seed", "data.split=stratified or holdout", lambda c: c.data.split in ("stratified", "holdout")),
    ("model.bn_momentum", "model.norm=batch", lambda c: c.model.norm == "batch"),
    ("schedule.warmup_from schedule.warmup_prefix", "schedule.warmup above 0", lambda c: c.schedule.warmup > 0),
    ("schedule.length", "a schedule that follows the time", lambda c: not c.schedule.stateful),
    ("schedule.lowest_momentum schedule.highest_momentum", "schedule.cycle_momentum", lambda c: cycles_momentum(c)),
    ("averaging.anneal", "averaging.anneal_epochs", lambda c: getattr(c.averaging, "anneal_epochs", 0) > 0),
]


def check_uses(config: Config) -> None:
    """Refuses a value that has no effect: it would give the same result under another name."""
    for keys, where, used in USES:
        for key in () if used(config) else keys.split():
            group, _, name = key.rpartition(".")
            part, options = (getattr(config, group), GROUPS[group].values()) if group else (config, [Config])
            defaults = [getattr(option, name) for option in options if hasattr(option, name)]  # data=digits sets others
            value = getattr(part, name, None)
            require(value in [None, *defaults], key, value, f"be at its default: it is used with {where} only")


def check(config: Config) -> None:
    """Raises ConfigError for the first value or combination that makes no sense."""
    check_numbers(config)
    check_values(config)
    for group, options in GROUPS.items():
        part = getattr(config, group)
        if type(part) is not type(options.get(part.name)):  # `schedule={name: cosine}` on another schedule's keys
            raise ConfigError(f"{group}.name (={part.name}) cannot be set by itself; choose with {group}=...")
        getattr(config, group).check()
    check_pair(config.optimizer.name, config.regularization.name)
    check_own_parts(config)
    check_engine(config)
    check_batches(config)
    check_momentum(config)
    check_metrics(config)
    check_length(config)


def check_numbers(part: object, path: str = "") -> None:
    """Refuses numbers that nobody means: float32 makes 0 of 1e-320 and infinity of 1e308. path: "" or "schedule."."""
    for key in fields(part):  # type: ignore[arg-type]
        value = getattr(part, key.name)
        if is_dataclass(value):
            check_numbers(value, f"{key.name}.")
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float):
                must = "be 0, or from 1e-30 to 1e30 in size"
                require(number == 0 or 1e-30 <= abs(number) <= 1e30, path + key.name, value, must)
            elif isinstance(number, int):
                require(abs(number) < 10**18, path + key.name, value, "be below 10**18")


def check_values(config: Config) -> None:
    """Top-level values by themselves."""
    check_limits("config", vars(config))
    differ = len(set(map(str, config.thresholds))) == len(config.thresholds)
    require(differ, "thresholds", config.thresholds, "differ from each other")
    for threshold in config.thresholds:
        ok = isinstance(threshold, float) and 0 < threshold < 1
        require(ok, "thresholds", threshold, "be accuracies in (0, 1), such as 0.92")
    reached = all(isinstance(epoch, int) and 1 <= epoch <= config.epochs for epoch in config.snapshots)
    require(reached, "snapshots", config.snapshots, f"be epochs of the run, in 1..{config.epochs}")


def check_own_parts(config: Config) -> None:
    """The user's callbacks, the checkpoint to begin with, and the frozen parts of the network are there."""
    own_callbacks(config)
    require(config.init is None or os.path.isfile(config.init), "init", config.init, "be a checkpoint that is there")
    names = [f"{name}." for name, _ in config.model.skeleton().named_parameters()] if config.freeze else []
    must = f"be a part of the network, such as {', '.join(dict.fromkeys(name.split('.')[0] for name in names))}"
    for part in config.freeze:
        require(any(name.startswith(f"{part}.") for name in names), "freeze", part, must)


def own_callbacks(config: Config) -> list[Any]:
    """New instances of the user's callbacks. Raises ConfigError."""
    if config.callbacks:
        from lightning import Callback  # takes seconds, for those who have some
    return [call("callbacks", path, given, Callback) for path, given in map(callback_of, config.callbacks)]


def check_engine(config: Config) -> None:
    """The statistics to re-estimate are there, and the engine goes with the rest."""
    if config.recalibrate_bn and config.model.norm != "batch":
        raise ConfigError(f"recalibrate_bn (=true) needs model.norm=batch; {config.model.norm} has no statistics")
    if config.data.device == "cpu" and (config.engine == "compile" or config.trainer.compile):
        taken = "engine (=compile)" if config.engine == "compile" else "trainer.compile (=true)"
        cure = "take engine=eager" if config.engine == "compile" else "leave it out"
        raise ConfigError(f"{taken} gathers the images on their device, not data.device (=cpu); {cure}")
    if config.trainer.compile and config.engine == "eager":
        raise ConfigError("trainer.compile (=true) goes with engine=auto or graph; without a graph: engine=compile")


def check_batches(config: Config) -> None:
    """The model trains on every batch, also the last one of an epoch, and each device has images to validate."""
    devices = config.trainer.devices
    check_last_batch(config, config.data.images(), *config.data.size())
    val_images = config.data.val_images()
    require(val_images >= devices, "trainer.devices", devices, f"be at most the {val_images} validation images")


def check_last_batch(config: Config, images: int, height: int, width: int) -> None:
    """The model trains on the last batch of an epoch of so many images, on every device and in every part of it."""
    devices, parts = config.trainer.devices, config.trainer.accumulate
    last = (images - 1) % config.batch_size + 1
    share_size = last // (devices * parts)
    probed = share_size == 1 or config.model.name == "custom"
    least = config.model.min_batch_size(height, width) if probed else 1
    if share_size < least:
        shares = f"{devices} devices" if devices > 1 else f"{parts} parts of trainer.accumulate"
        share = f"{share_size} for one of the {shares}, " if devices * parts > 1 else ""
        raise ConfigError(
            f"batch_size (={config.batch_size}) leaves a last batch of {last} of {images:,} images, {share}on which "
            f"{config.model.name} cannot train at {height}x{width} pixels; take another"
        )


def check_momentum(config: Config) -> None:
    """The top-level momentum is used, and suits the optimizer."""
    if config.momentum is not None and cycles_momentum(config):
        raise ConfigError(
            f"momentum (={config.momentum}) is not used by schedule={config.schedule.name}, which cycles it; set "
            f"schedule.lowest_momentum and schedule.highest_momentum, or schedule.cycle_momentum=false"
        )
    if getattr(config.optimizer, "nesterov", False) and config.optimizer.name == "sgd" and config.momentum == 0:
        raise ConfigError("momentum (=0) cannot go with optimizer.nesterov=true; take a momentum above 0")


def check_metrics(config: Config) -> None:
    """The metrics that the objective and the schedule read will be there."""
    data, (_, test, untouched) = config.data, config.data.parts
    test = untouched if data.split == "official" else test * ((data.split, data.pool) != ("stratified", "all"))
    if config.objective == "final_test_acc" and not test:
        raise ConfigError("objective (=final_test_acc) needs untouched test images: data.split=holdout or tail")
    if config.objective == "final_val_acc_avg" and config.averaging.name == "none":
        raise ConfigError("objective (=final_val_acc_avg) needs an average: averaging=ema or swa")
    monitor = getattr(config.schedule, "monitor", None)
    if monitor is not None:
        recalibrated = ["val/loss_recal", "val/ce_recal", "val/acc_recal"] if config.recalibrate_bn else []
        known = [f"{part}/{name}" for part in ("val", "train") for name in ("loss", "ce", "acc")]
        require_one_of("schedule.monitor", monitor, [*known, *recalibrated])


def check_length(config: Config) -> None:
    """The schedule and the average fit the run's epochs, and every learning rate is finite and not negative."""
    averaging_lr = getattr(config.averaging, "lr", None)
    if config.schedule.stateful and averaging_lr is not None:
        cure = f"cannot go with schedule={config.schedule.name}; leave it out"
        raise ConfigError(f"averaging.lr (={averaging_lr:g}) {cure}")
    span = config.span
    config.schedule.check_span(span)
    config.averaging.check_span(span)
    # two steps an epoch: schedule=lambda is called at half and whole epochs, not at each of 47,000 steps
    span, function = RunLength(2, config.epochs), getattr(config.schedule, "function", None)
    tables = [schedule_table(config.schedule, config.lr, config.momentum or 0.0, span, True) for _ in range(2)]
    must = "return the same at every call with the same t"
    require(np.array_equal(tables[0], tables[1]), "schedule.function", function, must)


def cycles_momentum(config: Config) -> bool:
    """Whether the schedule sets the momentum at each step."""
    return bool(getattr(config.schedule, "cycle_momentum", False))
