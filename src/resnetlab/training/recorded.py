"""Whose run a folder or a checkpoint is, as recorded there: compared with the configuration before it is believed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from resnetlab.config.schema import Config, callback_of
from resnetlab.data import ImageData
from resnetlab.dotted import source_digest
from resnetlab.errors import LabError
from resnetlab.optim.schedules import RunLength, schedule_table
from resnetlab.runs.layout import SEED, RunFolder
from resnetlab.runs.load import UnusableRun, read_manifest, read_summary

STUDY = "name another study"
CURE = f"{STUDY}, or start over with force=true"


def digests_of(config: Config, data: ImageData) -> dict[str, str]:
    """Digests of what decides a run's result and is no value of its configuration: {"images", "schedule", ...}."""
    data.setup()
    found = {"images": config.data.digest or data.source_digest} | own_digests(config)
    return {name: digest for name, digest in found.items() if digest is not None}


def own_digests(config: Config) -> dict[str, str | None]:
    """The same of the user's own parts: learning rates, source, the file that init names; None if it has none."""
    functions = {name: getattr(getattr(config, name), "function", None) for name in ("model", "optimizer")}
    found = {name: None if path is None else source_digest(path) for name, path in functions.items()}
    found["callbacks"] = " ".join(source_digest(callback_of(entry)[0]) for entry in config.callbacks) or None
    there = config.init is not None and Path(config.init).is_file()
    found["init"] = hashlib.sha256(Path(str(config.init)).read_bytes()).hexdigest()[:16] if there else None
    return found | {"schedule": schedule_digest(config)}


def schedule_digest(config: Config) -> str | None:
    """Digest of the learning rates that a function of the user's makes; None for the lab's own schedules.

    As float32: the last bit of a cosine on another processor makes no other schedule.
    """
    if not hasattr(config.schedule, "function"):
        return None
    span = RunLength(config.data.steps_per_epoch(config.batch_size), config.epochs)
    rates = schedule_table(config.schedule, config.lr, 0.0, span)[:, 0]
    return hashlib.sha256(rates.astype(np.float32).tobytes()).hexdigest()[:16]


def refuse_other_run(folder: RunFolder, config: Config) -> None:
    """Raises LabError if the folder is another run's: copied, renamed, or of a hash that happens to be equal.

    By its manifest; where there is none, or force is to replace it, by that of the next seed's folder.
    """
    manifest, place = {} if config.force else read_manifest(folder.path), folder.path
    seed, cure = (recorded_seed(folder, manifest, config.seed), CURE) if manifest else (config.seed, STUDY)
    for place in () if manifest else sorted(set(folder.path.parent.glob(f"{SEED}*")) - {folder.path}):
        if manifest := read_manifest(place):
            break
    present = json.loads(json.dumps(config.identity)) | {"seed": config.seed}
    recorded = manifest.get("differs_from_defaults", present) | {"seed": seed}
    if keys := sorted(key for key in {*recorded, *present} if recorded.get(key) != present.get(key)):
        values = [[part.get(key, "at its default") for part in (recorded, present)] for key in keys]
        texts = [list(map(str if str(there) != str(here) else repr, (there, here))) for there, here in values]
        pairs = [f"{key} is {there:.60}, not {here:.60}" for key, (there, here) in zip(keys[:3], texts, strict=False)]
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        raise LabError(f"{place} belongs to another run ({', '.join(pairs)}{more}); {cure}")
    if not config.force:
        refuse_other_parts(place, manifest.get("digests", {}), config, cure)


def recorded_seed(folder: RunFolder, manifest: Mapping[str, Any], unknown: int) -> Any:
    """The seed in the manifest, or in the summary for a manifest that has none."""
    config = manifest.get("config", {})
    try:
        return config["seed"] if "seed" in config else read_summary(folder.path).get("seed", unknown)
    except UnusableRun:
        return unknown


def refuse_other_parts(place: Path, digests: Mapping[str, str], config: Config, cure: str = CURE) -> None:
    """Raises LabError if the user's own parts are not what `place` was trained with."""
    for name, now in own_digests(config).items():
        if now is not None and digests.get(name, now) != now:
            value = getattr(config, name)
            key = f"{name}.function (={value.function})" if hasattr(value, "function") else f"{name} (={value})"
            what = f"learning rates than {key} makes" if name == "schedule" else f"code or weights than {key} has"
            raise LabError(f"{place} was trained with other {what} now; restore it, {cure}")
