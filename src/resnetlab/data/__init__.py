"""Data: sources, splits, the plan of an epoch, augmentation, and the LightningDataModule that puts them together."""

from resnetlab.data.datamodule import Chunk, Data, ImageData
from resnetlab.data.plan import Plan, derive_seed, plan
from resnetlab.data.sources import SOURCES, Images, Source, load
from resnetlab.data.splits import Split, split

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
