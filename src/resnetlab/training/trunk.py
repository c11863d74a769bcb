"""Shared beginnings: a run (a branch) goes on from a copy of another run's checkpoint (its trunk).

The state after an epoch depends on the epochs before it alone: two runs whose learning rates and momenta agree up to
there, and whose settings agree but for the schedule, the length and an average that begins later, are one run so far.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from resnetlab.config.compose import from_plain, to_plain
from resnetlab.config.schema import Config
from resnetlab.optim.averaging import EMA, SWA
from resnetlab.optim.schedules import RunLength
from resnetlab.runs.files import read_rows, write_atomically
from resnetlab.runs.layout import SEED, RunFolder, run_key
from resnetlab.runs.load import read_manifest
from resnetlab.runs.summary import best_row
from resnetlab.training.build import Session, planned_lr_momentum
from resnetlab.training.callbacks.checkpoints import read_own_checkpoint
from resnetlab.training.callbacks.recorder import Recorder
from resnetlab.training.describe import CONDITIONS, make_manifest
from resnetlab.training.recorded import schedule_digest

MAY_DIFFER = ("schedule", "averaging", "epochs", "ema_momentum")  # epoch_keys tells what counts of them
Manifest = Mapping[str, Any]


class Branch(NamedTuple):
    """Checkpoints to go on from, already this run's own. trunk: {"run", "epoch"}, for the manifest."""

    trunk: dict[str, Any]
    best: dict[str, Any]
    last: dict[str, Any]

    def write(self, folder: RunFolder) -> Path:
        """Writes them, last.ckpt, with which the run has begun, after the other; returns its path."""
        for path, checkpoint in ((folder.best, self.best), (folder.last, self.last)):
            write_atomically(path, lambda file, content=checkpoint: torch.save(content, file))  # type: ignore[misc]
        return folder.last


def settings(manifest: Manifest) -> dict[str, Any]:
    """All settings that agree in two runs with an epoch in common."""
    config, identity = manifest.get("config", {}), manifest.get("differs_from_defaults", {})
    found = {key: value for key, value in identity.items() if key.split(".")[0] not in MAY_DIFFER}
    found |= {f"data.{key}": config.get("data", {}).get(key) for key in ("device", "eval_batch_size")}
    found |= {"seed": config.get("seed"), "trainer.chunk": config.get("trainer", {}).get("chunk")}
    return dict(json.loads(json.dumps(found)))


def conditions(manifest: Manifest) -> dict[str, Any]:
    """What else agrees: machine, versions, code and images; nothing is known of a run that is only planned."""
    digests = {f"digest of {key}": value for key, value in manifest.get("digests", {}).items() if key != "schedule"}
    return {key: manifest[key] for key in CONDITIONS if key in manifest} | digests


def plan(config: Config) -> Manifest:
    """The part of a run's manifest that is known before it begins."""
    return {"differs_from_defaults": config.identity, "config": to_plain(config)}


def average_in(config: Config, epoch: int) -> tuple[Any, ...] | None:
    """What decides about the average of weights that `epoch` (from 1) ends with; None while nothing is averaged."""
    averaging = config.averaging
    if isinstance(averaging, SWA):
        before = averaging.epochs_before(RunLength(1, config.epochs))
        return ("swa", before) if epoch > before else None
    if isinstance(averaging, EMA):
        return "ema", averaging.overwrite_frequency, averaging.warmup, config.ema_momentum
    return None


def epoch_keys(config: Config) -> list[bytes]:
    """A digest of each epoch with all before it: equal where two runs of the same settings are one so far.

    Of every step's lr and momentum as float64, and of the average. None for a schedule that has a state.
    """
    if config.schedule.stateful:
        return []
    (span, table), total, keys = planned_lr_momentum(config), hashlib.sha256(), []
    for epoch, steps in enumerate(table.reshape(span.epochs, -1), 1):
        total.update(steps.tobytes() + repr(average_in(config, epoch)).encode())
        keys.append(total.digest())
    return keys


def shared_epochs(mine: Config, theirs: Config) -> int:
    """The number of whole epochs, from the first, in which the runs are one, if why_not_shared has no reason."""
    return sum(a == b for a, b in zip(epoch_keys(mine), epoch_keys(theirs), strict=False))


def why_not_shared(mine: Config, theirs: Config, now: Manifest, recorded: Manifest) -> str | None:
    """Why no epoch of `mine` is one of `theirs`, whatever the rates. now, recorded: their manifests, or plans."""
    here = settings(now) | conditions(now)
    for part in (recorded, *recorded.get("earlier", [])):  # of a run that was resumed
        there = settings(part) | conditions(part)
        for key in sorted({*here, *there}):
            if here.get(key) != there.get(key):
                return f"{key} is {there.get(key, 'at its default')!s:.200} there, {here.get(key)!s:.200} here"
    if "digests" in recorded and recorded["digests"].get("schedule") != schedule_digest(theirs):
        return "its schedule.function made other learning rates than now"
    for config in (mine, theirs):
        if config.schedule.stateful:
            return f"schedule={config.schedule.name} depends on the run's figures, not on the time alone"
    if average_in(mine, 1) != average_in(theirs, 1):
        return f"its averaging={theirs.averaging.name}, here {mine.averaging.name}, averages from the first step on"
    return None


def find_branch(config: Config, session: Session) -> tuple[Branch | None, list[str]]:
    """From the run of the study that has the most epochs for this one; and a line about it, or why there is none."""
    now, remarks = make_manifest(config, session.module, session.digests), []
    found: Branch | None = None
    for path in sorted(config.study_folder.glob(f"*/{SEED}{config.seed}")):
        recorded = read_manifest(path)
        if path == config.folder.path or settings(recorded) != settings(now):
            continue
        theirs = from_plain(dict(recorded["config"]), checked=False)
        if reason := why_not_shared(config, theirs, now, recorded):
            remarks.append(f"note: trunk=auto takes nothing from {path}: {reason}")
        else:
            found = (
                longer_branch(config, session, RunFolder(path), theirs, found.trunk["epoch"] if found else 0) or found
            )
    if found is not None:
        remarks = [f"trunk: {found.trunk['epoch']} epochs are those of {found.trunk['run']}"]
    return found, remarks[:1]


def longer_branch(config: Config, session: Session, folder: RunFolder, theirs: Config, least: int) -> Branch | None:
    """From the folder's latest checkpoint of more than `least` common epochs whose best is there too."""
    most = shared_epochs(config, theirs)
    epochs = [epoch for epoch in range(most, least, -1) if folder.snapshot(epoch).exists()]
    places = [(folder.snapshot(epoch), folder.snapshot_best(epoch)) for epoch in epochs]
    if folder.metrics.exists() and len(read_rows(folder.metrics)) <= most + 1:  # its own may be one epoch behind
        places = [(folder.last, folder.best), (folder.previous, folder.best), *places]
    for last_place, best_place in places:
        try:
            last = read_own_checkpoint(last_place, theirs)
            rows = last["callbacks"][Recorder.__name__]["rows"]
            row = best_row(rows, session.recorder.best_column) or {}
            best = last if row is rows[-1] else read_own_checkpoint(best_place, theirs)
            best_rows = best["callbacks"][Recorder.__name__]["rows"]
        except Exception:  # of many kinds: it is damaged, or was replaced just now
            continue
        if least < len(rows) <= most and [r["val/ce"] for r in best_rows] == [
            r["val/ce"] for r in rows[: row["epoch"]]
        ]:
            own = [as_own(checkpoint, config, session) for checkpoint in (best, last)]
            return Branch({"run": run_key(folder.path), "epoch": len(rows)}, *own)
    return None


def as_own(checkpoint: dict[str, Any], config: Config, session: Session) -> dict[str, Any]:
    """The same of this run: with its configuration and, where no average is common, with its own, still empty."""
    common, trained = average_in(config, checkpoint["epoch"] + 1) is not None, checkpoint["state_dict"]
    state = session.module.state_dict()
    state |= {key: trained[key] for key in state if common or not key.startswith("average.")}
    recorded: dict[str, Any] = session.trainer.checkpoint_callback.recorded  # type: ignore[union-attr]
    sizes = checkpoint["hyper_parameters"] | {"config": recorded["config"]}
    return checkpoint | recorded | {"state_dict": dict(state), "hyper_parameters": sizes}
