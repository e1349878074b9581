"""DRRN: one residual unit applied again and again, and its residual axial versions with a sixteenth of the parameters.

Tai, Yang and Liu, 2017, "Image super-resolution via deep recursive residual network", CVPR, in the form without batch
norm of its public PyTorch versions.  Shahadat and Maida (2023, arXiv 2301.04631) claim that a residual axial unit
improves on it with 94 % fewer parameters, and do not print that unit; :data:`UNITS` holds the readings, and
``"bottleneck"`` is the one whose count agrees best with the claim: that of their RAN blocks.

Cost: 297,216 parameters whatever the number of recursions, and 2,656,512 multiply-accumulates a pixel of the enlarged
image with 9 of them; with the bottleneck 19,072 and 153,216.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from leanconv.errors import UserError, nearest
from leanconv.models.superres import SCALES, SuperResolution
from leanconv.models.zoo import Source, register_model
from leanconv.ops.axial import AxialConv2d


def _conv(in_channels: int, out_channels: int, kernel_size: int | tuple[int, int] = 3, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding="same", groups=groups, bias=False)


def _axial(width: int, *, depthwise: bool = True, norm: Callable[[int], nn.Module] | None = None) -> AxialConv2d:
    """Return a residual axial convolution of kernel 3, inner residuals and no bias."""
    groups = width if depthwise else 1
    return AxialConv2d(width, width, 3, padding="same", groups=groups, bias=False, residual=True, norm_layer=norm)


#: What stands in for each of DRRN's two 3x3 convolutions, where the unit is otherwise the published one.
CONVOLUTIONS: Mapping[str, Callable[[int], nn.Module]] = {
    "conv": lambda width: _conv(width, width),
    "depthwise": _axial,
    "separable": lambda width: nn.Sequential(_axial(width), _conv(width, width, 1)),
    "alternating": lambda width: nn.Sequential(
        _conv(width, width, (3, 1), width),
        _conv(width, width, 1),
        _conv(width, width, (1, 3), width),
        _conv(width, width, 1),
    ),
    "full": lambda width: _axial(width, depthwise=False),
}
#: The published unit, the residual axial bottleneck, one residual axial pair and one pointwise convolution, and the
#: published unit with other convolutions in it.
UNITS = ("conv", "bottleneck", "single", *(name for name in CONVOLUTIONS if name != "conv"))


class ResidualUnit(nn.Module):
    """Two convolutions, each after a ReLU: the shared unit of DRRN.

    Args:
        width: Channels read and written.
        convolution: Makes each of the two.
    """

    def __init__(self, width: int, convolution: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.conv1, self.conv2 = convolution(width), convolution(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, width, H, W)`` to the same."""
        out: Tensor = self.conv2(self.relu(self.conv1(self.relu(x))))
        return out


class AxialUnit(nn.Module):
    """Pointwise in, residual depthwise axial pair, pointwise out, each pointwise one after a ReLU.

    Args:
        width: Channels read and written.
        planes: Channels of the pair; ``None`` for ``width`` of them and no pointwise convolution before.
        batch_norm: Whether a batch norm follows each convolution.
    """

    def __init__(self, width: int, planes: int | None, *, batch_norm: bool = False) -> None:
        super().__init__()
        inner = width if planes is None else planes
        norm = nn.BatchNorm2d if batch_norm else nn.Identity
        self.relu = nn.ReLU()
        self.reduce = (
            nn.Sequential() if planes is None else nn.Sequential(_conv(width, inner, 1), norm(inner), nn.ReLU())
        )
        self.axial = _axial(inner, norm=nn.BatchNorm2d if batch_norm else None)
        self.expand = nn.Sequential(_conv(inner, width, 1), norm(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, width, H, W)`` to the same."""
        out: Tensor = self.expand(self.relu(self.axial(self.reduce(self.relu(x)))))
        return out


class RecursiveBlock(nn.Module):
    """A convolution, then ``h = h0 + unit(h)`` again and again with one unit and ``h0`` the convolution's output.

    Args:
        entry: The convolution.
        unit: The unit; keeps shapes.
        recursions: How often.
    """

    def __init__(self, entry: nn.Module, unit: nn.Module, recursions: int) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.entry, self.unit, self.recursions = entry, unit, recursions

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, width, H, W)``."""
        first: Tensor = self.entry(self.relu(x))
        h = first
        for _ in range(self.recursions):
            h = first + self.unit(h)
        return h


class DRRN(SuperResolution):
    """Deep recursive residual network.

    The first ReLU acts on the image itself, as published; luma is positive.  Convolutions start as He et al. (2015,
    arXiv 1502.01852) draw them, with three exceptions, our choice.  Those inside an axial convolution's own residuals
    start at zero, since drawn so they would multiply the variance by nine in each recursion, and so does the last, so
    that training starts from the bicubic image.  The kernels of the first sum to zero: they answer to detail and not to
    brightness, which in a network without biases decides at which side of zero every later ReLU is, so that it begins
    as a linear one.

    Args:
        blocks: Recursive blocks in a row, B in the paper.
        recursions: How often each applies its unit, U in the paper.
        width: Channels.
        unit: One of :data:`UNITS`.
        axial_ends: Build the first and last convolution of axial pairs too: a full 1-D one and a depthwise one.
        batch_norm: Batch norm after each convolution of the unit; ``"bottleneck"`` and ``"single"`` only.
        scales: See :class:`~leanconv.models.superres.SuperResolution`.

    Raises:
        UserError: An argument is unknown or out of range.

    Shapes:
        ``(N, 1, H, W)``, enlarged beforehand, to the same.
    """

    def __init__(
        self,
        blocks: int = 1,
        recursions: int = 9,
        *,
        width: int = 128,
        unit: str = "conv",
        axial_ends: bool = False,
        batch_norm: bool = False,
        scales: Sequence[int] = SCALES,
    ) -> None:
        super().__init__(scales)
        for name, value in (("blocks", blocks), ("recursions", recursions), ("width", width)):
            if type(value) is not int or value < 1:
                raise UserError(f"`{name}` must be a positive integer, got {value!r}.")
        if unit not in UNITS:
            raise UserError(f"`unit` {unit!r} is not known: {nearest(unit, UNITS)}")
        if batch_norm and unit in CONVOLUTIONS:
            raise UserError(f"`batch_norm` goes with `unit='bottleneck'` or 'single', got {unit!r}.")

        def entry(in_channels: int) -> nn.Module:
            if axial_ends and in_channels == 1:
                return nn.Sequential(_conv(1, width, (3, 1)), _conv(width, width, (1, 3), width))
            return _conv(in_channels, width)

        self.blocks = nn.Sequential(
            *(
                RecursiveBlock(entry(width if block else 1), _unit(unit, width, batch_norm), recursions)
                for block in range(blocks)
            )
        )
        self.relu = nn.ReLU()
        inward = [_conv(width, width, (3, 1), width), _conv(width, 1, (1, 3))]
        self.exit = nn.Sequential(*(inward if axial_ends else [_conv(width, 1)]))
        self.halo = blocks * (1 + recursions * (2 if unit in CONVOLUTIONS else 1)) + 1
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, 1, H, W)`` to the same."""
        detail: Tensor = self.exit(self.relu(self.blocks(x)))
        return x + detail


def _unit(name: str, width: int, batch_norm: bool) -> nn.Module:
    if name in CONVOLUTIONS:
        return ResidualUnit(width, CONVOLUTIONS[name])
    planes = None if name == "single" else max(width // 2, 1)
    return AxialUnit(width, planes, batch_norm=batch_norm)


def _initialise(network: DRRN) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    for module in network.blocks[0].modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 1:
            module.weight.data -= module.weight.data.mean((2, 3), keepdim=True)
    for module in network.modules():
        if isinstance(module, AxialConv2d):
            for convolution in module.convolutions():
                nn.init.zeros_(convolution.weight)
    last = network.exit[-1]
    assert isinstance(last, nn.Conv2d)
    nn.init.zeros_(last.weight)


_SOURCE = Source(
    "Tai et al. 2017, CVPR",
    certain="the recursion, its sharing, widths and counts",
    chosen="without batch norm and biases, as in the public PyTorch versions",
)
_AXIAL_SOURCE = Source(
    "Shahadat and Maida 2023, arXiv 2301.04631",
    certain="94 % fewer parameters than DRRN",
    chosen="the unit: the RAN block's pointwise, residual axial pair, pointwise, without batch norm",
)
for _recursions in (9, 25):
    register_model(
        f"drrn_b1u{_recursions}",
        DRRN,
        _SOURCE,
        published="297 K",
        input_size=(1, 256, 256),
        num_classes=None,
        small={"width": 8},
        purpose="superres",
        recursions=_recursions,
    )
    register_model(
        f"ran_drrn_b1u{_recursions}",
        DRRN,
        _AXIAL_SOURCE,
        published="94 % fewer than DRRN",
        input_size=(1, 256, 256),
        num_classes=None,
        small={"width": 8},
        purpose="superres",
        recursions=_recursions,
        unit="bottleneck",
    )
