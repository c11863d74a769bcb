"""best.ckpt, last.ckpt and last.prev.ckpt: written atomically, of plain data; and the one to resume from."""

import io
import os
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection
from torch import nn

from resnetlab.config.compose import from_plain, to_plain
from resnetlab.config.schema import Config
from resnetlab.data import Data
from resnetlab.dotted import error_in_one_line
from resnetlab.errors import ConfigError, DataError, LabError, first_line
from resnetlab.runs.files import write_atomically
from resnetlab.runs.layout import MANIFEST, SUMMARY, RunFolder
from resnetlab.training.callbacks.recorder import Recorder
from resnetlab.training.result import refuse_other_code


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames it: Lightning (2.6.6) copies from the temp folder, which is not atomic.

    A run's last.ckpt that is replaced stays as last.prev.ckpt.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path, folder = Path(path), RunFolder(Path(path).parent.parent)
        if path == folder.last and path.exists():
            write_link(path, folder.previous)
        try:
            checkpoint = on_host(checkpoint)
            write_atomically(path, lambda file: torch.save(checkpoint, file))
        except RuntimeError as error:  # torch's zip writer hides the system's reason
            raise OSError(f"{path} could not be written; is the disk full?") from error

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        verify_checkpoint(Path(path))
        return super().load_checkpoint(path, *arguments, **options)


def on_host(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The same with all tensors in host memory: one wait for a GPU, where torch.save would wait for each tensor."""
    if not torch.cuda.is_initialized():
        return checkpoint
    found: dict[str, Any] = apply_to_collection(checkpoint, torch.Tensor, torch.Tensor.to, "cpu", non_blocking=True)
    torch.cuda.synchronize()
    vars(found["state_dict"]).update(vars(checkpoint["state_dict"]))  # its versions, which torch reads
    return found


def write_link(path: Path, link: Path) -> None:
    """Makes `link` a second name of the file, atomically replacing what had that name."""
    temporary = link.with_suffix(".part")
    try:
        os.link(path, temporary)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, temporary)
    os.replace(temporary, link)
    temporary.unlink(missing_ok=True)  # which is left where both were one file already


class Checkpoints(Checkpoint):
    """Saves `last` after every epoch, `best` after every epoch that is the best so far, and the snapshots asked for.

    A checkpoint is Lightning's, with more entries: config, its identity, digests (of images and code), preprocessing
    (ImageData.preprocessing), and statistics: those of the batch norms that val/*_avg and val/*_recal were measured
    with, {"averaged" | "reestimated": {name: tensor}}. It names no folder of its user's.

    Lightning's ModelCheckpoint (2.6.6) writes `last` only when `best` is written too, and forgets the best score when
    the folder is moved; this one has no state, because the recorder's rows are enough.
    """

    def __init__(self, recorder: Recorder, config: Config, digests: dict[str, str]) -> None:
        self.folder, self.recorder, self.snapshots = config.folder, recorder, config.snapshots
        plain, root = to_plain(config), Path(config.data.root).expanduser()
        del plain["outputs"], plain["logger"]
        plain["init"] = None  # its file's digest is in the identity
        if root.is_absolute():  # read_config finds it in the run's manifest
            plain["data"]["root"] = Data.root
        plain["data"].pop("parameters", None)
        self.recorded = {"config": plain, "identity": config.identity, "digests": digests}

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        for name, state in checkpoint["callbacks"].items():
            torch.save(state, written := io.BytesIO())
            with error_in_one_line("callbacks", name, "have a state_dict() of plain data and tensors:"):
                torch.load(io.BytesIO(written.getvalue()), weights_only=True)
        preprocessing = pl_module.preprocessing
        checkpoint |= self.recorded | {"statistics": pl_module.statistics, "preprocessing": preprocessing}
        sizes = {"steps_per_epoch": pl_module.span.steps_per_epoch, "classes": len(preprocessing["classes"])}
        checkpoint["hyper_parameters"] = {"config": self.recorded["config"]} | sizes  # for load_from_checkpoint

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        rows = self.recorder.rows
        if self.recorder.best() is rows[-1]:
            trainer.save_checkpoint(self.folder.best, weights_only=False)
        if (epoch := int(rows[-1]["epoch"])) in self.snapshots:
            if pl_module.config.trunk == "auto" and trainer.is_global_zero:
                write_link(self.folder.best, self.folder.snapshot_best(epoch))
            trainer.save_checkpoint(self.folder.snapshot(epoch), weights_only=False)
        trainer.save_checkpoint(self.folder.last, weights_only=False)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The checkpoint's plain data, on the CPU. Raises many kinds of errors for a damaged or missing file."""
    verify_checkpoint(path)
    with warnings.catch_warnings(action="ignore"):  # torch's (2.15) about sparse tensors, which are refused below
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    epoch, last = checkpoint["epoch"], checkpoint["config"]["epochs"]
    if type(epoch) is not int or not 0 <= epoch <= last or not isinstance(checkpoint.get("digests", {}), dict):
        raise DataError(f"its epoch is {epoch!r:.40} of {last}, its digests {checkpoint.get('digests')!r:.40}")
    shapes = shapes_of(checkpoint["state_dict"], "")
    if any(not shapes_of(part, "model.") <= shapes for part in checkpoint.get("statistics", {}).values()):
        raise DataError("its statistics are of another network")
    return checkpoint


def shapes_of(state: dict[str, torch.Tensor], prefix: str) -> set[tuple[str, torch.Size]]:
    """(prefix + name, shape) of each tensor. Raises DataError for another thing than a dense one."""
    if not all(isinstance(value, torch.Tensor) and value.layout == torch.strided for value in state.values()):
        raise DataError("it holds something else than dense tensors")
    return {(f"{prefix}{name}", value.shape) for name, value in state.items()}


def read_run_checkpoint(path: Path, config: Config) -> dict[str, Any]:
    """A checkpoint's plain data, as read_checkpoint; raises LabError unless it is of the run of `config`."""
    checkpoint = read_checkpoint(path)
    saved, stored = from_plain(checkpoint["config"]), checkpoint.get("identity", {})
    identity = saved.identity | {"init": stored["init"]} if "init" in stored else saved.identity
    if (identity, saved.seed) != (config.identity, config.seed):
        raise LabError(f"it belongs to another run, {saved.name}, seed {saved.seed}")
    return checkpoint


def refuse_link_to_other_run(folder: RunFolder, config: Config) -> None:
    """Raises LabError if `checkpoints` is a link into another run, or to its checkpoints: they would be replaced."""
    place = folder.checkpoints.resolve()
    if not folder.checkpoints.is_symlink():
        return
    cure = f"remove the link {folder.checkpoints}, or let it point to an empty folder"
    for parent in {place, *place.parents} - {folder.path.resolve()}:
        if any((parent / name).exists() for name in (MANIFEST, SUMMARY)):
            raise LabError(f"{folder.checkpoints} is a link into another run, {parent}; {cure}")
    for path in place.glob("*.ckpt"):
        try:
            read_run_checkpoint(path, config)
        except Exception as error:  # of many kinds for a damaged file, which is nobody's
            if type(error) is LabError:
                raise LabError(f"{path}: {error}; {cure}") from None


def verify_checkpoint(path: Path) -> None:
    """Raises DataError if a part of the file is not what was written: torch.load (2.15) takes a flipped bit as it is.

    10 ms for 14 MB. What is no zip raises BadZipFile.
    """
    if path.exists() and not path.is_file():  # a pipe, which may never end
        raise DataError("it is no file")
    with zipfile.ZipFile(path) as file:
        if (part := file.testzip()) is not None:
            raise DataError(f"{part} in it is not what was written")


def network_state(checkpoint: dict[str, Any], weights: str = "raw") -> dict[str, torch.Tensor]:
    """The network's own state: its raw, averaged or reestimated weights.

    With the statistics that the run's figures of these were measured with, if the checkpoint holds them.
    """
    prefix, state = "average.module." if weights == "averaged" else "model.", checkpoint["state_dict"]
    found = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return found | checkpoint.get("statistics", {}).get(weights, {})


def load_initial(model: nn.Module, config: Config, classes: int) -> list[str]:
    """Loads init's raw weights; returns the names of the tensors that are as drawn, for they have other classes.

    Raises ConfigError for a checkpoint that is not of this network but for its classes.
    """
    path, ours = Path(str(config.init)), to_plain(config)["model"]
    try:
        checkpoint = read_checkpoint(path)
        theirs, initial = ours | checkpoint["config"]["model"], network_state(checkpoint)
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        raise ConfigError(f"init (={path}) is no checkpoint of the lab ({describe_damage(path, error)})") from None
    for key in ours.keys() - {"bn_momentum", "dropout", "zero_init_residual"}:  # of the training alone
        if ours[key] != theirs[key]:
            raise ConfigError(f"init (={path}) has model.{key}={theirs[key]}, here it is {ours[key]}; set it so")
    state = {name: value.shape for name, value in model.state_dict().items()}
    drawn = [name for name in state.keys() & initial.keys() if initial[name].shape != state[name]]
    wrong = [name for name in drawn if state[name] != (classes, *initial[name].shape[1:])]
    if wrong := wrong + sorted(state.keys() ^ initial.keys()):
        raise ConfigError(f"init (={path}) is of another network: {wrong[0]} differs, and {len(wrong) - 1} others")
    model.load_state_dict({name: initial[name] for name in state.keys() - drawn}, strict=False)
    return sorted(drawn)


def describe_damage(path: Path, error: Exception) -> str:
    """The reason why a checkpoint could not be read."""
    try:
        if path.stat().st_size == 0:
            return "it is empty"
        if not zipfile.is_zipfile(path):  # what torch.save writes; its directory is at the end
            return "it is cut off, or another kind of file"
    except OSError as unreadable:
        return str(unreadable.strerror)
    return str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {first_line(error).split('. ')[0]}"


def resume_point(folder: RunFolder, config: Config) -> tuple[Path | None, list[str]]:
    """The newest checkpoint of this run that can be used, or None to start anew; and remarks.

    Raises LabError for one that was trained with other code of the user's.
    """
    remarks = []
    for path in filter(Path.exists, (folder.last, folder.previous)):
        try:
            checkpoint = read_run_checkpoint(path, config)
            epochs = len(checkpoint["callbacks"][Recorder.__name__]["rows"])
        except Exception as error:  # torch raises many kinds for a damaged file
            damage = describe_damage(path, error)
            remarks.append(f"{path} cannot be used ({damage}); going back to what was saved before it")
            continue
        refuse_other_code(path, checkpoint.get("digests", {}), config)
        if path == folder.previous:
            write_link(path, folder.last)  # or the next save would keep the damaged one as its previous
        return path, [*remarks, f"resuming after epoch {epochs} from {path}"]
    return None, remarks + (["no readable checkpoint is left: starting from the beginning"] if remarks else [])
