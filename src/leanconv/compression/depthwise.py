"""Depth-wise decomposition: a kernel as depthwise filters followed by a pointwise mix.

He et al., 2019, arXiv 1910.09455; with one depthwise kernel for each input channel there, ``multiplier`` of them here.
Input channel ``i`` of a kernel ``W`` (q x c x K taps) is a matrix ``W_i`` (q x K); it is replaced by one of rank
``multiplier``, ``P_i D_i`` with the depthwise filters ``D_i`` (multiplier x K) and the mix ``P_i`` (q x multiplier).
What is fitted is

- the weights alone, ``min |W_i - P_i D_i|`` (variant A; mode DP of network decoupling, arXiv 1808.05517);
- each channel's response alone, ``min |X_i (W_i - P_i D_i)ᵀ|`` (variant B);
- the response of all channels together, one channel after the other on what the others leave (variant C; D where the
  target comes from another network), by a generalised singular value decomposition for each.  The paper goes through
  the channels once; further sweeps are further steps of block coordinate descent and cannot increase the error.

Then the mix may be refitted by least squares (E), and filters and mix in turns.  The paper does not print C as a
formula; the form here is the optimum of the problem each channel poses.

All tensors may have leading batch dimensions, one problem for each group of a grouped convolution.
"""

import torch
from torch import Tensor

from leanconv.compression.least_squares import leading_eigenvectors, solve_normal_equations, square_roots
from leanconv.linalg import truncated_svd

#: Steps of conjugate gradients in which filters are refitted; each costs two products with the Gram matrix.
FILTER_STEPS = 12


def depthwise_full_rank(channels_out: int, taps: int) -> int:
    """Return the multiplier from which on every kernel is expressed exactly."""
    return min(channels_out, taps)


def depthwise_from_weight(weight: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """Fit the weights alone: a truncated SVD ``W_i = U S Vᵀ`` for each input channel, ``D_i = Vᵀ``, ``P_i = U S``.

    Args:
        weight: ``(*, q, c, K)``.
        multiplier: Filters a channel.

    Returns:
        Filters ``(*, c, multiplier, K)`` and mix ``(*, q, c, multiplier)``.
    """
    u, s, vh = truncated_svd(weight.double().movedim(-3, -2), multiplier)
    return vh, (u * s.unsqueeze(-2)).movedim(-3, -2)


def depthwise_from_response(weight: Tensor, gram: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """Fit each channel's response: with ``X_iᵀX_i = R Rᵀ``, the truncated SVD of ``Rᵀ W_iᵀ``.

    Args:
        weight: ``(*, q, c, K)``.
        gram: Second moments of the patches, ``(*, c K, c K)``, channels before taps.
        multiplier: Filters a channel.

    Returns:
        Filters ``(*, c, multiplier, K)`` and mix ``(*, q, c, multiplier)``.
    """
    weight = weight.double()
    channels, taps = weight.shape[-2:]
    blocks = _blocks(gram.double(), channels, taps)
    root, inverse = square_roots(blocks)
    per_channel = weight.movedim(-3, -1)  # (*, c, K, q)
    u, s, vh = truncated_svd(root @ per_channel, multiplier)
    return (inverse @ u).mT, (s.unsqueeze(-1) * vh).movedim(-1, -3)


def depthwise_from_moments(
    gram: Tensor, cross: Tensor, start: Tensor, multiplier: int, *, sweeps: int = 1
) -> tuple[Tensor, Tensor]:
    """Fit the joint response, channel after channel (variants C and D).

    Channel ``i`` gets the target ``T_i = Y - sum_(j != i) X_j M_j``, where ``M_j`` is what channel ``j`` was replaced
    by, or still its kernel in ``start``.  With ``X_iᵀX_i = L Lᵀ`` and ``Z = L⁻¹ X_iᵀ T_i``, the kernel of rank r with
    the least ``|T_i - X_i M_i|`` is ``M_i = L⁻ᵀ U Uᵀ Z`` for the r leading left singular vectors ``U`` of ``Z``.

    Args:
        gram: ``XᵀX``, ``(*, c K, c K)``, channels before taps, positive definite.
        cross: ``XᵀY``, ``(*, c K, q)``.
        start: The kernel that channels not yet replaced have, ``(*, q, c, K)``.
        multiplier: Filters a channel.
        sweeps: Passes through the channels.

    Returns:
        Filters ``(*, c, multiplier, K)`` and mix ``(*, q, c, multiplier)``.
    """
    gram, cross, start = gram.double(), cross.double(), start.double()
    channels, taps = start.shape[-2:]
    kernel = start.flatten(-2).mT.clone()  # (*, c K, q)
    product = gram @ kernel
    factors = torch.linalg.cholesky(_blocks(gram, channels, taps))
    filters = gram.new_empty(*gram.shape[:-2], channels, multiplier, taps)
    mix = gram.new_empty(*gram.shape[:-2], channels, multiplier, cross.shape[-1])
    for _ in range(sweeps):
        for channel in range(channels):
            rows = slice(channel * taps, (channel + 1) * taps)
            factor, own = factors[..., channel, :, :], kernel[..., rows, :]
            left = cross[..., rows, :] - product[..., rows, :] + factor @ (factor.mT @ own)
            z = torch.linalg.solve_triangular(factor, left, upper=False)
            u = leading_eigenvectors(z @ z.mT, multiplier)
            filters[..., channel, :, :] = torch.linalg.solve_triangular(factor.mT, u, upper=True).mT
            mix[..., channel, :, :] = u.mT @ z
            replaced = filters[..., channel, :, :].mT @ mix[..., channel, :, :]
            product += gram[..., rows] @ (replaced - own)
            kernel[..., rows, :] = replaced
    return filters, mix.movedim(-1, -3)


def refit_mix(gram: Tensor, cross: Tensor, filters: Tensor) -> Tensor:
    """Return the mix of least error for given filters (E): least squares on the filtered patches ``Z = X D``.

    Args:
        gram: ``XᵀX``, ``(*, c K, c K)``.
        cross: ``XᵀY``, ``(*, c K, q)``.
        filters: ``(*, c, m, K)``.

    Returns:
        Mix ``(*, q, c, m)``.
    """
    channels, count, taps = filters.shape[-3:]
    columns = gram.double().unflatten(-1, (channels, taps)).unflatten(-3, (channels, taps))  # (*, c, K, c, K)
    half = torch.einsum("...iajb,...jnb->...iajn", columns, filters)
    filtered = torch.einsum("...ima,...iajn->...imjn", filters, half).flatten(-2).flatten(-3, -2)
    right = torch.einsum("...ima,...iao->...imo", filters, cross.double().unflatten(-2, (channels, taps)))
    mix = solve_normal_equations(filtered, right.flatten(-3, -2))
    by_output: Tensor = mix.unflatten(-2, (channels, count)).movedim(-1, -3)
    return by_output


def refit_filters(gram: Tensor, cross: Tensor, filters: Tensor, mix: Tensor, *, steps: int = FILTER_STEPS) -> Tensor:
    """Improve the filters for a given mix by conjugate gradients on their normal equations.

    The unknowns (c m K of them) all depend on each other, so a direct solution would cost (c m K)³; each of these
    steps costs two products with ``gram`` and never increases the error.  The preconditioner solves every channel
    for itself.

    Args:
        gram: ``XᵀX``, ``(*, c K, c K)``.
        cross: ``XᵀY``, ``(*, c K, q)``.
        filters: Where to start, ``(*, c, m, K)``.
        mix: ``(*, q, c, m)``.
        steps: Steps to take.

    Returns:
        Filters ``(*, c, m, K)``.
    """
    gram, cross = gram.double(), cross.double()
    channels, _, taps = filters.shape[-3:]
    by_channel = mix.movedim(-3, -1)  # (*, c, m, q)

    def gradient(kernel_side: Tensor) -> Tensor:
        """Map a (c K, q) moment to the filters."""
        return torch.einsum("...iao,...imo->...ima", kernel_side.unflatten(-2, (channels, taps)), by_channel)

    blocks = _blocks(gram, channels, taps)
    mixed = by_channel @ by_channel.mT  # (*, c, m, m)
    inner = torch.linalg.pinv(mixed, hermitian=True, rtol=1e-10)
    outer = torch.linalg.pinv(blocks, hermitian=True, rtol=1e-10)
    residual = gradient(cross - gram @ compose_depthwise(filters, mix))
    direction = torch.zeros_like(filters)
    before = None
    for _ in range(steps):
        preconditioned = inner @ residual @ outer
        now = (residual * preconditioned).sum((-3, -2, -1), keepdim=True)
        direction = preconditioned if before is None else preconditioned + _ratio(now, before) * direction
        image = gradient(gram @ compose_depthwise(direction, mix))
        step = _ratio(now, (direction * image).sum((-3, -2, -1), keepdim=True))
        filters = filters + step * direction
        residual = residual - step * image
        before = now
    return filters


def compose_depthwise(filters: Tensor, mix: Tensor) -> Tensor:
    """Return the kernel ``(*, c K, q)`` that filters ``(*, c, m, K)`` and mix ``(*, q, c, m)`` amount to."""
    return torch.einsum("...ima,...oim->...iao", filters, mix).flatten(-3, -2)


def _blocks(gram: Tensor, channels: int, taps: int) -> Tensor:
    """Return the ``(*, c, K, K)`` diagonal blocks of ``(*, c K, c K)``."""
    columns = gram.unflatten(-1, (channels, taps)).unflatten(-3, (channels, taps))
    blocks: Tensor = columns.diagonal(dim1=-4, dim2=-2).movedim(-1, -3)
    return blocks


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator > 0, numerator / denominator, 0)
