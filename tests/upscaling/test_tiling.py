"""Pieces of a picture: each pixel belongs to one, and what is around it is there."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from leanconv.upscaling.tiling import tiles


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.integers(0, 12), st.integers(1, 5))
def test_pieces_cover_the_picture_once(height, width, side, margin, period):
    covered = np.zeros((2 * height, 2 * width), int)
    picture = np.arange(height * width).reshape(height, width)
    enlarged = picture.repeat(2, 0).repeat(2, 1)
    for tile in tiles(height, width, side, margin, period):
        covered[tile.target(2)] += 1
        part = picture[tile.outer].repeat(2, 0).repeat(2, 1)[tile.kept(2)]
        assert np.array_equal(part, enlarged[tile.target(2)])
        for span, length in ((tile.rows, height), (tile.columns, width)):
            assert span.stop - span.start < side + period
            assert span.outer_start == 0 or span.start - span.outer_start >= margin
            assert span.outer_stop == length or span.outer_stop - span.stop >= margin
            assert span.outer_start % period == 0
    assert (covered == 1).all()
