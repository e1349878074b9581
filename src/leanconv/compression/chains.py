"""Fit operators that are chains of convolutions, the last of them by least squares.

Any decomposition of weights becomes one of responses in three steps: multiply the kernel's input channels by the root
of their covariance (and its outputs by the root of the metric), decompose, and undo it in the first and last link; then
the last link, in which the output is linear, is solved for exactly.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from leanconv.compression.least_squares import solve_normal_equations, square_roots
from leanconv.compression.methods import Fit, needs_bias, set_bias
from leanconv.compression.problem import Problem
from leanconv.ops.geometry import Geometry
from leanconv.ops.structured import Conv, StructuredConv, geometry_of, make_conv, probe


class _Links(StructuredConv):
    """Part of a chain, to be probed for the kernel it equals."""

    def __init__(self, links: Sequence[nn.Module], geometry: Geometry, channels: tuple[int, int], groups: int) -> None:
        super().__init__()
        self.links = nn.Sequential(*links)
        self.geometry, self.groups = geometry, groups
        self.in_channels, self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.links(x)
        return y


@torch.no_grad()
def fit_chain(conv: Conv, problem: Problem, decompose: Callable[[Conv], nn.Module]) -> Fit:
    """Fit a chain to a layer.

    Args:
        conv: The layer.
        problem: What fitting it means.
        decompose: Fits the chain to the weights of a convolution; its convolutions act along different axes, and the
            first and the last are plain ones that see all channels of their group.
    """
    kernel = problem.best
    channels = problem.weight.shape[2]
    target = kernel.unflatten(1, (channels, -1))  # (g, c, K, q)
    unwhiten = None
    if problem.gram is not None:
        per_tap = problem.gram.unflatten(1, (channels, -1)).unflatten(3, (channels, -1))
        root, unwhiten = square_roots(per_tap.diagonal(dim1=2, dim2=4).mean(-1))  # covariance of the channels
        target = torch.einsum("gcd,gdkq->gckq", root, target)
    dense = make_conv(
        geometry_of(conv),
        conv.in_channels,
        conv.out_channels,
        groups=conv.groups,
        bias=needs_bias(conv, problem),
        device=conv.weight.device,
        dtype=torch.float64,
    )
    dense.weight.copy_(target.permute(0, 3, 1, 2).reshape(dense.weight.shape))
    module = decompose(dense)
    links = leaves(module)
    last = links[-1]
    if unwhiten is not None:
        first = links[0].weight.unflatten(0, (conv.groups, -1))  # (g, r, c, …)
        links[0].weight.copy_(torch.einsum("grc...,gcd->grd...", first, unwhiten).flatten(0, 1))
    basis = _basis(conv, links)
    if problem.gram is None:
        mix = last.weight.unflatten(0, (conv.groups, -1)).flatten(2).mT
    else:
        mix = solve_normal_equations(basis.mT @ problem.gram @ basis, basis.mT @ problem.cross)
        mix = problem.out_of_metric(mix)
        last.weight.copy_(mix.mT.reshape(last.weight.shape))
    fitted = basis @ mix
    set_bias(last, conv, problem, fitted)
    return Fit(module, fitted)


def leaves(module: nn.Module) -> list[Conv]:
    """Return the convolutions of a chain in the order they are applied."""
    return [link for link in module.modules() if isinstance(link, Conv)]


def _basis(conv: Conv, links: Sequence[Conv]) -> Tensor:
    """Return what the inputs of the last link's taps are made of, ``(g, c K, r k)``, r channels and its k taps.

    Channel and tap ``(r, b)`` of the last link reads channel ``r`` of the links before, whose kernel covers the other
    axes, at the place that is ``b`` on the last link's own axes.
    """
    *front, last = links
    geometry = geometry_of(conv)
    ins = conv.in_channels // conv.groups
    end = geometry_of(last)
    own = [a for a in range(geometry.dims) if (end.kernel_size[a], end.stride[a], end.pads[a]) != (1, 1, (0, 0))]
    others = [axis for axis in range(geometry.dims) if axis not in own]
    if front:
        channels = (conv.in_channels, last.in_channels)
        part, _ = probe(_Links(front, geometry.on_axis(*others), channels, conv.groups))
        kernel = part.unflatten(0, (conv.groups, -1)).transpose(1, 2)  # (g, c, r, *taps)
    else:
        eye = torch.eye(ins, dtype=last.weight.dtype, device=last.weight.device)
        kernel = eye.expand(conv.groups, -1, -1).reshape(conv.groups, ins, ins, *[1] * geometry.dims)
    basis = kernel
    for axis in range(geometry.dims):
        # Every spatial axis becomes two: the tap of the whole kernel and the tap of the last link.
        place = 3 + 2 * axis
        size = geometry.kernel_size[axis] if axis in own else 1
        eye = torch.eye(size, dtype=basis.dtype, device=basis.device)
        basis = basis.unsqueeze(place + 1)
        if axis in own:
            shape = [1] * basis.dim()
            shape[place], shape[place + 1] = size, size
            basis = basis * eye.view(shape)
    taps = [3 + 2 * axis for axis in range(geometry.dims)]
    order = [0, 1, *taps, 2, *(place + 1 for place in taps)]
    matrix: Tensor = basis.permute(order).flatten(2 + geometry.dims).flatten(1, 1 + geometry.dims)
    return matrix
