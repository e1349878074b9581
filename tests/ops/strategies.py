"""Random constructor arguments for every registered operator."""

import inspect
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from leanconv.errors import UserError
from leanconv.ops import OPERATORS
from leanconv.ops.geometry import PADDING_MODES
from leanconv.ops.structured import StructuredConv

VARIED = {
    "stride": lambda dims: st.tuples(*[st.integers(1, 3)] * dims),
    "dilation": lambda dims: st.tuples(*[st.integers(1, 2)] * dims),
    "kernel_size": lambda dims: st.tuples(*[st.integers(1, 4)] * dims),
    "padding": lambda dims: st.one_of(st.sampled_from(["same", "valid"]), st.tuples(*[st.integers(0, 3)] * dims)),
    "padding_mode": lambda dims: st.sampled_from(PADDING_MODES),
    "groups": lambda dims: st.sampled_from([1, 2, 4]),
    "bias": lambda dims: st.booleans(),
}


@st.composite
def operators(draw: st.DrawFn, name: str) -> StructuredConv:
    """One of an operator's own examples with some of the usual convolution arguments varied."""
    cls = OPERATORS[name]
    kwargs: dict[str, Any] = dict(draw(st.sampled_from(cls.examples)))
    accepted = inspect.signature(cls).parameters
    varied = [key for key in VARIED if key in accepted]
    for key in draw(st.lists(st.sampled_from(varied), max_size=4, unique=True)) if varied else []:
        kwargs[key] = draw(VARIED[key](cls.dims))
    try:
        return cls(**kwargs).double()
    except UserError:
        assume(False)
        raise


@st.composite
def inputs(draw: st.DrawFn, operator: StructuredConv, least: int = 0) -> tuple[int, ...]:
    """Input shape that the operator's geometry accepts, odd sizes included."""
    geometry = operator.geometry
    sizes = [
        max(extent, max(pads) + 1, least) + draw(st.integers(0, 4))
        for extent, pads in zip(geometry.extent, geometry.pads, strict=True)
    ]
    return (2, operator.in_channels, *sizes)
