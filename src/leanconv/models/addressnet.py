"""AddressNet: pointwise convolutions, shifts of channels and addresses, no spatial convolution after the first.

Zhong et al., 2018, arXiv 1809.08458; no code was released.  Certain are the primitives, the order within a module, the
table of the ImageNet network and the sizes printed for CIFAR.  *Our reading*: batch norm and ReLU after the first
grouped convolution, batch norm after the second, ReLU after the shortcut; the stride stands in the second; a module
that strides concatenates its pooled input (3x3, as in ShuffleNet), others add; the middle is ``expansion`` times the
output.  The widths of the CIFAR networks are not given: (48, 72, 96) with projection shortcuts reproduces both printed
sizes of AddressNet-32 (0.14 M parameters and 37.3 M MACs), though the poster draws no projection.  Of the "enhanced"
networks, which have shortcut shift throughout, only figures are known: here every module writes half of its channels
beside the half that the module before it wrote.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.models.convnet import Classifier, ConvNet, Stem, check_stem, conv_norm, projection
from leanconv.models.zoo import Source, register_model
from leanconv.ops.address import AddressPointwise2d, Border, shortcut_shift
from leanconv.ops.geometry import check_groups, to_tuple
from leanconv.ops.shuffle import ChannelShuffle2d

#: How groups exchange channels between the two convolutions of a module.
Mixing = Literal["shift", "shuffle"]
#: What a module that strides or widens joins its output with: the pooled input beside it, the pooled input with zero
#: channels added to it, or a strided 1x1 convolution of the input added to it.
Shortcut = Literal["concat", "pad", "project"]


class AddressModule(nn.Module):
    """Grouped 1x1, channel shift, address shift, grouped 1x1, and a shortcut (the poster's module).

    Args:
        in_channels: Channels read.
        out_channels: Channels written.
        stride: 1 or 2.
        expansion: Channels between the convolutions, in multiples of ``out_channels`` (or ``in_channels``).
        groups: Groups of both convolutions.
        mixing: See :data:`Mixing`.
        border: See :func:`~leanconv.ops.address.address_shift`.
        shortcut: See :data:`Shortcut`; used where shapes change.
        expand_input: Count ``expansion`` from the input's channels.
        enhanced: Where no shape changes, write half of the channels beside the second half of the input, which is what
            the module before wrote, instead of adding.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        expansion: int = 3,
        groups: int = 4,
        mixing: Mixing = "shift",
        border: Border = "flat",
        shortcut: Shortcut = "concat",
        expand_input: bool = False,
        enhanced: bool = False,
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        changes = stride > 1 or in_channels != out_channels
        self.join = shortcut if changes else "halves" if enhanced else "add"
        written = {"concat": out_channels - in_channels, "halves": out_channels // 2}.get(self.join, out_channels)
        if written < 1:
            raise UserError(
                f"`out_channels` must exceed `in_channels` = {in_channels} where a module concatenates, "
                f"got {out_channels}; {2 * in_channels} would work."
            )
        inner = expansion * (in_channels if expand_input else out_channels)
        check_groups(groups, in_channels=in_channels, out_channels=written)
        self.reduce = conv_norm(in_channels, inner, groups=groups)
        self.mix = ChannelShuffle2d(inner, groups) if mixing == "shuffle" else nn.Identity()
        self.address = AddressPointwise2d(
            inner, written, groups, stride, bias=False, border=border, channel_shift=mixing == "shift"
        )
        self.norm = nn.BatchNorm2d(written)
        self.missing = out_channels - in_channels
        self.pool: nn.Module = nn.Identity()
        if self.join == "project":
            self.pool = projection(in_channels, out_channels, stride)
        elif stride > 1:
            self.pool = nn.AvgPool2d(3, stride, 1)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, out_channels, H/stride, W/stride)``."""
        y: Tensor = self.norm(self.address(self.mix(self.reduce(x))))
        if self.join == "halves":
            joined = shortcut_shift(x.chunk(2, 1)[1], y)
        elif self.join == "concat":
            joined = shortcut_shift(self.pool(x), y)
        elif self.join == "pad":
            joined = F.pad(self.pool(x), (0, 0, 0, 0, 0, self.missing)) + y
        else:
            joined = self.pool(x) + y
        result: Tensor = self.act(joined)
        return result


class AddressNet(ConvNet):
    """AddressNet; use :class:`CifarAddressNet` or :class:`ImageNetAddressNet`.

    Args:
        stem: From the image to ``channels``.
        channels: Channels of the stem.
        widths: Channels a stage.
        expansions: Expansion of each module, a row for each stage.
        strides: Stride of the first module of each stage.
        num_classes: Outputs.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.
        groups: See :class:`AddressModule`.
        mixing: See :data:`Mixing`.
        border: See :func:`~leanconv.ops.address.address_shift`.
        shortcut: See :data:`Shortcut`.
        expand_input: See :class:`AddressModule`.
        enhanced: See :class:`AddressModule`.

    Raises:
        UserError: An argument is unknown or does not divide the widths.
    """

    def __init__(
        self,
        stem: nn.Module,
        channels: int,
        widths: Sequence[int],
        expansions: Sequence[Sequence[int]],
        strides: Sequence[int],
        *,
        num_classes: int,
        features_only: bool,
        groups: int,
        mixing: Mixing,
        border: Border,
        shortcut: Shortcut,
        expand_input: bool = False,
        enhanced: bool = False,
    ) -> None:
        if mixing not in get_args(Mixing):
            raise UserError(f"`mixing` must be 'shift' or 'shuffle', got {mixing!r}.")
        if shortcut not in get_args(Shortcut):
            raise UserError(f"`shortcut` must be 'concat', 'pad' or 'project', got {shortcut!r}.")
        stages = []
        for width, row, stride in zip(widths, expansions, strides, strict=True):
            modules: list[nn.Module] = []
            for index, expansion in enumerate(row):
                modules.append(
                    AddressModule(
                        channels,
                        width,
                        stride if index == 0 else 1,
                        expansion=expansion,
                        groups=groups,
                        mixing=mixing,
                        border=border,
                        shortcut=shortcut,
                        expand_input=expand_input,
                        enhanced=enhanced,
                    )
                )
                channels = width
            stages.append(nn.Sequential(*modules))
        super().__init__(stem, stages, Classifier(channels, num_classes), features_only=features_only)


class CifarAddressNet(AddressNet):
    """AddressNet-20, 32 and 44 for images of 32 pixels: three stages at strides 1, 2 and 4.

    Args:
        depth: Layers, ``6 n + 2`` for ``n`` modules a stage.
        widths: Channels of the three stages, not given in the paper; the first is the stem's too.
        expansion: See :class:`AddressModule`.
        groups: See :class:`AddressModule`.
        mixing: See :data:`Mixing`.
        border: See :func:`~leanconv.ops.address.address_shift`.
        shortcut: See :data:`Shortcut`.
        enhanced: See :class:`AddressModule`.
        num_classes: Outputs.
        in_channels: Channels of the images.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.

    Raises:
        UserError: ``depth`` is not ``6 n + 2``, or another argument is unknown or does not divide the widths.

    Shapes:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.
    """

    def __init__(
        self,
        depth: int = 32,
        *,
        widths: Sequence[int] = (48, 72, 96),
        expansion: int = 3,
        groups: int = 4,
        mixing: Mixing = "shift",
        border: Border = "flat",
        shortcut: Shortcut = "project",
        enhanced: bool = False,
        num_classes: int = 100,
        in_channels: int = 3,
        features_only: bool = False,
    ) -> None:
        if depth < 8 or depth % 6 != 2:
            raise UserError(f"`depth` must be 6 n + 2, got {depth}; {max(8, depth // 6 * 6 + 2)} would work.")
        widths = to_tuple(tuple(widths), 3, "widths")
        super().__init__(
            conv_norm(in_channels, widths[0], 3),
            widths[0],
            widths,
            ((expansion,) * ((depth - 2) // 6),) * 3,
            (1, 2, 2),
            num_classes=num_classes,
            features_only=features_only,
            groups=groups,
            mixing=mixing,
            border=border,
            shortcut=shortcut,
            enhanced=enhanced,
        )


class ImageNetAddressNet(AddressNet):
    """AddressNet for photos: four stages at strides 4, 8, 16 and 32 (1, 2, 4 and 8 with the small stem).

    Args:
        base_width: Channels of the first convolution (32 in the table); the stages have 3, 6, 12 and 24 times as many.
        stem_kernel: Taps of the first convolution, which the table does not give, odd.
        groups: See :class:`AddressModule`.
        mixing: See :data:`Mixing`.
        border: See :func:`~leanconv.ops.address.address_shift`.
        shortcut: See :data:`Shortcut`.
        expand_input: See :class:`AddressModule`.
        stem: ``"imagenet"``, or ``"cifar"`` for images of 32 pixels: stride 1 in the first convolution and stage.
        num_classes: Outputs.
        in_channels: Channels of the images.
        features_only: See :class:`~leanconv.models.convnet.ConvNet`.

    Raises:
        UserError: An argument is unknown or does not divide the widths.

    Shapes:
        ``(N, in_channels, H, W)`` to ``(N, num_classes)``.
    """

    def __init__(
        self,
        *,
        base_width: int = 32,
        stem_kernel: int = 3,
        groups: int = 4,
        mixing: Mixing = "shift",
        border: Border = "flat",
        shortcut: Shortcut = "concat",
        expand_input: bool = False,
        stem: Stem = "imagenet",
        num_classes: int = 1000,
        in_channels: int = 3,
        features_only: bool = False,
    ) -> None:
        check_stem(stem)
        if stem_kernel < 1 or stem_kernel % 2 == 0:
            raise UserError(f"`stem_kernel` must be odd, got {stem_kernel}; {max(1, stem_kernel + 1)} would work.")
        stride = 2 if stem == "imagenet" else 1
        super().__init__(
            conv_norm(in_channels, base_width, stem_kernel, stride),
            base_width,
            [base_width * factor for factor in (3, 6, 12, 24)],
            ((4, 3, 3, 3), (3, 2, 2, 2, 2), (2,) * 6, (2,) * 4),
            (stride, 2, 2, 2),
            num_classes=num_classes,
            features_only=features_only,
            groups=groups,
            mixing=mixing,
            border=border,
            shortcut=shortcut,
            expand_input=expand_input,
        )


_CIFAR = Source(
    "Zhong et al. 2018, arXiv 1809.08458, and its poster",
    certain="the shifts, their order, depth, two sizes of AddressNet-32",
    chosen="widths (48, 72, 96), expansion 3, projection shortcuts, places of batch norm, ReLU and stride",
)
_ENHANCED = Source(_CIFAR.paper, certain="shortcut shift throughout", chosen="the whole block")
for _depth in (20, 32, 44):
    for _suffix, _source, _options in (
        ("", _CIFAR, {}),
        ("_shuffle", _CIFAR, {"mixing": "shuffle"}),
        ("_enhanced", _ENHANCED, {"enhanced": True, "shortcut": "concat"}),
    ):
        register_model(
            f"addressnet{_depth}{_suffix}",
            CifarAddressNet,
            _source,
            published="0.14 M / 37.3 M" if _depth == 32 and _source is _CIFAR else "",
            num_classes=100,
            small={"widths": (16, 24, 32)},
            depth=_depth,
            **_options,
        )
register_model(
    "addressnet_imagenet",
    ImageNetAddressNet,
    Source(
        _CIFAR.paper,
        certain="the table of stages, widths, strides and expansions",
        chosen="a 3x3 stem, concatenation where a module strides, places of batch norm, ReLU and stride",
    ),
    input_size=(3, 224, 224),
    num_classes=1000,
    small={"base_width": 8},
)
