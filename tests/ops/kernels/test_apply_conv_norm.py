"""Where modules are fused, and that nobody notices but by the clock."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from leanconv.models import create_model
from leanconv.ops import AxialConv2d
from leanconv.ops.kernels import apply, apply_conv_norm, plain_forms
from leanconv.ops.kernels.library import library

needs_kernel = pytest.mark.skipif(library() is None, reason="no C++ compiler here")


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Fuse small tensors too, and note the shapes of what was."""
    calls: list[tuple[int, ...]] = []
    operator = apply.depthwise_norm

    def noted(x: Tensor, *rest: object) -> tuple[Tensor, ...]:
        calls.append(tuple(x.shape))
        return operator(x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(apply, "LEAST_ELEMENTS", 0)
    monkeypatch.setattr(apply, "depthwise_norm", noted)
    return calls


def images(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, dtype=dtype).contiguous(memory_format=torch.channels_last)


def depthwise(channels: int = 16, **options: object) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False, **options)  # type: ignore[arg-type]


@needs_kernel
@pytest.mark.parametrize("momentum", [0.1, 0.5, None])
def test_running_statistics_are_those_of_torch(momentum: float | None, fused: list[tuple[int, ...]]) -> None:
    conv, norm = depthwise(), nn.BatchNorm2d(16, momentum=momentum)
    plain = copy.deepcopy(norm)
    for _ in range(3):
        x = images(3, 16, 6, 5)
        found = apply_conv_norm(x, conv, norm)
        assert_close(found, plain(conv(x)), rtol=1e-4, atol=1e-5)
    assert len(fused) == 3
    for name, value in plain.state_dict().items():
        assert_close(norm.state_dict()[name], value, rtol=1e-5, atol=1e-6)


@needs_kernel
@pytest.mark.parametrize("activation", [None, nn.ReLU(), nn.ReLU6(), nn.SiLU(), nn.ReLU(inplace=True)])
@pytest.mark.parametrize("conv", [depthwise(), nn.Conv2d(16, 24, 1), nn.Conv2d(16, 16, 3, 2, groups=4)])
@pytest.mark.parametrize("kind", ["alone", "residual", "added"])
def test_fused_is_what_modules_compute(
    activation: nn.Module | None, conv: nn.Conv2d, kind: str, fused: list[tuple[int, ...]]
) -> None:
    x = images(3, 16, 6, 5).requires_grad_()
    norm = nn.BatchNorm2d(conv.out_channels)
    if kind == "residual" and conv.groups != 16:
        pytest.skip("the convolution changes the shape")
    added = images(*conv(x).shape) if kind == "added" else None
    arguments = (conv, norm, activation)
    found = apply_conv_norm(x, *arguments, residual=kind == "residual", added=added)
    assert fused
    with plain_forms():
        expected = apply_conv_norm(x, *arguments, residual=kind == "residual", added=added)
    assert len(fused) == 1
    assert_close(found, expected, rtol=1e-4, atol=1e-5)
    gradient = torch.randn_like(found)
    inputs = [x, conv.weight, norm.weight, norm.bias]
    for a, b in zip(
        torch.autograd.grad(found, inputs, gradient), torch.autograd.grad(expected, inputs, gradient), strict=True
    ):
        assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("norm", "prepare"),
    [
        (nn.BatchNorm2d(16).eval(), None),
        (nn.BatchNorm2d(16, affine=False), None),
        (nn.GroupNorm(2, 16), None),
        (nn.SyncBatchNorm(16).eval(), None),
        (nn.BatchNorm2d(16), lambda conv, norm: conv.register_forward_hook(lambda *_: None)),
        (nn.BatchNorm2d(16), lambda conv, norm: norm.register_forward_hook(lambda *_: None)),
        (nn.BatchNorm2d(16), lambda conv, norm: setattr(conv, "padding_mode", "reflect")),
    ],
)
def test_other_modules_are_called(
    norm: nn.Module, prepare: Callable[[nn.Module, nn.Module], object] | None, fused: list[tuple[int, ...]]
) -> None:
    conv = depthwise()
    if prepare is not None:
        prepare(conv, norm)
    x = images(2, 16, 4, 4)
    expected = copy.deepcopy(norm)(conv(x))
    assert_close(apply_conv_norm(x, conv, norm), expected, rtol=1e-4, atol=1e-5)
    # A batch norm may still be fused with nothing before it.
    assert len(fused) == (type(norm) is nn.BatchNorm2d and norm.training and norm.affine and not norm._forward_hooks)


def test_other_layouts_and_types_are_left_to_torch(fused: list[tuple[int, ...]]) -> None:
    conv, norm = depthwise(), nn.BatchNorm2d(16)
    apply_conv_norm(torch.randn(2, 16, 4, 4), conv, norm)
    apply_conv_norm(images(2, 16, 4, 4, dtype=torch.float64), conv.double(), norm.double())
    apply_conv_norm(torch.randn(2, 3, 4), nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16))
    assert not fused


def test_transforms_of_functions_see_the_modules(fused: list[tuple[int, ...]]) -> None:
    conv, norm, x = depthwise(), nn.BatchNorm2d(16, track_running_stats=False), images(3, 16, 4, 4)

    def loss(image: Tensor) -> Tensor:
        return apply_conv_norm(image, conv, norm).pow(3).sum()

    found = torch.func.grad(loss)(x)
    assert not fused
    (expected,) = torch.autograd.grad(norm(conv(x.requires_grad_())).pow(3).sum(), x)
    assert_close(found, expected)


@needs_kernel
def test_autocast_fuses_bfloat16(fused: list[tuple[int, ...]]) -> None:
    conv, norm = depthwise(), nn.BatchNorm2d(16)
    x = images(4, 16, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = apply_conv_norm(x.bfloat16(), conv, norm, residual=True)
        with plain_forms():
            expected = apply_conv_norm(x.bfloat16(), conv, norm, residual=True)
    assert fused
    assert found.dtype == expected.dtype == torch.bfloat16
    assert_close(found, expected, rtol=0.02, atol=0.03)


def test_small_tensors_do_not_ask_for_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "library", lambda: pytest.fail("asked"))
    apply_conv_norm(images(2, 16, 4, 4), depthwise(), nn.BatchNorm2d(16))


def test_without_a_compiler_modules_are_called(monkeypatch: pytest.MonkeyPatch, fused: list[tuple[int, ...]]) -> None:
    monkeypatch.setattr(apply, "library", lambda: None)
    conv, norm, x = depthwise(), nn.BatchNorm2d(16), images(2, 16, 4, 4)
    assert_close(apply_conv_norm(x, conv, norm), copy.deepcopy(norm)(conv(x)))
    assert not fused


@needs_kernel
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_network_trains_as_without(memory_format: torch.memory_format, fused: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    model = create_model("ran26", num_classes=5, base_width=16).to(memory_format=memory_format)  # type: ignore[call-overload]
    plain = copy.deepcopy(model)
    x = torch.randn(4, 3, 16, 16).contiguous(memory_format=memory_format)
    labels = torch.tensor([0, 1, 2, 3])
    for _ in range(2):
        nn.functional.cross_entropy(model(x), labels).backward()
        with plain_forms():
            nn.functional.cross_entropy(plain(x), labels).backward()
    assert len(fused) == 2 * 37
    for (name, a), b in zip(model.named_parameters(), plain.parameters(), strict=True):
        scale = float(b.grad.abs().max())
        assert_close(a.grad / scale, b.grad / scale, rtol=0, atol=2e-3, msg=lambda text, n=name: f"{n}: {text}")
    for (name, a), b in zip(model.named_buffers(), plain.buffers(), strict=True):
        assert_close(a, b, rtol=1e-3, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}")
    model.eval()
    plain.load_state_dict(model.state_dict())
    assert_close(model(x), plain.eval()(x), rtol=0, atol=0)


@needs_kernel
def test_training_networks_compile_and_export_whole(fused: list[tuple[int, ...]]) -> None:
    block = AxialConv2d(16, 16, 3, padding="same", groups=16, bias=False, residual=True, norm_layer=nn.BatchNorm2d)
    x = images(2, 16, 6, 6)
    compiled = torch.compile(copy.deepcopy(block), backend="aot_eager", fullgraph=True)
    exported = torch.export.export(copy.deepcopy(block), (x,)).module()
    assert not fused
    expected = block(x)
    assert len(fused) == 2
    assert_close(compiled(x), expected, rtol=1e-4, atol=1e-5)
    assert_close(exported(x), expected, rtol=1e-4, atol=1e-5)


@needs_kernel
@pytest.mark.parametrize("stride", [1, 2])
def test_axial_pairs_end_in_their_activation(stride: int, fused: list[tuple[int, ...]]) -> None:
    pair = AxialConv2d(16, 16, 3, stride, padding=1, groups=16, bias=False, residual=True, norm_layer=nn.BatchNorm2d)
    x = images(2, 16, 6, 6)
    assert_close(pair(x, nn.ReLU()), pair(x).relu(), rtol=1e-4, atol=1e-5)
    assert len(fused) == (4 if stride == 1 else 0)
