from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from leanconv.errors import UserError
from leanconv.ops import (
    ChannelwiseClassifier,
    DepthwiseChannelwiseConv2d,
    GroupedChannelwiseConv1d,
    GroupedChannelwiseConv2d,
    GroupedChannelwiseConv3d,
    UnsharedChannelwiseClassifier,
)
from leanconv.ops.channelwise import channel_padding
from reference_operators import ChannelwiseConv3d


def by_the_formula(x: Tensor, weight: Tensor, low: int) -> Tensor:
    """Term by term: y[j c/g + t] = sum over q of w_j[q] x[t g + q - low], with zeros beyond the channels."""
    groups, taps = weight.shape
    channels = x.shape[1]
    y = torch.zeros_like(x)
    for j in range(groups):
        for t in range(channels // groups):
            for q in range(taps):
                source = t * groups + q - low
                if 0 <= source < channels:
                    y[:, j * channels // groups + t] += weight[j, q] * x[:, source]
    return y


@pytest.mark.parametrize(
    ("channels", "groups", "taps", "pads"),
    [(16, 2, 8, (3, 3)), (32, 4, 16, (6, 6)), (96, 1, 64, (31, 32)), (12, 3, 12, (4, 5)), (8, 2, 2, (0, 0))],
)
def test_padding_and_order_are_the_papers(channels: int, groups: int, taps: int, pads: tuple[int, int]) -> None:
    """3 and 3 for g = 2, 6 and 6 for g = 4, 31 and 32 for the kernel of 64; all outputs of one kernel together."""
    assert channel_padding(channels, taps, groups) == pads
    operator = GroupedChannelwiseConv2d(channels, groups, channel_kernel_size=taps).double()
    x = torch.randn(2, channels, 3, 5, dtype=torch.float64)
    assert_close(operator(x), by_the_formula(x, operator.weight, pads[0]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("channels", "groups", "taps"), [(16, 2, 8), (32, 4, 16), (12, 3, 12), (8, 2, 2), (9, 1, 4)])
def test_inference_computes_the_same_with_as_many_operations(
    channels: int, groups: int, taps: int, memory_format: torch.memory_format, images: int
) -> None:
    operator = GroupedChannelwiseConv2d(channels, groups, channel_kernel_size=taps, bias=True).double()
    x = torch.randn(images, channels, 3, 5, dtype=torch.float64).to(memory_format=memory_format)
    with FlopCounterMode(display=False) as learning:
        expected = operator(x)
    with torch.inference_mode(), FlopCounterMode(display=False) as inferring:
        assert_close(operator(x), expected, rtol=1e-12, atol=1e-12)
    assert inferring.get_total_flops() == learning.get_total_flops()


@pytest.mark.parametrize(("channels", "groups", "taps"), [(64, 2, 8), (64, 4, 16), (48, 1, 64)])
def test_equals_the_convolution_with_one_more_axis_also_in_gradients(channels: int, groups: int, taps: int) -> None:
    ours = GroupedChannelwiseConv2d(channels, groups, channel_kernel_size=taps).double()
    theirs = ChannelwiseConv3d(ours.weight)
    x = torch.randn(3, channels, 7, 6, dtype=torch.float64, requires_grad=True)
    results = []
    for module in (ours, theirs):
        y = module(x)
        results.append((y, *torch.autograd.grad(y.sin().sum(), (x, module.weight))))
    assert_close(results[0], results[1], rtol=1e-11, atol=1e-11)


def test_one_and_three_axes_are_the_same_operator_on_other_pixels() -> None:
    classes = (GroupedChannelwiseConv1d, GroupedChannelwiseConv2d, GroupedChannelwiseConv3d)
    flat, image, volume = (cls(8, 2) for cls in classes)
    for other in (flat, volume):
        other.load_state_dict(image.state_dict())
    x = torch.randn(2, 8, 4, 6)
    assert_close(flat(x.flatten(2)), image(x).flatten(2))
    assert_close(volume(x.unflatten(2, (2, 2))), image(x).unflatten(2, (2, 2)))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_any_memory_layout_and_number_of_pixels(layout: torch.memory_format) -> None:
    operator = GroupedChannelwiseConv2d(32, 2)
    for sides in ((1, 1), (14, 14), (1, 9)):
        x = torch.randn(2, 32, *sides).contiguous(memory_format=layout)
        assert_close(operator(x), ChannelwiseConv3d(operator.weight)(x))


def test_counts_are_the_papers() -> None:
    """g f parameters and f c h w MACs (arXiv 1809.01330, section 3.2); k² c + f and (k² + f) c h w (section 3.3)."""
    with torch.device("meta"):
        grouped, separable = GroupedChannelwiseConv2d(512, 2), DepthwiseChannelwiseConv2d(1024, 3, padding=1)
        for operator, params, macs in (
            (grouped, 2 * 8, 8 * 512 * 14**2),
            (separable, 9 * 1024 + 64, (9 + 64) * 1024 * 14**2),
        ):
            assert sum(p.numel() for p in operator.parameters()) == params
            with FlopCounterMode(display=False) as counter:
                operator(torch.empty(1, operator.in_channels, 14, 14))
            assert counter.get_total_flops() == 2 * macs


def test_the_separable_form_is_depthwise_then_one_kernel_along_the_channels() -> None:
    operator = DepthwiseChannelwiseConv2d(70, 3, stride=2, padding=1).double()
    x = torch.randn(2, 70, 9, 8, dtype=torch.float64)
    between = F.conv2d(x, operator.depthwise.weight, stride=2, padding=1, groups=70)
    expected = ChannelwiseConv3d(operator.channelwise.weight)(between)
    assert_close(operator(x), expected, rtol=1e-11, atol=1e-11)


def test_fit_of_a_dense_convolution_is_the_nearest_one() -> None:
    """The residual is orthogonal to every direction of the structure, so no change of a tap lowers the distance."""
    conv = nn.Conv2d(12, 12, 1, bias=False, dtype=torch.float64)
    fitted = GroupedChannelwiseConv2d.from_dense(conv, channel_groups=2, channel_kernel_size=6)
    direction = GroupedChannelwiseConv2d(12, 2, channel_kernel_size=6).double()
    residual = conv.weight - fitted.dense().weight
    for tap in range(12):
        with torch.no_grad():
            direction.weight.zero_().view(-1)[tap] = 1
        assert abs((residual * direction.dense().weight).sum()) < 1e-12


def test_separable_fit_is_better_than_any_change_of_one_factor() -> None:
    conv = nn.Conv2d(10, 10, 3, bias=False, dtype=torch.float64)
    fitted = DepthwiseChannelwiseConv2d.from_dense(conv, channel_kernel_size=4)
    best = (conv.weight - fitted.dense().weight).norm()
    assert best < conv.weight.norm()
    for parameter in fitted.parameters():
        kept = parameter.detach().clone()
        for _ in range(5):
            with torch.no_grad():
                parameter.copy_(kept + 0.01 * torch.randn_like(kept))
            assert (conv.weight - fitted.dense().weight).norm() > best * (1 - 1e-4)
        parameter.data.copy_(kept)


def test_a_convolution_of_zeros_is_fitted_by_zeros() -> None:
    conv = nn.Conv2d(6, 6, 3, bias=False)
    nn.init.zeros_(conv.weight)
    fitted = DepthwiseChannelwiseConv2d.from_dense(conv, channel_kernel_size=4)
    assert fitted(torch.randn(1, 6, 5, 5)).abs().max() == 0


def test_classifier_equals_the_valid_convolution_over_channels_height_and_width() -> None:
    layer = ChannelwiseClassifier(20, 13, 4).double()
    x = torch.randn(3, 20, 4, 4, dtype=torch.float64, requires_grad=True)
    kernel = layer.conv.weight.view(4, 4, 8).permute(2, 0, 1)
    expected = F.conv3d(x.unsqueeze(1), kernel[None, None]).reshape(3, 13)
    assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(layer, (x,), fast_mode=True)


def test_unshared_classifier_is_a_banded_linear_layer_on_averages() -> None:
    layer = UnsharedChannelwiseClassifier(9, 6).double()
    x = torch.randn(2, 9, 3, 5, dtype=torch.float64)
    linear = torch.zeros(6, 9, dtype=torch.float64)
    for j in range(6):
        linear[j, j : j + 4] = layer.conv.weight[j, 0]
    assert_close(layer(x), x.mean((2, 3)) @ linear.T, rtol=1e-12, atol=1e-12)


def test_classifier_pools_maps_of_another_size_and_takes_other_axes() -> None:
    layer = ChannelwiseClassifier(8, 5, 2)
    x = torch.randn(2, 8, 6, 4)
    assert_close(layer(x), layer(F.adaptive_avg_pool2d(x, 2)))
    assert ChannelwiseClassifier(8, 5, (3,))(torch.randn(2, 8, 9)).shape == (2, 5)
    assert ChannelwiseClassifier(8, 5, (2, 1, 2))(torch.randn(2, 8, 4, 4, 4)).shape == (2, 5)
    assert UnsharedChannelwiseClassifier(8, 5)(torch.randn(2, 8, 9)).shape == (2, 5)


def test_classifier_counts_are_the_papers() -> None:
    """s (m - n + 1) parameters and n times as many MACs (section 3.5); 25,000 of both where nothing is shared."""
    with torch.device("meta"):
        for layer, params, macs in (
            (ChannelwiseClassifier(1024, 1000), 49 * 25, 49 * 25 * 1000),
            (UnsharedChannelwiseClassifier(1024, 1000), 25_000, 25_000),
        ):
            assert sum(p.numel() for p in layer.parameters()) == params
            with FlopCounterMode(display=False) as counter:
                layer(torch.empty(1, 1024, 7, 7))
            assert counter.get_total_flops() == 2 * macs


@pytest.mark.parametrize("layer", [ChannelwiseClassifier(8, 5, 3), UnsharedChannelwiseClassifier(8, 5)])
@pytest.mark.parametrize("transform", ["export", "compile"])
def test_classifiers_are_captured_as_graphs(layer: nn.Module, transform: str) -> None:
    x = torch.randn(2, 8, 3, 3)
    captured: Callable[[Tensor], Tensor]
    if transform == "export":
        captured = torch.export.export(layer, (x,)).module()
    else:
        torch.compiler.reset()
        captured = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert_close(captured(x), layer(x))


def test_exported_graphs_take_any_batch_and_image_size() -> None:
    operator = GroupedChannelwiseConv2d(16, 2)
    batch, height, width = (torch.export.Dim(name, min=2, max=64) for name in ("batch", "height", "width"))
    program = torch.export.export(
        operator, (torch.randn(2, 16, 5, 6),), dynamic_shapes=({0: batch, 2: height, 3: width},)
    )
    x = torch.randn(3, 16, 9, 4)
    assert_close(program.module()(x), operator(x))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: GroupedChannelwiseConv2d(512, 3), "`groups` must divide `in_channels` = 512, got 3; [24] would work"),
        (
            lambda: GroupedChannelwiseConv2d(16, 4, channel_kernel_size=3),
            "`channel_kernel_size`.* got 3.*16 would",
        ),
        (lambda: GroupedChannelwiseConv2d(0), "`in_channels`.* got 0"),
        (lambda: DepthwiseChannelwiseConv2d(8, 3, channel_kernel_size=0), "`channel_kernel_size`.* got 0"),
        (lambda: DepthwiseChannelwiseConv2d(8, 4, stride=2, padding="same"), "`kernel_size`.*would work"),
        (lambda: GroupedChannelwiseConv2d.from_dense(nn.Conv2d(4, 8, 1)), "`conv`.* got 4 and 8"),
        (lambda: GroupedChannelwiseConv2d.from_dense(nn.Conv2d(4, 4, 3)), "`conv` must be a pointwise"),
        (lambda: ChannelwiseClassifier(768, 1000), "`num_classes`.* 768.*got 1000; up to 768 would work"),
        (lambda: UnsharedChannelwiseClassifier(512, 1000), "`num_classes`.* 512.*got 1000"),
        (lambda: ChannelwiseClassifier(8, 0), "`num_classes`.* got 0"),
        (lambda: ChannelwiseClassifier(8, 4, 0), "`kernel_size`.* got 0"),
        (lambda: ChannelwiseClassifier(8, 4, (1, 2, 3, 4)), "`kernel_size`.*would work"),
    ],
)
def test_wrong_arguments_are_named(build: Callable[[], object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        build()
