"""Shared beginnings: a run (a branch) goes on from a copy of another run's checkpoint (its trunk).

The state after an epoch depends on the epochs before it alone: two runs of the same learning rates and momenta up to
there, whose settings differ in schedule, length and an average that begins later at most, are one run so far.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from resnetlab.config.compose import from_plain
from resnetlab.config.schema import Config
from resnetlab.errors import first_line
from resnetlab.optim.averaging import SWA
from resnetlab.runs.layout import SEED, RunFolder, run_key
from resnetlab.runs.load import read_manifest
from resnetlab.runs.summary import best_row
from resnetlab.training.build import Session
from resnetlab.training.callbacks.checkpoints import Checkpoints, read_run_checkpoint
from resnetlab.training.callbacks.recorder import Recorder
from resnetlab.training.describe import CONDITIONS
from resnetlab.training.module import lr_momentum_table
from resnetlab.training.result import print_line

MAY_DIFFER = ("schedule", "averaging", "epochs", "ema_momentum")  # epoch_keys tells what counts of them
Manifest = Mapping[str, Any]


class Branch(NamedTuple):
    """trunk: {"run", "epoch"}, for the manifest. files: checkpoints of this run, to be written in this order."""

    trunk: dict[str, Any]
    files: dict[Path, dict[str, Any]]


def settings(manifest: Manifest) -> dict[str, Any]:
    """All settings that agree in two runs with an epoch in common."""
    config, identity = manifest.get("config", {}), manifest.get("differs_from_defaults", {})
    found = {key: value for key, value in identity.items() if key.split(".")[0] not in MAY_DIFFER}
    found |= {f"data.{key}": config.get("data", {}).get(key) for key in ("device", "eval_batch_size")}
    return found | {"seed": config.get("seed"), "trainer.chunk": config.get("trainer", {}).get("chunk")}


def facts(manifest: Manifest) -> dict[str, Any]:
    """The settings, with machine, versions, code and images where they are known: a planned run has none."""
    digests = {f"digest of {key}": value for key, value in manifest.get("digests", {}).items() if key != "schedule"}
    return settings(manifest) | {key: manifest[key] for key in CONDITIONS if key in manifest} | digests


def average_in(config: Config, epoch: int) -> str:
    """Identifies the average of weights at the end of `epoch` (from 1); "" before averaging begins."""
    averaging = config.averaging
    start = averaging.epochs_before(config.span) if isinstance(averaging, SWA) else 0
    if averaging.name == "none" or epoch <= start:
        return ""
    return f"swa after {start}" if start else f"{averaging} {config.ema_momentum}"


def epoch_keys(config: Config) -> list[bytes]:
    """For each epoch a digest of all lr and momenta so far and of the average; [] with a state or callbacks."""
    table, total, keys = lr_momentum_table(config, config.span), hashlib.sha256(), []
    for epoch, steps in enumerate(table.reshape(config.epochs, -1), 1):
        total.update(steps.tobytes() + average_in(config, epoch).encode())
        keys.append(total.digest())
    return [] if config.schedule.stateful or config.callbacks else keys


def shared_epochs(now: Manifest, recorded: Manifest) -> tuple[int, str]:
    """(number of epochs, from the first, in which two runs are one; why it is 0). Of manifests, or of plans."""
    here = facts(now)
    for there in map(facts, (recorded, *recorded.get("earlier", []))):  # of a run that was resumed
        for key in sorted({*here, *there}):
            if here.get(key) != there.get(key):
                return 0, f"{key} is {there.get(key, 'at its default')!s:.200} there, {here.get(key)!s:.200} here"
    try:
        mine, theirs = (from_plain(dict(manifest["config"])) for manifest in (now, recorded))
        if "digests" in recorded and recorded["digests"].get("schedule") != theirs.code_digests.get("schedule"):
            return 0, "its schedule.function made other learning rates than now"
    except Exception as error:  # OmegaConf raises many kinds for the keys of another version
        return 0, first_line(error)
    if stateful := [config.schedule.name for config in (mine, theirs) if config.schedule.stateful]:
        return 0, f"schedule={stateful[0]} depends on the run's figures, not on the time alone"
    if mine.callbacks:
        return 0, "callbacks of your own may depend on more than the epochs before"
    if average_in(mine, 1) != average_in(theirs, 1):
        return 0, f"averaging={theirs.averaging.name} there, {mine.averaging.name} here, from the first step on"
    count = sum(a == b for a, b in zip(epoch_keys(mine), epoch_keys(theirs), strict=False))
    return count, "" if count else "lr or momentum differ in epoch 1"


def find_branch(config: Config, session: Session, now: Manifest) -> Branch | None:
    """The checkpoint to branch from: of the study's run that shares the most epochs. Prints which, or why none."""
    branch, line = None, ""
    for path in sorted(config.study_folder.glob(f"*/{SEED}{config.seed}")):
        recorded, least = read_manifest(path), branch.trunk["epoch"] if branch else 0
        if path != config.folder.path and settings(recorded) == settings(now):
            most, why = shared_epochs(now, recorded)
            found = read_branch(session, recorded, RunFolder(path), range(most, least, -1)) if most > least else None
            if (branch := found or branch) is None:
                why = why or f"of the {most} epochs in common no checkpoint is left (snapshots=[{most}] keeps one)"
                line = f"note: trunk=auto takes nothing from {path}: {why}"
    if line := f"trunk: {branch.trunk['epoch']} epochs are those of {branch.trunk['run']}" if branch else line:
        print_line(config, line)
    return branch


def read_branch(session: Session, recorded: Manifest, folder: RunFolder, epochs: range) -> Branch | None:
    """From the run's first checkpoint that is of one of these epochs, and whose best is there too."""
    places = [(folder.last, folder.best), (folder.previous, folder.best)]
    places += [(folder.snapshot(k), folder.snapshot_best(k)) for k in epochs if folder.snapshot(k).exists()]
    theirs, own = from_plain(dict(recorded["config"])), session.module.config.folder
    for last_place, best_place in places:
        try:
            last = best = read_run_checkpoint(last_place, theirs)
            rows = last["callbacks"][Recorder.__name__]["rows"]
            if (row := best_row(rows, session.recorder.best_column) or {}) is not rows[-1]:
                best = read_run_checkpoint(best_place, theirs)
            fits = len(rows) in epochs and best["callbacks"][Recorder.__name__]["rows"][-1]["val/ce"] == row["val/ce"]
            kept = [k for k in session.module.config.snapshots if fits and k <= len(rows)]
            pairs = [(of(own, k), of(folder, k)) for k in kept for of in (RunFolder.snapshot_best, RunFolder.snapshot)]
            files = {mine: as_own(read_run_checkpoint(p, theirs), session) for mine, p in pairs if p.exists()}
        except Exception:  # of many kinds: it is damaged, or was replaced just now
            continue
        if fits:
            files |= {own.best: as_own(best, session), own.last: as_own(last, session)}
            return Branch({"run": run_key(folder.path), "epoch": len(rows)}, files)
    return None


def as_own(checkpoint: dict[str, Any], session: Session) -> dict[str, Any]:
    """The checkpoint rewritten as this run's; its average is this run's own, still empty, unless both share one."""
    common, trained = average_in(session.module.config, checkpoint["epoch"] + 1), checkpoint["state_dict"]
    state = session.module.state_dict()
    state.update({key: trained[key] for key in state if common or not key.startswith("average.")})
    recorded = Checkpoints(session.recorder, session.module.config, session.digests).recorded
    sizes = checkpoint["hyper_parameters"] | {"config": recorded["config"]}
    return checkpoint | recorded | {"state_dict": state, "hyper_parameters": sizes}
