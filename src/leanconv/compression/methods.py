"""What may replace a convolution: the methods, each a small configuration, and what they share."""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from leanconv.compression.problem import Problem
from leanconv.errors import UserError, nearest
from leanconv.ops.structured import Conv, geometry_of
from leanconv.registry import Registry

Ranks: TypeAlias = int | float | tuple[int | float, ...] | None
"""A rank as configured: a number, a fraction of the full rank, one of them for each rank, or the planner's choice."""

#: Every method by its class name.
METHODS: Registry[type["Method"]] = Registry("method")


@dataclass(frozen=True)
class Fit:
    """A layer, fitted.

    Attributes:
        module: What replaces the convolution, in float64.
        kernel: The kernel it amounts to, ``(g, p, q)``, not in the metric.
    """

    module: nn.Module
    kernel: Tensor


@dataclass(frozen=True)
class Method(ABC):
    """A way to make a convolution smaller; the first field of a method is its rank.

    Attributes:
        pointwise: Whether convolutions with a single tap can be replaced too.

    Raises:
        UserError: The rank is neither positive integers nor fractions of the full rank.
    """

    pointwise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_rank(self.rank_name, self.wanted)

    @property
    def wanted(self) -> Ranks:
        """The configured rank, None where the planner chooses."""
        value: Ranks = getattr(self, self.rank_name)
        return value

    @abstractmethod
    def full_rank(self, conv: Conv) -> tuple[int, ...]:
        """Return the ranks, for each group, from which on every kernel is expressed exactly."""

    @abstractmethod
    def build(self, conv: Conv, rank: tuple[int, ...], *, bias: bool) -> nn.Module:
        """Return the replacement with fresh weights, on the device and in the type of ``conv``."""

    @abstractmethod
    def fit(self, conv: Conv, problem: Problem, rank: tuple[int, ...]) -> Fit:
        """Return the fitted replacement in float64; its bias is set where the problem knows one."""

    def refusal(self, conv: Conv) -> str | None:
        """Return why this method cannot replace ``conv``, or None if it can."""
        if math.prod(conv.kernel_size) == 1 and not self.pointwise:
            return "it has a single tap"
        return None

    def draft(self, conv: Conv) -> "Method":
        """Return what a planner fits to tell the errors of ranks apart: the method itself, or a quicker form of it."""
        return self

    def with_rank(self, rank: tuple[int, ...]) -> "Method":
        """Return the same method with other ranks."""
        value: Any = rank if len(rank) > 1 else rank[0]
        return dataclasses.replace(self, **{dataclasses.fields(self)[0].name: value})

    def rank_for(self, conv: Conv) -> tuple[int, ...]:
        """Return the configured rank for a convolution: fractions multiplied out, clamped to the full rank.

        Raises:
            UserError: There is none, or it does not fit the method.
        """
        full, wanted = self.full_rank(conv), self.wanted
        if wanted is None:
            raise UserError(
                f"`{self.rank_name}` of {type(self).__name__} is not given, which leaves it to the planner of "
                "`compress`; `convert` needs an integer or a fraction of the full rank."
            )
        given = wanted if isinstance(wanted, tuple) else (wanted,) * len(full)
        if len(given) != len(full):
            raise UserError(
                f"`{self.rank_name}` of {type(self).__name__} must be one number or {len(full)} of them, got {wanted}."
            )
        return tuple(
            min(most, max(1, round(most * value) if isinstance(value, float) else value))
            for value, most in zip(given, full, strict=True)
        )

    def candidates(self, conv: Conv) -> Iterator[tuple[int, ...]]:
        """Yield the ranks below the full one that a planner should consider, multiples that hardware likes."""
        full = self.full_rank(conv)
        steps = [rank_step(most) for most in full]
        seen = set()
        for count in range(1, max(-(-most // step) for most, step in zip(full, steps, strict=True))):
            share = count / max(-(-most // step) for most, step in zip(full, steps, strict=True))
            rank = tuple(
                min(most, max(step, round(share * most / step) * step)) for most, step in zip(full, steps, strict=True)
            )
            if rank != full and rank not in seen:
                seen.add(rank)
                yield rank

    @property
    def rank_name(self) -> str:
        """Name of the argument that holds the rank."""
        return dataclasses.fields(self)[0].name

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration, JSON-able, with the method's name."""
        return {"method": type(self).__name__, **dataclasses.asdict(self)}


def rank_step(full: int) -> int:
    """Return the multiple that ranks should have: about a sixteenth of the full one, a power of two up to 16."""
    return min(16, 1 << max(0, round(math.log2(max(full, 1) / 16))))


def check_rank(name: str, value: Ranks) -> None:
    """Check a configured rank.

    Raises:
        UserError: It is neither a positive integer, nor a fraction in (0, 1], nor a tuple of them, nor None.
    """
    for number in value if isinstance(value, tuple) else (value,):
        integer = isinstance(number, int) and not isinstance(number, bool) and number >= 1
        fraction = isinstance(number, float) and 0 < number <= 1
        if number is not None and not integer and not fraction:
            raise UserError(
                f"`{name}` must be a positive integer or a fraction of the full rank in (0, 1], got {value!r}."
            )


def method_from_dict(record: dict[str, Any]) -> Method:
    """Return the method that :meth:`Method.to_dict` described.

    Raises:
        UserError: The method or one of its arguments is unknown.
    """
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
    cls = METHODS[str(values.pop("method"))]
    known = [field.name for field in dataclasses.fields(cls)]
    for key in values:
        if key not in known:
            raise UserError(f"{cls.__name__} has no argument `{key}`: {nearest(key, known)}")
    return cls(**values)


def operator_like(classes: tuple[type[Any], ...], conv: Conv, *, bias: bool, **options: Any) -> Any:
    """Return an operator of the dimension, geometry, device and type of ``conv``, with fresh weights."""
    return classes[len(conv.kernel_size) - 1](
        conv.in_channels,
        conv.out_channels,
        **vars(geometry_of(conv)),
        groups=conv.groups,
        bias=bias,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
        **options,
    )


def shape_of(conv: Conv) -> tuple[int, int, int]:
    """Return output channels, input channels (each of one group) and taps."""
    return conv.out_channels // conv.groups, conv.in_channels // conv.groups, math.prod(conv.kernel_size)


@torch.no_grad()
def set_bias(last: Conv, conv: Conv, problem: Problem, kernel: Tensor) -> None:
    """Give the last convolution of a replacement the bias that keeps the mean output, or that of the original."""
    if last.bias is None:
        return
    bias = problem.bias(kernel)
    if bias is not None:
        last.bias.copy_(bias)
    elif conv.bias is not None:
        last.bias.copy_(conv.bias)


def needs_bias(conv: Conv, problem: Problem) -> bool:
    """Whether the replacement adds a bias: the original did, or there is a mean error to make good."""
    return conv.bias is not None or problem.mean_in is not None
