"""Ceilings of the device and the floor they put under a time."""

import pytest
import torch

from leanconv.errors import UserError
from leanconv.measurement import Roofline, measure_roofline


def test_floor_is_the_slower_of_arithmetic_and_memory() -> None:
    roofline = Roofline(100.0, 10.0, 2**20, 1, "cpu", "float32")
    assert roofline.floor_s(macs=50 * 10**9, bytes_moved=10**9) == pytest.approx(1.0)
    assert roofline.floor_s(macs=10**9, bytes_moved=30 * 10**9) == pytest.approx(3.0)


def test_measured_once_per_process() -> None:
    threads, random_state = torch.get_num_threads(), torch.get_rng_state()
    roofline = measure_roofline(threads=1, working_set=3 * 2**20)
    assert roofline.peak_gflops > 0.1
    assert roofline.bandwidth_gbs > 0.1
    assert (roofline.working_set, roofline.threads, roofline.dtype) == (2**22, 1, "float32")
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), random_state)
    # Two timings would not agree to the last bit.
    assert measure_roofline(threads=1, working_set=2**22) == roofline


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"threads": 0}, "`threads` must be a positive integer"),
        ({"working_set": 0}, "`working_set` must be a positive integer"),
        ({"dtype": torch.int8}, "`dtype` must be a floating-point"),
        ({"device": "meta"}, "'meta' computes nothing"),
        ({"device": "abacus"}, "`device` 'abacus' is not available"),
    ],
)
def test_mistakes(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        measure_roofline(**arguments)  # type: ignore[arg-type]
