"""One image file as pixels: what is read, and what is not."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from resnetlab.errors import first_line

Pixels = npt.NDArray[np.uint8]
MODES = {"1", "L", "P", "RGB", "LA", "PA", "RGBA"}  # Pillow's for black and white, grey, palette, colour; A: with alpha


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
    return pixels if side is None else fit(pixels, side)


def fit(pixels: Pixels, side: int) -> Pixels:
    """The image scaled until it covers side x side pixels (bilinear, antialiased), and cropped at its centre."""
    return np.asarray(ImageOps.fit(Image.fromarray(pixels), (side, side), Image.Resampling.BILINEAR))


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
