"""Data: sources, splits, the plan of an epoch, augmentation, and the LightningDataModule that puts them together."""

from typing import TYPE_CHECKING, Any

from resnetlab.data.options import Data
from resnetlab.data.plan import Plan, derive_seed, plan
from resnetlab.data.sources import SOURCES, Images, Source, load
from resnetlab.data.splits import Split, split

if TYPE_CHECKING:
    from resnetlab.data.datamodule import Chunk, ImageData

__all__ = [
    "SOURCES",
    "Chunk",
    "Data",
    "ImageData",
    "Images",
    "Plan",
    "Source",
    "Split",
    "derive_seed",
    "load",
    "plan",
    "split",
]


def __getattr__(name: str) -> Any:
    """Imports Lightning when the first datamodule is made: a configuration does without its seconds."""
    if name not in ("Chunk", "ImageData"):
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from resnetlab.data import datamodule

    return getattr(datamodule, name)
