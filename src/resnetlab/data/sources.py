"""Image sets by name, as uint8 arrays: those that torchvision has of this size, and scikit-learn's digits."""

import hashlib
import os
import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from torch.nn import functional as F

from resnetlab.errors import DataError, first_line
from resnetlab.runs.files import data_beside


@dataclass(frozen=True)
class Images:
    """pixels: uint8 (N, 3, H, W); labels: int64 (N,), from 0. Raises DataError for anything else."""

    pixels: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        pixels, labels = self.pixels, self.labels
        colour = pixels.dtype == torch.uint8 and pixels.ndim == 4 and pixels.shape[1] == 3
        if not (colour and labels.dtype == torch.int64 and labels.shape == pixels.shape[:1]):
            found = f"{pixels.dtype} {tuple(pixels.shape)} and {labels.dtype} {tuple(labels.shape)}"
            cure = "data.source_from_arrays converts others"
            raise DataError(f"images and labels must be uint8 (N, 3, H, W) and int64 (N,), not {found}; {cure}")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> "Images":
        return Images(self.pixels[index], self.labels[index])

    def to(self, device: torch.device) -> "Images":
        return Images(self.pixels.to(device), self.labels.to(device))

    def scaled(self, side: int) -> "Images":
        """The images at side x side pixels, each pixel the mean of a square, or nearly."""
        means = [F.adaptive_avg_pool2d(part.float(), side).round().to(torch.uint8) for part in self.pixels.split(5000)]
        return Images(torch.cat(means), self.labels)


@dataclass(frozen=True)
class Source:
    """A data set in its official split. untouched: test images of a set whose `test` are its validation images."""

    train: Images
    test: Images
    class_names: tuple[str, ...]
    untouched: Images | None = None


def digest_of(class_names: Sequence[str], parts: Iterable[Images | None]) -> str:
    """16 hexadecimal digits that tell images from others: classes, and shape, pixels and labels of each part.

    0.4 s for CIFAR-10.
    """
    found = hashlib.sha256(repr(tuple(class_names)).encode())
    for part in parts:
        for tensor in (part.pixels, part.labels) if part is not None else ():
            array = tensor.cpu().contiguous().numpy()
            found.update(f"{array.shape} {array.dtype}".encode())
            found.update(array.data)
        found.update(b"|")
    return found.hexdigest()[:16]


def load(name: str, root: str, labels: str = "fine") -> Source:
    """The data set, read from `root` (downloaded if it is not there). Raises DataError in one line.

    labels: "coarse" for CIFAR-100's 20 superclasses instead of its 100 classes.
    """
    with FileLock(Path(gettempdir(), f"resnetlab-{os.getuid()}-{name}.lock")):  # one of several jobs downloads
        return (coarse if labels == "coarse" else SOURCES[name])(Path(root).expanduser())


def by_torchvision(root: Path, name: str, key: str = "train", **options: Any) -> Source:
    """A set by the name of torchvision's class. key: its argument that tells training from test images."""
    from torchvision import datasets

    cls, parts = getattr(datasets, name), (True, False) if key == "train" else ("train", "test")
    train, test = (_open(cls, root, **{key: part}, **options) for part in parts)
    return Source(_images(train), _images(test), tuple(getattr(train, "classes", map(str, range(10)))))


def coarse(root: Path) -> Source:
    """CIFAR-100 with its superclasses, which torchvision leaves out, from the files that it has checked."""
    from torchvision import datasets

    fine, folder = SOURCES["cifar100"](root), root / datasets.CIFAR100.base_folder
    parts = [folder / name for name in (datasets.CIFAR100.meta["filename"], "train", "test")]
    meta, *both = (pickle.loads(part.read_bytes(), encoding="latin1") for part in parts)
    labels = [torch.tensor(part["coarse_labels"]) for part in both]
    train, test = map(Images, (fine.train.pixels, fine.test.pixels), labels)
    return Source(train, test, tuple(meta["coarse_label_names"]))


def digits(root: Path) -> Source:
    """1,437 training and 360 test images of handwritten digits, 16x16 RGB; nothing is read from `root`.

    scikit-learn ships one set of 8x8 images (UCI optdigits, test part) without a division: ours is stratified and
    fixed. The images are scaled bilinearly to 16x16 and repeated over three channels.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    small = torch.from_numpy(bunch.images).float()[:, None] / 16
    large = F.interpolate(small, size=(16, 16), mode="bilinear", align_corners=False)
    pixels = (large * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
    labels = torch.from_numpy(bunch.target).long()
    train, test = train_test_split(np.arange(len(labels)), test_size=360, stratify=bunch.target, random_state=0)
    both = Images(pixels.contiguous(), labels)
    return Source(both[torch.from_numpy(train)], both[torch.from_numpy(test)], tuple(map(str, range(10))))


SETS: dict[str, dict[str, Any]] = data_beside(__file__, "sources.toml")
SOURCES: dict[str, Callable[[Path], Source]] = {
    name: partial(by_torchvision, **about["torchvision"]) if "torchvision" in about else digits
    for name, about in SETS.items()
}
SIZES = {name: (about["train"], about["test"], about["classes"]) for name, about in SETS.items()}
SIDES = {name: about["side"] for name, about in SETS.items()}
COARSE_CLASSES = 20  # of CIFAR-100


def _images(dataset: Any) -> Images:
    """Of (N, H, W, 3), (N, 3, H, W), or grey (N, H, W), which is repeated; EMNIST's images lie on their side."""
    pixels = torch.as_tensor(dataset.data)
    if pixels.ndim == 3:
        pixels = (pixels.mT if type(dataset).__name__ == "EMNIST" else pixels)[:, None].expand(-1, 3, -1, -1)
    elif pixels.shape[1] != 3:
        pixels = pixels.permute(0, 3, 1, 2)
    labels = dataset.targets if hasattr(dataset, "targets") else dataset.labels
    return Images(pixels.contiguous(), torch.as_tensor(labels).long())


def _open(cls: Any, root: Path, **part: Any) -> Any:
    """Torchvision's data set, read or downloaded. Raises DataError."""
    from torchvision.datasets.utils import check_integrity

    listed = [*cls.train_list, *cls.test_list, (cls.meta["filename"], cls.meta["md5"])] if hasattr(cls, "meta") else []
    folder = root / getattr(cls, "base_folder", cls.__name__)
    files = [(folder / name, md5) for name, md5 in listed]  # of CIFAR alone
    if any(path.exists() for path, _ in files):
        for path, md5 in files:  # instead of downloading over what a user has put there
            name = path.absolute()
            if not path.exists():
                raise DataError(f"{name} is missing, though others of the set are there; restore or remove them")
            if not check_integrity(str(path), md5):
                raise DataError(f"{name} is damaged (its md5 is not the official {md5}); restore or remove it")
        return cls(str(root), **part)
    try:
        return cls(str(root), **part, download=True)
    except Exception as error:  # of the network, the disk, and the formats of damaged files
        raise DataError(
            f"{cls.__name__} is not in {folder.absolute()} and could not be downloaded ({first_line(error)}); put the "
            f"official files there, or name the folder above them: data.root=DIR or CIFAR_ROOT=DIR"
        ) from error
