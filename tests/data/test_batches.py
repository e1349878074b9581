"""Order and sharing of batches: what training relies on."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leanconv.data import ArraySplit, Augment, Batches, ImageData, batches
from leanconv.errors import UserError

AUGMENT = Augment(crop_padding=2, flip=True, cutout=3)


def split(count: int, channels: int = 3) -> ArraySplit:
    """Random images whose label is their number."""
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, channels, 6, 6), dtype=torch.uint8, generator=generator)
    return ArraySplit(images, torch.arange(count), (0.4,) * channels, (0.2,) * channels)


def joined(loader: Batches, epoch: int = 0) -> tuple[Tensor, Tensor]:
    images, labels = zip(*loader.epoch(epoch), strict=True)
    return torch.cat(images), torch.cat(labels)


@given(count=st.integers(1, 40), batch_size=st.integers(1, 50), epoch=st.integers(0, 9))
def test_training_shows_images_once_and_drops_an_incomplete_batch(count: int, batch_size: int, epoch: int) -> None:
    loader = batches(split(count), batch_size, train=True)
    sizes = [len(labels) for _, labels in loader.epoch(epoch)]
    _, labels = joined(loader, epoch)
    assert len(labels.unique()) == len(labels)
    assert len(sizes) == len(loader)
    assert sizes == ([count] if count < batch_size else [batch_size] * (count // batch_size))


@given(count=st.integers(1, 40), batch_size=st.integers(1, 50), world_size=st.integers(1, 5))
def test_testing_shows_every_image_once_in_order(count: int, batch_size: int, world_size: int) -> None:
    data = split(count)
    loaders = [
        batches(data, batch_size, train=False, augment=AUGMENT, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert len({len(loader) for loader in loaders}) == 1
    shown = []
    for parts in zip(*(loader.epoch(3) for loader in loaders), strict=True):
        sizes = [len(labels) for _, labels in parts]
        assert max(sizes) - min(sizes) <= 1
        shown.append(parts)
    images = torch.cat([images for parts in shown for images, _ in parts])
    labels = torch.cat([labels for parts in shown for _, labels in parts])
    assert torch.equal(labels, data.labels)
    torch.testing.assert_close(images, (data.images / 255 - 0.4) / 0.2, atol=1e-5, rtol=1e-5)


@settings(max_examples=30)
@given(
    count=st.integers(8, 40),
    share=st.integers(1, 4),
    world_size=st.sampled_from([2, 3, 4, 8]),
    seed=st.integers(0, 2**63),
    epoch=st.integers(0, 500),
)
def test_any_number_of_processes_sees_the_same_global_batches(
    count: int, share: int, world_size: int, seed: int, epoch: int
) -> None:
    data = split(count)
    alone = batches(data, share * world_size, train=True, augment=AUGMENT, seed=seed)
    together = [
        batches(data, share * world_size, train=True, augment=AUGMENT, seed=seed, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for (images, labels), *parts in zip(alone.epoch(epoch), *(loader.epoch(epoch) for loader in together), strict=True):
        assert torch.equal(images, torch.cat([part for part, _ in parts]))
        assert torch.equal(labels, torch.cat([part for _, part in parts]))


def test_an_epoch_can_be_repeated_and_no_other_is_like_it() -> None:
    data = split(32)
    loader = batches(data, 8, train=True, augment=AUGMENT, seed=5)
    images, labels = joined(loader, 7)
    joined(loader, 0)
    again_images, again_labels = joined(batches(data, 8, train=True, augment=AUGMENT, seed=5), 7)
    assert torch.equal(images, again_images)
    assert torch.equal(labels, again_labels)
    assert not torch.equal(labels, joined(loader, 8)[1])
    assert not torch.equal(labels, joined(batches(data, 8, train=True, augment=AUGMENT, seed=6), 7)[1])


def test_the_global_random_state_is_neither_read_nor_changed() -> None:
    loader = batches(split(16), 4, train=True, augment=AUGMENT)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = joined(loader)[0]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(joined(loader)[0], first)


def test_augmentation_is_that_of_the_functions_on_the_chosen_images() -> None:
    data = split(10)
    plain, labels = joined(batches(data, 5, train=True))
    torch.testing.assert_close(plain, (data.images[labels] / 255 - 0.4) / 0.2, atol=1e-5, rtol=1e-5)
    cut, same = joined(batches(data, 5, train=True, augment=Augment(cutout=2)))
    assert torch.equal(labels, same)
    changed = (cut != plain).any(dim=1)
    assert ((changed.sum(dim=(1, 2)) >= 1) & (changed.sum(dim=(1, 2)) <= 4)).all()
    assert (cut[changed[:, None].expand_as(cut)] == 0).all()


def test_images_of_one_colour_channel_and_no_constants() -> None:
    data = split(6, channels=1)
    plain = ArraySplit(data.images, data.labels)
    images, _ = joined(batches(plain, 4, train=False))
    torch.testing.assert_close(images, data.images / 255)


def test_with_normalisation_leaves_the_images_alone() -> None:
    data = ImageData("x", ("a", "b"), 3, (6, 6), (0.5,) * 3, (0.5,) * 3, split(8), split(4))
    other = data.with_normalisation([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert other.mean == (0.1, 0.2, 0.3)
    images, _ = joined(batches(other.test, 4, train=False))
    mean, std = torch.tensor(other.mean)[:, None, None], torch.tensor(other.std)[:, None, None]
    torch.testing.assert_close(images, (split(4).images / 255 - mean) / std, atol=1e-5, rtol=1e-5)
    first, _ = joined(batches(data.test, 4, train=False))
    torch.testing.assert_close(first, (split(4).images / 255 - 0.5) / 0.5, atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match=r"mean=\(0.5,\) has 1 values for images of 3 channels"):
        data.with_normalisation([0.5], [0.5, 0.5, 0.5])
    with pytest.raises(UserError, match="not a standard deviation"):
        data.with_normalisation([0.5] * 3, [0.5, 0.5, 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 is not a number of images"),
        ({"batch_size": 8, "rank": 2, "world_size": 2}, "rank=2 is not one of world_size=2 processes"),
        ({"batch_size": 8, "world_size": 3}, "batch_size=8 cannot be shared equally by world_size=3"),
        ({"batch_size": 8, "seed": -1}, "seed=-1 is negative"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        batches(split(8), train=True, **arguments)  # type: ignore[arg-type]


def test_an_epoch_below_zero_is_refused() -> None:
    with pytest.raises(UserError, match="epoch=-1 is negative"):
        next(batches(split(8), 4, train=True).epoch(-1))


def test_resampling_crops_need_a_stream() -> None:
    with pytest.raises(UserError, match=r"crop_area=0\.5 resamples the original images"):
        next(batches(split(8), 4, train=True, augment=Augment(crop_area=0.5)).epoch(0))


def test_tensors_that_are_no_images_are_refused() -> None:
    with pytest.raises(UserError, match="give uint8 of shape"):
        ArraySplit(torch.rand(2, 3, 4, 4), torch.tensor([0, 1]))
    with pytest.raises(UserError, match="give int64 of shape"):
        ArraySplit(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1, 2]))
