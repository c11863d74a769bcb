"""Refusal of a folder or a checkpoint whose recorded configuration, seed or code is another run's."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnetlab.config.schema import Config
from resnetlab.data import ImageData
from resnetlab.errors import LabError
from resnetlab.runs.layout import SEED, RunFolder
from resnetlab.runs.load import UnusableRun, read_manifest, read_summary

STUDY = "name another study"
CURE = f"{STUDY}, or start over with force=true"


def digests_of(config: Config, data: ImageData) -> dict[str, str]:
    """Digests of what decides a run's result and is no value of its configuration: {"images", "schedule", ...}."""
    data.setup()
    found = {"images": config.data.digest or data.source_digest} | config.code_digests
    return {name: digest for name, digest in found.items() if digest is not None}


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
        refuse_other_code(place, manifest.get("digests", {}), config, cure)


def recorded_seed(folder: RunFolder, manifest: Mapping[str, Any], unknown: int) -> Any:
    """The seed in the manifest, or in the summary for a manifest that has none."""
    config = manifest.get("config", {})
    try:
        return config["seed"] if "seed" in config else read_summary(folder.path).get("seed", unknown)
    except UnusableRun:
        return unknown


def refuse_other_code(place: Path, digests: Mapping[str, str], config: Config, cure: str = CURE) -> None:
    """Raises LabError if the user's own code is not what `place` was trained with."""
    for name, now in config.code_digests.items():
        if digests.get(name, now) != now:
            key = f"{name}.function (={getattr(config, name).function})"
            what = f"learning rates than {key} makes" if name == "schedule" else f"code than {key} has"
            raise LabError(f"{place} was trained with other {what} now; restore it, {cure}")
