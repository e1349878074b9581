from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

import oracles
from leanconv.errors import UserError
from leanconv.ops import ECA, UnsharedECA, adaptive_kernel_size


def test_adaptive_kernels_are_those_of_the_papers_formula() -> None:
    """Round |log2(c) / 2 + 1/2| to the nearest odd number; the four ranges as the authors' code gives them."""
    for least, most, taps in ((1, 7, 1), (8, 127, 3), (128, 2047, 5), (2048, 32767, 7)):
        assert {adaptive_kernel_size(c) for c in (least, most)} == {taps}
    assert ECA(512, "adaptive").conv.weight.shape == (1, 1, 5)


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
def test_eca_equals_timms(kernel_size: int) -> None:
    theirs = oracles.timm().layers.EcaModule(kernel_size=kernel_size)
    ours = ECA(6, kernel_size)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 6, 5, 7)
    assert_close(ours(x), theirs(x))


def test_eca_without_sharing_weighs_each_neighbourhood_with_its_own_taps() -> None:
    module = UnsharedECA(5, 3).double()
    x = torch.randn(2, 5, 4, 4, dtype=torch.float64)
    averages = F.pad(x.mean((2, 3)), (1, 1))
    taps = module.conv.weight[:, 0]
    assert taps.shape == (5, 3)
    scores = torch.stack([(averages[:, c : c + 3] * taps[c]).sum(1) for c in range(5)], dim=1)
    assert_close(module(x), x * scores.sigmoid()[..., None, None])
    shared = ECA(5, 3).double()
    with torch.no_grad():
        module.conv.weight.copy_(shared.conv.weight.expand(5, 1, 3))
    assert_close(module(x), shared(x))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: ECA(8, 4), "`kernel_size`.* got 4; 5 would work"),
        (lambda: ECA(8, 0), "`kernel_size`.* got 0; 1 would work"),
        (lambda: ECA(8, -3), "`kernel_size`.* got -3; 1 would work"),
        (lambda: UnsharedECA(8, 2), "`kernel_size`.* got 2; 3 would work"),
        (lambda: ECA(8, "adaptif"), "`kernel_size`.* got 'adaptif'; 3 would work"),
        (lambda: ECA(0), "`channels`.* got 0"),
        (lambda: adaptive_kernel_size(0), "`channels`.* got 0"),
        (lambda: adaptive_kernel_size(8, gamma=0), "`gamma`.*; 2 would work"),
    ],
)
def test_wrong_arguments_are_named(build: Callable[[], object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        build()
