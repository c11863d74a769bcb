"""Data: sources, splits, the plan of an epoch, augmentation, and the LightningDataModule that combines them."""

from typing import TYPE_CHECKING, Any

from resnetlab.data.arrays import source_from_arrays
from resnetlab.data.epoch_plan import derive_seed
from resnetlab.data.options import Data
from resnetlab.data.sources import SOURCES, Images, Source, load

if TYPE_CHECKING:
    from resnetlab.data.datamodule import Chunk, ImageData

__all__ = ["SOURCES", "Chunk", "Data", "ImageData", "Images", "Source", "derive_seed", "load", "source_from_arrays"]


def __getattr__(name: str) -> Any:
    """Imports the datamodule on first use, because importing Lightning takes seconds (4 s, Lightning 2.6)."""
    if name not in ("Chunk", "ImageData"):
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from resnetlab.data import datamodule

    return getattr(datamodule, name)
