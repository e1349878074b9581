"""Data sets known by a short name, with what is usually done to their images."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from leanconv.data.augment import Augment
from leanconv.data.tables import TableLayout
from leanconv.registry import Registry


@dataclass(frozen=True)
class KnownSet:
    """A data set with its own normalisation and augmentation.

    Args:
        repo: Its place on the Hugging Face hub, ``owner/name``; ``None`` comes with a library.
        mean: Mean of each channel, of values 0 to 1.
        std: Standard deviation of each channel.
        augment: What is usually done to its training images.
        layout: Its splits and columns.
        image_size: Size in pixels images are made, ``None`` for the size they have.
        data_files: The only files of it that are wanted, by split.
    """

    repo: str | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augment
    layout: TableLayout = field(default_factory=TableLayout)
    image_size: int | None = None
    data_files: Mapping[str, str] | None = None


DATA_SETS = Registry[KnownSet]("data set")
"""Every data set with a short name."""

_CIFAR_MEAN, _CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
_HALVES = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# He et al. 2016, "Deep residual learning for image recognition", section 4.2: pad by 4, crop, flip.
_CIFAR_AUGMENT = Augment(crop_padding=4, flip=True)

DATA_SETS.register(
    # 16 pixels are the least that a network of total stride 8 leaves a map of 2x2 of.
    KnownSet(None, (0.3047,), (0.3184,), Augment(crop_padding=2), image_size=16),
    "digits",
)
DATA_SETS.register(
    KnownSet(
        "uoft-cs/cifar10",
        _CIFAR_MEAN,
        _CIFAR_STD,
        _CIFAR_AUGMENT,
        TableLayout(("train", "test"), "img", "label"),
    ),
    "cifar10",
)
DATA_SETS.register(
    KnownSet(
        "uoft-cs/cifar100",
        _CIFAR_MEAN,
        _CIFAR_STD,
        _CIFAR_AUGMENT,
        TableLayout(("train", "test"), "img", "fine_label"),
    ),
    "cifar100",
)
DATA_SETS.register(
    # A mirrored digit is another sign, and the half million easier "extra" images are left alone.
    KnownSet(
        "ufldl-stanford/svhn",
        _HALVES,
        _HALVES,
        Augment(crop_padding=4),
        TableLayout(("train", "test"), "image", "label"),
        data_files={"train": "cropped_digits/train-*.parquet", "test": "cropped_digits/test-*.parquet"},
    ),
    "svhn",
)
DATA_SETS.register(
    KnownSet(
        "zh-plus/tiny-imagenet",
        _HALVES,
        _HALVES,
        Augment(crop_padding=8, flip=True),
        TableLayout(("train", "valid"), "image", "label"),
    ),
    "tiny-imagenet",
)
DATA_SETS.register(
    KnownSet(
        "ylecun/mnist",
        (0.1307,),
        (0.3081,),
        Augment(crop_padding=2),
        TableLayout(("train", "test"), "image", "label"),
    ),
    "mnist",
)
DATA_SETS.register(
    KnownSet(
        "zalando-datasets/fashion_mnist",
        (0.2860,),
        (0.3530,),
        Augment(crop_padding=2, flip=True),
        TableLayout(("train", "test"), "image", "label"),
    ),
    "fashion-mnist",
)
DATA_SETS.register(
    # The labels of its test split are not public.
    KnownSet(
        "ILSVRC/imagenet-1k",
        IMAGENET_MEAN,
        IMAGENET_STD,
        Augment(crop_area=0.08, flip=True),
        TableLayout(("train", "validation"), "image", "label"),
        image_size=224,
    ),
    "imagenet-1k",
)
