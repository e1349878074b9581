"""Patches are cut where and how they should be, and do not depend on the number of processes."""

import pytest
import torch
from torch import Tensor

from leanconv.data import Patches, Pictures
from leanconv.data.patches import PatchBatches, PlaneBatches
from leanconv.errors import UserError
from leanconv.imresize import imresize


def pictures(*sides: tuple[int, int]) -> Pictures:
    planes = tuple(torch.randint(0, 256, side, dtype=torch.uint8) for side in sides)
    return Pictures(tuple(f"picture {number}" for number in range(len(sides))), planes)


def versions(patch: Tensor) -> list[Tensor]:
    turned = [patch.rot90(quarter, (-2, -1)) for quarter in range(4)]
    return turned + [version.mT for version in turned]


@pytest.mark.parametrize(("scales", "small_input"), [((2, 3), False), ((2,), True), ((3,), True)])
def test_every_patch_comes_once_in_one_of_its_versions(scales: tuple[int, ...], small_input: bool) -> None:
    data = pictures((25, 38), (19, 21))
    factor = scales[0] if small_input else 1
    size, stride = 12 // factor, 6 // factor
    expected = []
    for plane in data.planes:
        for scale in scales:
            truth = plane[: plane.shape[0] // scale * scale, : plane.shape[1] // scale * scale].float() / 255
            image = imresize(truth, 1 / scale)
            image = image if small_input else imresize(image, scale)
            for top in range(0, image.shape[0] - size + 1, stride):
                for left in range(0, image.shape[1] - size + 1, stride):
                    y = truth[top * factor :, left * factor :][: size * factor, : size * factor]
                    expected.append((image[top : top + size, left : left + size], y))
    batches = PatchBatches(data, scales, small_input, Patches(12, 6), 1, seed=3)
    assert batches.total == len(batches) == len(expected)
    left = list(range(len(expected)))
    seen = set()
    for x, y in batches.epoch(0):
        matches = [
            (row, number)
            for row in left
            for number, (a, b) in enumerate(zip(versions(expected[row][0]), versions(expected[row][1]), strict=True))
            if (a - x[0, 0]).abs().max() < 3e-5 and torch.equal(b, y[0, 0])
        ]
        ((row, number),) = matches
        left.remove(row)
        seen.add(number)
    assert left == []
    assert len(seen) == 8


def test_epochs_differ_and_can_be_repeated_by_any_number_of_processes() -> None:
    data = pictures((40, 50))
    whole = PatchBatches(data, (2,), False, Patches(12, 4, 21), 6)
    assert (len(whole), whole.global_batch) == (3, 6)
    first, second = (torch.cat([x for x, _ in whole.epoch(number)]) for number in (0, 1))
    assert not torch.equal(first, second)
    parts = [PatchBatches(data, (2,), False, Patches(12, 4, 21), 6, rank=rank, world_size=2) for rank in (0, 1)]
    for (x, y), (a, b), (c, d) in zip(whole.epoch(1), parts[0].epoch(1), parts[1].epoch(1), strict=True):
        assert torch.equal(x, torch.cat([a, c]))
        assert torch.equal(y, torch.cat([b, d]))


def test_planes_are_shared_out_once_each() -> None:
    data = pictures((20, 20), (21, 22), (23, 24))
    shares = [[tuple(x.shape) for x, _ in PlaneBatches(data, rank=rank, world_size=2).epoch(0)] for rank in (0, 1)]
    assert shares == [[(1, 1, 20, 20), (1, 1, 23, 24)], [(1, 1, 21, 22)]]
    assert [len(PlaneBatches(data, rank=rank, world_size=4)) for rank in range(4)] == [3, 3, 3, 3]


def test_mistakes_are_answered() -> None:
    with pytest.raises(UserError, match="'picture 1' of 30x20 pixels is smaller than a patch of 31"):
        PatchBatches(pictures((40, 40), (20, 30)), (2,), False, Patches(), 4)
    with pytest.raises(UserError, match="no images to train on"):
        PatchBatches(pictures(), (2,), False, Patches(), 4)
    with pytest.raises(UserError, match="batch_size=3 cannot be shared"):
        PatchBatches(pictures((40, 40)), (2,), False, Patches(), 3, world_size=2)
    with pytest.raises(UserError, match="patch size=3 does not work"):
        Patches(3)
    with pytest.raises(UserError, match="patch stride='x' does not work"):
        Patches(31, "x")  # type: ignore[arg-type]
