"""Images of your own, data=folder and data=arrays: decoded once into a cache.

There they are found by the names, sizes and modification times of their files, and identified by their digest.
"""

import os
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock

from resnetlab.console import Countdown, complain
from resnetlab.data.arrays import images_of_parts
from resnetlab.data.image_files import Pixels, fit, read_image
from resnetlab.data.sources import Images, Source, digest_of
from resnetlab.errors import DataError, first_line
from resnetlab.runs.files import digest, write_atomically

OWN = ("folder", "arrays")
PARTS = ("train", "val", "test")
FORMAT = 1  # of the cache: with another one everything is decoded anew

File = tuple[str, str, str, Path]  # part, name below the class's folder, class, path
Pairs = Mapping[str, tuple[Any, Any]]  # part: (images, labels), as source_from_arrays takes them


class Index(NamedTuple):
    """What is known of a set without its pixels. counts: of each class, in train, test and untouched of its Source."""

    digest: str
    class_names: tuple[str, ...]
    counts: list[list[int]]
    size: tuple[int, int]  # height and width
    left_out: int  # files that cannot be used


def open_images(name: str, root: Path, side: int | None, skip_broken: bool) -> tuple[Index, Source]:
    """The set in the folder or the file of arrays, decoded first if it is new; pixels are read when they are used.

    side: of all images, as image_files.fit makes it; None: as they are. skip_broken: leave out files that cannot be
    used, instead of naming them. Raises DataError.
    """
    files = list_files(root) if name == "folder" else [("", "", "", root)]
    stats = [path.stat() if path.exists() else path.lstat() for *_, path in files]
    keys = [(*file[:3], stat.st_size, stat.st_mtime_ns) for file, stat in zip(files, stats, strict=True)]
    cache = Path(os.environ.get("RESNETLAB_CACHE") or "~/.cache/resnetlab").expanduser()
    path = cache / f"{digest([FORMAT, name, str(root.absolute()), side, skip_broken, keys], 16)}.pt"
    if (found := read_cached(path)) is not None:
        return found
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "lock"):
        if (found := read_cached(path)) is not None:  # by the process that was waited for
            return found
        for left in cache.glob("*.part"):  # by a process that was killed
            left.unlink(missing_ok=True)
        pairs, names = read_folder(files, side, skip_broken) if name == "folder" else read_arrays(root)
        source = source_of(root, pairs, names, side)
        parts = (source.train, source.test, source.untouched)
        counts = [part.labels.bincount(minlength=len(source.class_names)).tolist() if part else [] for part in parts]
        left_out = len(files) - sum(map(sum, counts)) if name == "folder" else 0
        found_digest, (height, width) = digest_of(source.class_names, parts), source.train.pixels.shape[2:]
        index = Index(found_digest, source.class_names, counts, (height, width), left_out)
        content = [[*index], [(part.pixels, part.labels) for part in parts if part is not None]]
        write_atomically(path, lambda file: torch.save(content, file))
        return index, source


def read_cached(path: Path) -> tuple[Index, Source] | None:
    """None if it is not there, or is damaged where this shows before the pixels are read."""
    try:
        values, parts = torch.load(path, mmap=True, weights_only=True)
        train, test, *untouched = [Images(*part) for part in parts]
        return (index := Index(*values)), Source(train, test, index.class_names, *untouched)
    except Exception:  # torch raises many kinds
        return None


def source_of(root: Path, pairs: Pairs, class_names: Sequence[str] | None, side: int | None) -> Source:
    """Of train, and val or test; where there are both, test is left untouched. Raises DataError that names root."""
    try:
        found, names = images_of_parts([*pairs.values()], class_names)
    except DataError as error:
        raise DataError(f"{root}: {error}") from None
    sized = [part if side is None else resized(part, side) for part in found]
    train, test, *untouched = sized if len(sized) > 1 else [*sized, sized[0][:0]]
    return Source(train, test, names, *untouched)


def resized(images: Images, side: int) -> Images:
    arrays = [fit(image, side) for image in images.pixels.permute(0, 2, 3, 1).contiguous().numpy()]
    return Images(torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous(), images.labels)


def read_arrays(path: Path) -> tuple[Pairs, list[str] | None]:
    """The arrays x_train and y_train, or train_images and train_labels, and so on; class_names if it is there."""
    try:
        with np.load(path, allow_pickle=False) as file:  # a pickle would be executed
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # numpy and zipfile raise many kinds
        raise DataError(f"{path} cannot be read as arrays of an .npz file ({first_line(error)})") from None
    names = [
        (part, *pair) for part in PARTS for pair in ((f"x_{part}", f"y_{part}"), (f"{part}_images", f"{part}_labels"))
    ]
    pairs = {part: (arrays[x], arrays[y]) for part, x, y in names if x in arrays and y in arrays}
    if "train" not in pairs:
        must = "must hold x_train, y_train, and x_val, y_val or x_test, y_test"
        raise DataError(f"{path} {must}; it holds {', '.join(arrays) or 'nothing'}")
    return pairs, arrays["class_names"].tolist() if "class_names" in arrays else None


def list_files(root: Path) -> list[File]:
    """The files of root/PART/CLASS/ that are not hidden, by name: classes that number their files take turns."""
    files = []
    for folder in (path for part in PARTS for path in root.glob(f"{part}/[!.]*") if path.is_dir()):
        class_name = unicodedata.normalize("NFC", folder.name)  # an accent is one letter or two, as the system has it
        for top, _, names in os.walk(folder, followlinks=True):
            paths = [Path(top, name) for name in names if not name.startswith(".")]
            files += [(folder.parent.name, str(path.relative_to(folder)), class_name, path) for path in paths]
    if not any(part == "train" for part, *_ in files):
        raise DataError(f"data.root (={root}) must hold images in train/CLASS/, and there are none")
    return sorted(files)


def read_folder(files: Sequence[File], side: int | None, skip_broken: bool) -> tuple[Pairs, None]:
    """Decodes the files; prints a line for each that cannot be used. Raises DataError."""
    found = list(zip(files, decode([path for *_, path in files], side), strict=True))
    problems = [f"{file[3]} {image}" for file, image in found if isinstance(image, DataError)]
    for problem in problems:
        complain(problem)
    if problems and not skip_broken:
        others = f" (and {len(problems) - 1} others, named above)" if len(problems) > 1 else ""
        raise DataError(f"{problems[0]}{others}; or data.skip_broken=true leaves out all such files")
    images = [(file, image) for file, image in found if not isinstance(image, DataError)]
    sizes = {image.shape[1::-1]: path for (*_, path), image in images}
    if len(sizes) > 1:
        listed = " and ".join(f"{path} is {width}x{height}" for (width, height), path in list(sizes.items())[:2])
        raise DataError(f"images must be of one size: {listed} pixels; data.resize=N makes them so")
    of_part = {part: [(image, file[2]) for file, image in images if file[0] == part] for part in PARTS}
    return {part: tuple(zip(*pairs, strict=True)) for part, pairs in of_part.items() if pairs}, None


def decode(paths: Sequence[Path], side: int | None) -> list[Pixels | DataError]:
    """The pixels of each file, or what is wrong with it."""
    from PIL import Image

    countdown = Countdown("decoded image", len(paths))

    def one(path: Path) -> Pixels | DataError:
        countdown.tick()
        try:
            return read_image(path, side)
        except DataError as error:
            return error

    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter(
            "error", Image.DecompressionBombWarning
        )  # of 90 million pixels; from twice that it raises
        return list(pool.map(one, paths))
