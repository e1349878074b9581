"""Arrays enlarged: pieces join without seams, luma by the network, the rest bicubic."""

import copy

import numpy as np
import pytest
import torch
from enlargers import AtTheEnd, SeesEverything, Small, Strided
from picture_files import smooth

from leanconv.errors import UserError
from leanconv.imresize import imresize
from leanconv.models import create_model
from leanconv.models.superres import Bicubic
from leanconv.upscaling import Upscaler

#: MATLAB's rgb2ycbcr, as its documentation prints it.
YCBCR = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255


def upscaler(network, scale=2, tile=0):
    return Upscaler(network, scale, tile=tile, device="cpu")


@pytest.mark.parametrize("tile", [1, 16, 23])
@pytest.mark.parametrize(
    ("network", "scale"),
    [
        (Small(), 2),
        (Small(), 3),
        (AtTheEnd(2), 2),
        (AtTheEnd(4), 4),
        (AtTheEnd(2, "replicate"), 2),
        (Strided(), 2),
        (Strided(), 3),
    ],
)
def test_pieces_join_to_the_whole(network, scale, tile):
    pixels = np.random.default_rng(0).random((26, 37, 3), np.float32)
    whole, pieces = upscaler(network, scale)(pixels), upscaler(network, scale, tile)
    assert len(list(pieces.tiles(26, 37))) > 3
    np.testing.assert_allclose(pieces(pixels), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["vdsr", "ran_drrn_b1u9", "drrn_b1u9", "lean_sr"])
def test_pieces_of_networks_of_the_zoo_join_to_the_whole(name):
    network = create_model(name, width=8)
    torch.nn.init.normal_(list(network.parameters())[-1], std=0.1)
    pixels = np.random.default_rng(0).random((50, 70, 1), np.float32)
    whole = upscaler(network)(pixels)
    np.testing.assert_allclose(upscaler(network, tile=24)(pixels), whole, rtol=0, atol=1e-5)


def test_a_piece_with_less_around_it_would_show():
    """The test above can fail: the network does see its whole margin."""
    pieces = upscaler(Small(), tile=16)
    pixels = np.random.default_rng(0).random((26, 37, 3), np.float32)
    whole = pieces(pixels)
    pieces._margin = type(pieces._margin)(pieces._margin.pixels - 3, 1)
    assert np.abs(pieces(pixels) - whole).max() > 1e-4


@pytest.mark.parametrize("network", [Small(), AtTheEnd()])
def test_luma_is_the_networks_and_chroma_bicubic(network):
    pixels = smooth(12, 17, 3) / np.float32(255)
    enlarged = upscaler(network)(pixels).astype(float)
    bicubic = imresize(torch.from_numpy(pixels).double().movedim(2, 0), 2).movedim(0, 2).numpy()
    np.testing.assert_allclose(enlarged @ YCBCR[1:].T, bicubic @ YCBCR[1:].T, atol=2e-6)
    plane = torch.from_numpy(pixels @ YCBCR[0].astype(np.float32) + np.float32(16 / 255))[None, None]
    with torch.no_grad():
        expected = network(plane if network.upsamples else imresize(plane, 2))[0, 0].numpy()
    np.testing.assert_allclose(enlarged @ YCBCR[0] + 16 / 255, expected, atol=2e-6)


def test_grey_is_as_a_colour_picture_of_it():
    grey = smooth(12, 17, 1)
    network = Small()
    assert np.abs(upscaler(network)(grey).astype(int) - upscaler(network)(grey.repeat(3, 2)).astype(int)).max() <= 1
    assert np.array_equal(upscaler(network)(grey[..., 0]), upscaler(network)(grey)[..., 0])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_are_rounded_and_clipped(dtype):
    white = np.iinfo(dtype).max
    edge = np.zeros((8, 8, 3), dtype)
    edge[:, 4:] = white
    enlarged = upscaler(Bicubic())(edge)
    assert enlarged.dtype == dtype
    floating = upscaler(Bicubic())((edge / white).astype(np.float32))
    assert floating.min() < 0
    assert floating.max() > 1
    np.testing.assert_allclose(enlarged, (floating.clip(0, 1) * white).round(), atol=1)
    assert np.array_equal(upscaler(Bicubic())(edge, dtype=np.uint8), upscaler(Bicubic())((edge > 0).astype("u1") * 255))


def test_alpha_is_bicubic_and_hidden_colours_do_not_show():
    pixels = np.zeros((10, 12, 4), np.uint8)
    pixels[2:8, 3:9] = (200, 100, 50, 255)
    enlarged = upscaler(Bicubic())(pixels)
    alpha = imresize(torch.from_numpy(pixels[..., 3].astype(np.float32) / 255), 2)
    np.testing.assert_allclose(enlarged[..., 3], (alpha.clamp(0, 1) * 255).numpy(), atol=0.51)
    visible = enlarged[enlarged[..., 3] > 0]
    assert (np.abs(visible[:, :3].astype(int) - (200, 100, 50)) <= 1).all()


def test_invisible_pictures_stay_as_they_are():
    assert (upscaler(Bicubic())(np.zeros((4, 4, 2), np.uint8)) == 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_networks_of_other_types_compute_in_float32(dtype):
    pixels = smooth(12, 17, 3)
    network = Small().to(torch.bfloat16)
    expected = upscaler(copy.deepcopy(network).float())(pixels)
    assert np.array_equal(upscaler(network.to(dtype))(pixels), expected)
    assert network.first.weight.dtype == dtype


def test_progress_is_reported():
    seen = []
    upscaler(Bicubic(), tile=8)(np.zeros((16, 20), np.uint8), on_tile=lambda *at: seen.append(at))
    assert seen == [(done, 6) for done in range(1, 7)]


def test_by_default_pieces_are_as_large_as_memory_allows():
    small, wide = Upscaler(Small(8), device="cpu"), Upscaler(Small(64), device="cpu")
    sides = [max(t.rows.stop - t.rows.start for t in u.tiles(3000, 3000)) for u in (small, wide)]
    assert 64 < sides[1] < sides[0]
    assert len(list(small.tiles(40, 50))) == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3)])
@pytest.mark.parametrize("network", [Small(), AtTheEnd(), Bicubic()])
def test_the_smallest_pictures_are_enlarged_too(size, network):
    assert upscaler(network)(np.full((*size, 3), 7, np.uint8)).shape == (2 * size[0], 2 * size[1], 3)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.zeros((4, 4), np.int64), "got int64"),
        ([[0]], "got list"),
        (np.zeros((4, 4, 5), np.uint8), r"1 to 4 channels .* got \(4, 4, 5\)"),
        (np.zeros((0, 4), np.uint8), "at least one pixel"),
    ],
)
def test_other_arrays_are_refused(pixels, said):
    with pytest.raises(UserError, match=said):
        upscaler(Bicubic())(pixels)


def test_a_picture_smaller_than_a_network_takes_is_refused():
    with pytest.raises(UserError, match=r"`picture` .* does not fit the network"):
        upscaler(AtTheEnd(2, "reflect"))(np.zeros((2, 2), np.uint8))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((Small(), 7), "`scale` 7"),
        ((torch.nn.Conv2d(1, 1, 1), 2), "enlarges no images"),
        ((AtTheEnd(3), 2), "`scale` 2"),
    ],
)
def test_other_networks_and_scales_are_refused(arguments, said):
    with pytest.raises(UserError, match=said):
        Upscaler(*arguments)


@pytest.mark.parametrize(("options", "said"), [({"tile": -1}, "`tile`"), ({"device": "toaster"}, "`device` 'toaster'")])
def test_other_arguments_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        Upscaler(Small(), **options)


def test_a_network_that_sees_everything_works_in_one_piece_only():
    pixels = np.zeros((20, 20), np.uint8)
    assert upscaler(SeesEverything(), tile=0)(pixels).shape == (40, 40)
    with pytest.raises(UserError, match="tile=0"):
        upscaler(SeesEverything(), tile=8)(pixels)
