"""The 1,797 hand-written digits that come with scikit-learn, for which nothing is downloaded."""

import numpy as np
import torch

from leanconv.data.sources import Labelled, PixelImages, Source
from leanconv.errors import UserError


def read_digits() -> Source:
    """Return the digits of 8x8 pixels, their 17 levels of grey spread over 0 … 255.

    They are the test half of Alpaydin and Kaynak 1998, "Optical recognition of handwritten digits"; the writers
    are not told apart, so writers of the training images write some of the test images too.

    Raises:
        UserError: scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError('The digits need the "train" extra: pip install "leanconv[train]".') from error

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    classes = tuple(str(name) for name in digits.target_names)
    return Source(classes, Labelled(PixelImages(pixels, "the digits"), labels), None)
