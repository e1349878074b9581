"""Real data by name, from a folder or from parquet files, in batches on the device: images to classify or enlarge."""

from leanconv.data.augment import Augment
from leanconv.data.batches import Batches, batches
from leanconv.data.known import IMAGENET_MEAN, IMAGENET_STD
from leanconv.data.loading import list_data_sets, load
from leanconv.data.patches import Patches
from leanconv.data.pictures import PictureData, Pictures, load_pictures
from leanconv.data.splits import ArraySplit, ImageData, Split
from leanconv.data.streaming import StreamSplit

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "ArraySplit",
    "Augment",
    "Batches",
    "ImageData",
    "Patches",
    "PictureData",
    "Pictures",
    "Split",
    "StreamSplit",
    "batches",
    "list_data_sets",
    "load",
    "load_pictures",
]
