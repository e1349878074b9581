from functools import partial

import pytest
import torch
from sizes import sizes
from torch import nn
from torch.testing import assert_close

import oracles
from leanconv.errors import UserError
from leanconv.ops import ASPP, AtrousSeparableConv2d, DepthwiseSeparableConv2d


def test_it_is_a_dilated_separable_convolution() -> None:
    atrous = AtrousSeparableConv2d(4, 6, dilation=3)
    plain = DepthwiseSeparableConv2d(4, 6, 3, padding=3, dilation=3)
    plain.load_state_dict(atrous.state_dict())
    x = torch.randn(2, 4, 11, 9)
    assert torch.equal(atrous(x), plain(x))


def test_norm_and_activation_follow_both_parts() -> None:
    operator = AtrousSeparableConv2d(3, 5, dilation=2, bias=False, norm_layer=nn.BatchNorm2d)
    x = torch.randn(4, 3, 8, 8)
    inner = torch.relu(nn.BatchNorm2d(3)(operator.depthwise(x)))
    assert_close(operator(x), torch.relu(nn.BatchNorm2d(5)(operator.pointwise(inner))))
    with pytest.raises(UserError, match="norm_layer"):
        operator.dense()


@pytest.mark.parametrize(
    ("channels", "separable", "params", "macs"),
    [
        (2048, False, 15_535_104, 16_343_957_504),
        (320, False, 2_706_432, 2_854_830_080),
        (2048, True, 3_007_488, 2_701_383_680),
        (320, True, 748_992, 723_177_920),
    ],
)
def test_sizes_at_33_pixels(channels: int, separable: bool, params: int, macs: int) -> None:
    """Counted from VainF/DeepLabV3Plus-Pytorch, plain and converted to separable convolutions."""
    assert sizes(partial(ASPP, channels, separable=separable, inner_norm=False), 1, channels, 33, 33) == (params, macs)
    if separable:
        assert sizes(partial(ASPP, channels, separable=True), 1, channels, 33, 33) == (params + 6 * channels, macs)


def test_plain_form_equals_torchvisions() -> None:
    oracles.torchvision()
    from torchvision.models.segmentation.deeplabv3 import ASPP as Theirs  # noqa: N811 - the class's own name

    theirs, ours = Theirs(24, [2, 4, 6], 16).eval(), ASPP(24, 16, rates=(2, 4, 6)).eval()
    for parameter in theirs.buffers():
        if parameter.is_floating_point():
            nn.init.uniform_(parameter, 0.5, 1.5)
    renamed = {}
    for key, value in theirs.state_dict().items():
        key = key.replace("convs.4.", "pool.").replace("convs.", "branches.")
        renamed[key] = value
    ours.load_state_dict(renamed)
    x = torch.randn(2, 24, 9, 11)
    with torch.no_grad():
        assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_pyramid_survives_export_and_reaches_every_parameter() -> None:
    module = ASPP(6, 4, rates=(1, 2), separable=True, dropout=0.1)
    x = torch.randn(2, 6, 7, 8)
    module(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    module.eval()
    assert_close(torch.export.export(module, (x,)).module()(x), module(x))
    torch.compiler.reset()
    assert_close(torch.compile(module, fullgraph=True, backend="aot_eager")(x), module(x))


@pytest.mark.parametrize(("kwargs", "named"), [({"rates": (6, 0)}, "`rates`"), ({"dropout": 1.0}, "`dropout`.*0.1")])
def test_wrong_arguments_are_named(kwargs: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        ASPP(8, **kwargs)
