"""What is written and printed before a run trains: config.yaml, manifest.json, and lines about them."""

from collections.abc import Iterator
from typing import Any

from resnetlab.config.compose import to_yaml
from resnetlab.config.schema import Config
from resnetlab.optim.schedules import length_warning
from resnetlab.runs.files import write_json, write_text
from resnetlab.runs.load import read_manifest
from resnetlab.training.build import Session, choose_engine
from resnetlab.training.callbacks.profiler import steps_warning
from resnetlab.training.manifest import changed_conditions, make_manifest
from resnetlab.training.result import print_line


def describe(config: Config, session: Session, resumed: bool) -> None:
    """Writes config.yaml and manifest.json, and prints what is going to be trained."""
    folder, module = config.folder, session.module
    manifest = make_manifest(config, module.model, module.build_optimizer()) | {"engine": module.engine_name}
    if resumed and (earlier := read_manifest(folder.path)):
        manifest["earlier"] = [*earlier.pop("earlier", []), earlier]
        if changed := changed_conditions(earlier, manifest):
            print_line(config, f"note: resumed under other conditions ({changed}); equality to the bit is not promised")
    write_text(folder.config, to_yaml(config))
    write_json(folder.manifest, manifest)
    for line in (*manifest_lines(config, manifest), *data_lines(config, session)):
        print_line(config, line)


def manifest_lines(config: Config, manifest: dict[str, Any]) -> Iterator[str]:
    """The network, where it is trained, and what the optimizer does to which tensors."""
    counts, devices = manifest["model"], config.trainer.devices
    yield (
        f"{config.model.name}: {counts['trainable_parameters']:,} trainable parameters + {counts['statistics']:,} "
        f"batch-norm statistics, {counts['convolutions']} convolutions; on "
        f"{f'{devices} x ' if devices > 1 else ''}{manifest['device']}, "
        f"{manifest['precision']}, engine: {manifest['engine']}, threads: {manifest['threads']}"
    )
    for group in manifest["optimizer_groups"]:
        yield (
            f"optimizer group {group['name']}: {group['tensors']} tensors, {group['parameters']:,} parameters, "
            f"wd {group['wd']:g}"
        )


def data_lines(config: Config, session: Session) -> Iterator[str]:
    """The images, the folder, and what may surprise."""
    data, span = session.data, session.module.span
    images = f"{len(data.train):,} training and {len(data.val):,} validation images"
    yield f"{images}; run folder {config.folder.path}"
    notes = [choose_engine(config)[1], data.subset_warning(), length_warning(config.schedule, span)]
    for note in (*notes, steps_warning(config.trainer.profile, span.steps_per_epoch)):
        if note:
            yield f"note: {note}"
