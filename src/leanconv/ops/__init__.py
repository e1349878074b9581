"""Operators: structured factorisations of dense convolutions, one a file."""

from leanconv.ops.address import AddressPointwise2d, AddressShift2d, address_shift, shortcut_shift
from leanconv.ops.aspp import ASPP
from leanconv.ops.atrous import AtrousSeparableConv1d, AtrousSeparableConv2d, AtrousSeparableConv3d
from leanconv.ops.axial import AxialConv1d, AxialConv2d, AxialConv3d
from leanconv.ops.balanced_decoupled import BalancedDecoupledConv1d, BalancedDecoupledConv2d, BalancedDecoupledConv3d
from leanconv.ops.channel_attention import ChannelAttention
from leanconv.ops.channelwise import (
    GroupedChannelwiseConv1d,
    GroupedChannelwiseConv2d,
    GroupedChannelwiseConv3d,
    channelwise_conv,
)
from leanconv.ops.channelwise_classifier import ChannelwiseClassifier, UnsharedChannelwiseClassifier
from leanconv.ops.context import ContextModule
from leanconv.ops.cp import CPConv1d, CPConv2d, CPConv3d
from leanconv.ops.decoupled import DecoupledConv1d, DecoupledConv2d, DecoupledConv3d
from leanconv.ops.depthwise_channelwise import (
    DepthwiseChannelwiseConv1d,
    DepthwiseChannelwiseConv2d,
    DepthwiseChannelwiseConv3d,
)
from leanconv.ops.dice import DiCE, DimConv, DimFuse
from leanconv.ops.dilated import DilatedConv1d, DilatedConv2d, DilatedConv3d
from leanconv.ops.eca import ECA, UnsharedECA, adaptive_kernel_size
from leanconv.ops.rolling import RollingPointwise1d, RollingPointwise2d, RollingPointwise3d
from leanconv.ops.separable import (
    DepthwiseSeparableConv1d,
    DepthwiseSeparableConv2d,
    DepthwiseSeparableConv3d,
)
from leanconv.ops.shift import (
    ChannelShift1d,
    ChannelShift2d,
    ChannelShift3d,
    ShiftedGroupedPointwise1d,
    ShiftedGroupedPointwise2d,
    ShiftedGroupedPointwise3d,
    channel_shift,
)
from leanconv.ops.shuffle import (
    ChannelShuffle1d,
    ChannelShuffle2d,
    ChannelShuffle3d,
    GroupedShuffleConv1d,
    GroupedShuffleConv2d,
    GroupedShuffleConv3d,
    channel_shuffle,
)
from leanconv.ops.squeeze_excitation import SqueezeExcitation
from leanconv.ops.structured import OPERATORS, StructuredConv
from leanconv.ops.tensor_train import TensorTrainConv1d, TensorTrainConv2d, TensorTrainConv3d
from leanconv.ops.transduction import transduce
from leanconv.ops.tucker import TuckerConv1d, TuckerConv2d, TuckerConv3d

__all__ = [
    "ASPP",
    "ECA",
    "OPERATORS",
    "AddressPointwise2d",
    "AddressShift2d",
    "AtrousSeparableConv1d",
    "AtrousSeparableConv2d",
    "AtrousSeparableConv3d",
    "AxialConv1d",
    "AxialConv2d",
    "AxialConv3d",
    "BalancedDecoupledConv1d",
    "BalancedDecoupledConv2d",
    "BalancedDecoupledConv3d",
    "CPConv1d",
    "CPConv2d",
    "CPConv3d",
    "ChannelAttention",
    "ChannelShift1d",
    "ChannelShift2d",
    "ChannelShift3d",
    "ChannelShuffle1d",
    "ChannelShuffle2d",
    "ChannelShuffle3d",
    "ChannelwiseClassifier",
    "ContextModule",
    "DecoupledConv1d",
    "DecoupledConv2d",
    "DecoupledConv3d",
    "DepthwiseChannelwiseConv1d",
    "DepthwiseChannelwiseConv2d",
    "DepthwiseChannelwiseConv3d",
    "DepthwiseSeparableConv1d",
    "DepthwiseSeparableConv2d",
    "DepthwiseSeparableConv3d",
    "DiCE",
    "DilatedConv1d",
    "DilatedConv2d",
    "DilatedConv3d",
    "DimConv",
    "DimFuse",
    "GroupedChannelwiseConv1d",
    "GroupedChannelwiseConv2d",
    "GroupedChannelwiseConv3d",
    "GroupedShuffleConv1d",
    "GroupedShuffleConv2d",
    "GroupedShuffleConv3d",
    "RollingPointwise1d",
    "RollingPointwise2d",
    "RollingPointwise3d",
    "ShiftedGroupedPointwise1d",
    "ShiftedGroupedPointwise2d",
    "ShiftedGroupedPointwise3d",
    "SqueezeExcitation",
    "StructuredConv",
    "TensorTrainConv1d",
    "TensorTrainConv2d",
    "TensorTrainConv3d",
    "TuckerConv1d",
    "TuckerConv2d",
    "TuckerConv3d",
    "UnsharedChannelwiseClassifier",
    "UnsharedECA",
    "adaptive_kernel_size",
    "address_shift",
    "channel_shift",
    "channel_shuffle",
    "channelwise_conv",
    "shortcut_shift",
    "transduce",
]
