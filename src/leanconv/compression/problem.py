"""What fitting one layer means: its kernel, and the second moments of what it reads and should write."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from leanconv.compression.least_squares import solve_normal_equations, square_error, square_roots
from leanconv.ops.structured import Conv

#: Pull towards the trained kernel, as a fraction of the mean variance of the inputs.
RIDGE = 1e-4
#: Share of the mean that is added to the diagonal of an output metric, so that no direction counts for nothing.  One
#: half kept the scores of ResNet-20 on training images that it was not fitted on better than 0.02 and 0.1 did.
METRIC_DAMPING = 0.5


@dataclass(frozen=True)
class Problem:
    """Replace a kernel by a structured one so that the layer's outputs change least.

    Shapes have a group first: ``g`` groups of ``c`` input and ``q`` output channels, ``K`` taps, ``p = c K``.  Errors
    are measured in a metric of the outputs: ``metric_root`` multiplies them from the right, and is part of ``kernel``
    and ``cross`` already.

    Attributes:
        weight: The trained kernel, ``(g, q, c, K)``, in the metric.
        gram: Covariance of the inputs with the ridge, ``(g, p, p)``; None where no data is known, for white inputs.
        cross: Covariance of inputs and targets, ``(g, p, q)``, in the metric.
        left: Mean squared error that the trained kernel leaves, ``(g)``, in the metric.
        energy: Variance of the targets, ``(g)``, in the metric.
        mean_in: Mean input, ``(g, p)``.
        mean_out: Mean target, ``(g, q)``, not in the metric.
        metric_root: ``(g, q, q)``, None for none.
        metric_inverse: Its inverse.
        samples: Of which the moments are.
    """

    weight: Tensor
    gram: Tensor | None
    cross: Tensor
    left: Tensor
    energy: Tensor
    mean_in: Tensor | None
    mean_out: Tensor | None
    metric_root: Tensor | None
    metric_inverse: Tensor | None
    samples: int

    @cached_property
    def best(self) -> Tensor:
        """The unconstrained kernel of least error, ``(g, p, q)``, in the metric."""
        if self.gram is None:
            return self.cross
        return self.trained + solve_normal_equations(self.gram, self._unexplained)

    @property
    def trained(self) -> Tensor:
        """The trained kernel as a matrix, ``(g, p, q)``, in the metric."""
        return self.weight.flatten(-2).mT

    def out_of_metric(self, mix: Tensor) -> Tensor:
        """Turn outputs on the last axis of ``(g, *, q)`` back from the metric."""
        return mix if self.metric_inverse is None else mix @ self.metric_inverse

    def square_error(self, kernel: Tensor) -> float:
        """Return the mean squared error of a kernel ``(g, p, q)``, in the metric."""
        change = kernel - self.trained
        if self.gram is None:
            return float(change.square().sum())
        return float(square_error(self.gram, self._unexplained, self.left, change).sum().clamp_min(0))

    def relative(self, square_error: float) -> float:
        """Return the root of a mean squared error over the variance of the targets."""
        scale = float(self.energy.sum())
        return (square_error / scale) ** 0.5 if scale > 0 else 0.0

    @cached_property
    def _unexplained(self) -> Tensor:
        """Covariance of the inputs and what the trained kernel leaves of the targets."""
        return self.cross if self.gram is None else self.cross - self.gram @ self.trained

    def bias(self, kernel: Tensor) -> Tensor | None:
        """Return the bias that makes mean outputs right for a kernel that is not in the metric, ``(g q)``."""
        if self.mean_in is None or self.mean_out is None:
            return None
        bias: Tensor = (self.mean_out - (self.mean_in.unsqueeze(-2) @ kernel).squeeze(-2)).flatten()
        return bias


def grouped_kernel(conv: Conv) -> Tensor:
    """Return the weights of a convolution as ``(g, q, c, K)``, in float64."""
    weight: Tensor = conv.weight.detach().double().unflatten(0, (conv.groups, -1)).flatten(3)
    return weight


def problem_without_data(conv: Conv) -> Problem:
    """Return the problem of approximating the weights themselves."""
    weight = grouped_kernel(conv)
    energy = weight.square().sum((-3, -2, -1))
    return Problem(weight, None, weight.flatten(-2).mT, torch.zeros_like(energy), energy, None, None, None, None, 0)


class Moments:
    """Second moments of a layer, gathered batch by batch; their size does not depend on the number of samples.

    Args:
        conv: The layer.
    """

    def __init__(self, conv: Conv) -> None:
        weight = grouped_kernel(conv)
        groups, outs, ins, taps = weight.shape
        zeros = weight.new_zeros
        self.weight = weight
        self.samples = 0
        self.inputs, self.outputs, self.residuals = (
            zeros(groups, ins * taps),
            zeros(groups, outs),
            zeros(groups, outs),
        )
        self.gram = zeros(groups, ins * taps, ins * taps)
        self.cross = zeros(groups, ins * taps, outs)
        self.targets, self.left = zeros(groups, outs, outs), zeros(groups, outs, outs)

    def add(self, patches: Tensor, targets: Tensor, outputs: Tensor) -> None:
        """Add samples.

        Args:
            patches: What the layer reads, ``(S, C, K)``.
            targets: What it should write, ``(S, out_channels)``.
            outputs: What it writes as it is, ``(S, out_channels)``.
        """
        groups = len(self.weight)
        x = patches.unflatten(1, (groups, -1)).flatten(2).transpose(0, 1)
        y = targets.unflatten(1, (groups, -1)).transpose(0, 1)
        # Moments with what is left to explain, instead of the targets themselves, keep rounding out of the kernel: a
        # layer that needs no change gets none.
        r = (targets - outputs).unflatten(1, (groups, -1)).transpose(0, 1)
        x, y, r = x.float() if x.dtype in HALF else x, y.float() if y.dtype in HALF else y, r
        r = r.to(x.dtype)
        self.samples += len(patches)
        self.inputs += x.double().sum(1)
        self.outputs += y.double().sum(1)
        self.residuals += r.double().sum(1)
        self.gram += x.mT @ x
        self.cross += x.mT @ r
        self.targets += y.mT @ y
        self.left += r.mT @ r

    def problem(self, metric: Tensor | None = None, *, ridge: float = RIDGE) -> Problem:
        """Return the fitting problem.

        Args:
            metric: Second moments ``(g, q, q)`` of what output errors do to the network, None to weigh all alike.
            ridge: Pull towards the trained kernel, as a fraction of the mean variance of the inputs.
        """
        mean_in, mean_out, mean_left = (s / self.samples for s in (self.inputs, self.outputs, self.residuals))
        gram = _covariance(self.gram / self.samples, mean_in, mean_in)
        cross = _covariance(self.cross / self.samples, mean_in, mean_left)
        targets = _covariance(self.targets / self.samples, mean_out, mean_out)
        left = _covariance(self.left / self.samples, mean_left, mean_left)
        variance = gram.diagonal(dim1=-2, dim2=-1)
        pull = ridge * variance.mean(-1) + torch.finfo(torch.float32).tiny
        gram.diagonal(dim1=-2, dim2=-1).add_(pull.unsqueeze(-1))
        weight, root, inverse = self.weight, None, None
        if metric is not None:
            root, inverse = square_roots(damped(metric))
            weight = torch.einsum("gqck,gqr->grck", weight, root)
            cross, targets, left = cross @ root, root @ targets @ root, root @ left @ root
        return Problem(
            weight=weight,
            gram=gram,
            cross=cross + gram @ weight.flatten(-2).mT,
            left=_trace(left),
            energy=_trace(targets),
            mean_in=mean_in,
            mean_out=mean_out,
            metric_root=root,
            metric_inverse=inverse,
            samples=self.samples,
        )


HALF = (torch.float16, torch.bfloat16)


def damped(metric: Tensor) -> Tensor:
    """Return a metric ``(g, q, q)`` with its diagonal raised so that no direction counts for nothing."""
    mean = metric.diagonal(dim1=-2, dim2=-1).mean().clamp_min(torch.finfo(torch.float32).tiny)
    return metric + METRIC_DAMPING * mean * torch.eye(metric.shape[-1], dtype=metric.dtype, device=metric.device)


def _covariance(moment: Tensor, left: Tensor, right: Tensor) -> Tensor:
    return moment - left.unsqueeze(-1) * right.unsqueeze(-2)


def _trace(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
