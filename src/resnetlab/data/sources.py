"""Image sets by name, as uint8 arrays: CIFAR-10 and CIFAR-100 through torchvision, and scikit-learn's digits."""

import hashlib
import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from resnetlab.errors import DataError, first_line

if TYPE_CHECKING:  # torchvision and scikit-learn take seconds to import, which a configuration does without
    from torchvision import datasets


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
        """The images at side x side pixels, each the mean of a square of pixels; `side` divides the present side."""
        means = [F.adaptive_avg_pool2d(part.float(), side).round().to(torch.uint8) for part in self.pixels.split(5000)]
        return Images(torch.cat(means), self.labels)


@dataclass(frozen=True)
class Source:
    """A data set in its official split."""

    train: Images
    test: Images
    class_names: tuple[str, ...]


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
    folder = Path(root).expanduser()
    return coarse(folder) if labels == "coarse" else SOURCES[name](folder)


def cifar(name: str, root: Path) -> Source:
    """CIFAR-10 or CIFAR-100, by the name of torchvision's class."""
    from torchvision import datasets

    cls = getattr(datasets, name)
    train, test = (_open(cls, root, train=train) for train in (True, False))
    return Source(_images(train), _images(test), tuple(train.classes))


def coarse(root: Path) -> Source:
    """CIFAR-100 with its superclasses, which torchvision leaves out, from the files that it has checked."""
    from torchvision import datasets

    fine, folder = SOURCES["cifar100"](root), root / datasets.CIFAR100.base_folder

    def relabelled(images: Images, file: str) -> Images:
        return Images(images.pixels, torch.tensor(_unpickle(folder / file)["coarse_labels"]))

    names = _unpickle(folder / datasets.CIFAR100.meta["filename"])["coarse_label_names"]
    return Source(relabelled(fine.train, "train"), relabelled(fine.test, "test"), tuple(names))


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


SOURCES: dict[str, Callable[[Path], Source]] = {
    "cifar10": partial(cifar, "CIFAR10"),
    "cifar100": partial(cifar, "CIFAR100"),
    "digits": digits,
}

# training images, test images, classes: known before anything is read, so that every job of a sweep can be checked
COARSE_CLASSES = 20  # of CIFAR-100
SIZES = {"cifar10": (50_000, 10_000, 10), "cifar100": (50_000, 10_000, 100), "digits": (1_437, 360, 10)}
SIDES = {"cifar10": 32, "cifar100": 32, "digits": 16}  # pixels


def _unpickle(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = pickle.loads(path.read_bytes(), encoding="latin1")
    return content


def _images(dataset: "datasets.CIFAR10") -> Images:
    pixels = torch.from_numpy(np.ascontiguousarray(dataset.data.transpose(0, 3, 1, 2)))
    return Images(pixels, torch.tensor(dataset.targets))


def _open(cls: "type[datasets.CIFAR10]", root: Path, train: bool) -> "datasets.CIFAR10":
    folder = root / cls.base_folder
    listed = [*cls.train_list, *cls.test_list, (cls.meta["filename"], cls.meta["md5"])]
    files = [(folder / name, md5) for name, md5 in listed]
    if any(path.exists() for path, _ in files):
        _refuse_damaged(files)
        return cls(str(root), train=train)
    try:
        return cls(str(root), train=train, download=True)
    except (URLError, OSError, RuntimeError) as error:
        raise DataError(
            f"{cls.__name__} is not in {folder.absolute()} and could not be downloaded ({first_line(error)}); put the "
            f"official python batches there, or name the folder above them: data.root=DIR or CIFAR_ROOT=DIR"
        ) from error


def _refuse_damaged(files: list[tuple[Path, str]]) -> None:
    """Raises DataError for damaged files that a user has put there, instead of downloading over them."""
    from torchvision.datasets.utils import check_integrity

    for path, md5 in files:
        if not path.exists():
            raise DataError(
                f"{path.absolute()} is missing, though others of the set are there; restore it or remove them"
            )
        if not check_integrity(str(path), md5):
            raise DataError(f"{path.absolute()} is damaged (its md5 is not the official {md5}); restore or remove it")
