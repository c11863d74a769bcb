"""Images of your own, data=folder, arrays or custom: decoded once into a cache, and identified by their digest."""

import os
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from PIL import Image, ImageOps

from resnetlab.console import Countdown, print_stderr
from resnetlab.data.arrays import images_of_parts
from resnetlab.data.sources import Images, Source, digest_of
from resnetlab.dotted import call, code_digest, import_callable
from resnetlab.errors import DataError, first_line
from resnetlab.runs.files import digest, write_atomically

OWN, PARTS = ("folder", "arrays", "custom"), ("train", "val", "test")
MODES = {"1", "L", "P", "RGB", "LA", "PA", "RGBA"}  # Pillow's for black and white, grey, palette, colour; A: with alpha
Pairs = dict[str, tuple[Any, Any]]  # part: (images, labels)
Pixels = npt.NDArray[np.uint8]
File = tuple[str, str, str, Path]  # part, name below the class's folder, class, path
CALLED: dict[str, Any] = {}  # what data.function returned last, by a digest of its code and arguments


class Index(NamedTuple):
    """What is known of a set without its pixels. counts: of each class, in train, test and untouched of its Source."""

    digest: str
    left_out: int  # files that cannot be used
    class_names: tuple[str, ...]
    counts: list[list[int]]
    size: tuple[int, int]  # height and width


def open_images(data: Any) -> tuple[Index, Source]:
    """The set of these options, found in the cache by names, sizes and times of its files, or decoded into it."""
    if data.name == "custom":
        import_callable("data.function", data.function, "function")
        key = digest([data.function, data.parameters, code_digest(data.function), data.resize], 16)
        if key not in CALLED:
            CALLED.clear()
            arrays = call("data.function", data.function, data.parameters, Mapping)  # type: ignore[type-abstract]
            CALLED[key] = indexed(*content_of(data, *pairs_of(data.function, arrays)))
        return CALLED[key]
    root = Path(data.root).expanduser()
    if not root.exists():
        raise DataError(f"data.root (={data.root}) is not there")
    files = list_files(root) if data.name == "folder" else [("", "", "", root)]
    stats = [path.stat() if path.exists() else path.lstat() for *_, path in files]
    keys = [(*file[:3], stat.st_size, stat.st_mtime_ns) for file, stat in zip(files, stats, strict=True)]
    cache = Path(os.environ.get("RESNETLAB_CACHE") or "~/.cache/resnetlab").expanduser()
    path = cache / f"{digest([1, data.name, str(root.absolute()), data.resize, data.skip_broken, keys], 16)}.pt"
    if (found := read_cached(path)) is None:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / "lock"):
            found = read_cached(path) or write_cached(path, data, files)  # by another process, or by this
    return found


def read_cached(path: Path) -> tuple[Index, Source] | None:
    """None if it is not there, or is damaged where this shows before the pixels are read."""
    try:
        return indexed(*torch.load(path, mmap=True, weights_only=True))
    except Exception:  # torch raises many kinds
        return None


def indexed(found: str, left_out: int, class_names: tuple[str, ...], pairs: Sequence[Any]) -> tuple[Index, Source]:
    """The set of what `content_of` returned."""
    parts = [Images(*pair) for pair in pairs]
    counts = [part.labels.bincount(minlength=len(class_names)).tolist() for part in parts]
    height, width = parts[0].pixels.shape[2:]
    return Index(found, left_out, class_names, counts, (height, width)), Source(*parts[:2], class_names, *parts[2:])  # type: ignore


def write_cached(path: Path, data: Any, files: Sequence[File]) -> tuple[Index, Source]:
    """Reads the files, and leaves them in the cache, without what a killed process has left there."""
    for left in path.parent.glob("*.part"):
        left.unlink(missing_ok=True)
    read = read_folder(files, data) if data.name == "folder" else read_arrays(files[0][3])
    content = content_of(data, *read, len(files))
    write_atomically(path, lambda file: torch.save(content, file))
    return indexed(*content)


def content_of(data: Any, pairs: Pairs, names: list[str] | None, files: int = 0) -> tuple[Any, ...]:
    """(digest, files left out, class names, [(pixels, labels)]) of the parts' images and classes. Raises DataError."""
    try:
        parts, class_names = images_of_parts([*pairs.values()], names)
    except DataError as error:
        raise DataError(f"{getattr(data, 'function', data.root)}: {error}") from None
    if data.name != "folder" and data.resize is not None:
        for n, part in enumerate(parts):
            fitted = [fit(image, (data.resize,) * 2) for image in part.pixels.permute(0, 2, 3, 1).numpy()]
            parts[n] = Images(torch.from_numpy(np.stack(fitted)).permute(0, 3, 1, 2).contiguous(), part.labels)
    left_out = max(0, files - sum(map(len, parts)))
    parts += [parts[0][:0]] if len(parts) == 1 else []  # none to validate
    return digest_of(class_names, (*parts, None)[:3]), left_out, class_names, [(p.pixels, p.labels) for p in parts]


def read_arrays(path: Path) -> tuple[Pairs, list[str] | None]:
    """{part: (images, labels)} of the arrays x_train and y_train and so on, and class_names. Raises DataError."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:  # a pickle would be executed
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # numpy and zipfile raise many kinds
        raise DataError(f"{path} cannot be read as arrays of an .npz file ({first_line(error)})") from None
    return pairs_of(path, arrays)


def pairs_of(place: object, arrays: Mapping[str, Any]) -> tuple[Pairs, list[str] | None]:
    both = [part for part in PARTS if {f"x_{part}", f"y_{part}"} <= {*arrays}]
    pairs = {part: (arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in both}
    if "train" not in pairs:
        raise DataError(f"{place} must hold x_train, y_train, and x_val, y_val or x_test, y_test, not {[*arrays]}")
    return pairs, np.asarray(arrays["class_names"]).tolist() if "class_names" in arrays else None


def list_files(root: Path) -> list[File]:
    """The files of root/PART/CLASS/ that are not hidden, by name: classes that number their files take turns."""
    files = []
    for folder in (path for part in PARTS for path in root.glob(f"{part}/[!.]*") if path.is_dir()):
        class_name = unicodedata.normalize("NFC", folder.name)  # an accent is one letter or two, as the system has it
        seen = {folder.resolve(), *folder.resolve().parents, root.resolve(), folder.parent.resolve()}
        for top, below, names in os.walk(folder, followlinks=True):
            places = {name: Path(top, name).resolve() for name in sorted(below) if not name.startswith(".")}
            below[:] = [name for name, place in places.items() if place not in seen]  # no link to a folder above
            seen.update(places.values())
            paths = [Path(top, name) for name in names if not name.startswith(".")]
            files += [(folder.parent.name, str(path.relative_to(folder)), class_name, path) for path in paths]
    if not any(part == "train" for part, *_ in files):
        raise DataError(f"data.root (={root}) must hold images in train/CLASS/, and there are none")
    return sorted(files)


def read_folder(files: Sequence[File], data: Any) -> tuple[Pairs, None]:
    """{part: (images, classes)}, with a line printed for each file that cannot be used. Raises DataError."""
    countdown, found = Countdown("decoded image", len(files)), []
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # from 90 million pixels
        for file, image in zip(files, pool.map(lambda file: read_image(file[3], data.resize), files), strict=True):
            found.append((file, image))
            countdown.tick()
    problems = [f"{file[3]} {image}" for file, image in found if isinstance(image, str)]
    for problem in problems:
        print_stderr(problem)
    if problems and not data.skip_broken:
        others = f" (and {len(problems) - 1} others, named above)" if len(problems) > 1 else ""
        raise DataError(f"{problems[0]}{others}; or data.skip_broken=true leaves out all such files")
    images = [(file, image) for file, image in found if not isinstance(image, str)]
    sizes = {image.shape[1::-1]: path for (*_, path), image in images}
    if len(sizes) > 1:
        listed = " and ".join(f"{path} is {width}x{height}" for (width, height), path in list(sizes.items())[:2])
        raise DataError(f"images must be of one size: {listed} pixels; data.resize=N makes them so")
    mine = {part: [(image, file[2]) for file, image in images if file[0] == part] for part in PARTS}
    return {part: ([x for x, _ in m], [y for _, y in m]) for part, m in mine.items() if m or part == "train"}, None


def read_image(path: Path, side: int | None = None) -> Pixels | str:
    """(H, W, 3), upright as EXIF has it, grey repeated, by `fit` if it has a side; or why the file cannot be used."""
    try:
        if not path.is_file() or path.stat().st_size == 0:
            raise ValueError("it is empty or no file")
        with Image.open(path) as image:
            check_mode(image)
            pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:  # Pillow's plugins raise many kinds for a damaged file
        return f"cannot be used: {first_line(error)}"
    return pixels if side is None else fit(pixels, (side, side))


def fit(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """The image scaled until it covers `size` (height, width; bilinear, antialiased), and cropped at its centre."""
    return np.asarray(ImageOps.fit(Image.fromarray(pixels), size[::-1], Image.Resampling.BILINEAR))


def check_mode(image: Any) -> None:
    """Raises ValueError for what 8-bit red, green and blue cannot represent."""
    if getattr(image, "is_animated", False) and image.format != "MPO":  # MPO: a camera's JPEG with its preview
        raise ValueError(f"it has {image.n_frames} frames; save one of them")
    if ";16" in f"{image.mode} {[tile[3] for tile in image.tile]}":  # Pillow (13) clips grey, and drops half of colour
        raise ValueError("it has 16 bits per channel; convert it to 8")
    if image.mode not in MODES:
        raise ValueError(f"it is {image.mode}; convert it to RGB or grey")
    if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
        raise ValueError("it is transparent in places; put it on a background")
