"""Real data: image classification sets by name, from a folder or from parquet files, in batches on the device."""

from leanconv.data.augment import Augment
from leanconv.data.batches import Batches, batches
from leanconv.data.known import IMAGENET_MEAN, IMAGENET_STD
from leanconv.data.loading import list_data_sets, load
from leanconv.data.splits import ArraySplit, ImageData, Split
from leanconv.data.streaming import StreamSplit

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "ArraySplit",
    "Augment",
    "Batches",
    "ImageData",
    "Split",
    "StreamSplit",
    "batches",
    "list_data_sets",
    "load",
]
