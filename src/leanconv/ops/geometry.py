"""Where a convolution looks: kernel, stride, padding and dilation in one canonical form."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from leanconv.errors import UserError

Size = int | tuple[int, ...]
Padding = Size | Literal["same", "valid"]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]

PADDING_MODES: tuple[PaddingMode, ...] = ("zeros", "reflect", "replicate", "circular")


def to_tuple(value: Size, dims: int, name: str, minimum: int = 1) -> tuple[int, ...]:
    """Return ``value`` as one integer an axis.

    Raises:
        UserError: The length is not ``dims`` or an entry is below ``minimum``.
    """
    sizes = tuple(value) if isinstance(value, Iterable) else (value,) * dims
    if len(sizes) != dims or any(not hasattr(size, "__index__") or size < minimum for size in sizes):
        raise UserError(f"`{name}` must be one integer or {dims} of them, each at least {minimum}, got {value!r}.")
    return sizes


def check_groups(groups: int, **channels: int) -> None:
    """Check that ``groups`` divides every channel count given by name.

    Raises:
        UserError: It does not; the message names a number that does.
    """
    for name, count in channels.items():
        if count < 1:
            raise UserError(f"`{name}` must be at least 1, got {count}.")
        if groups < 1 or count % groups:
            divisors = [d for d in range(1, count + 1) if count % d == 0]
            near = min(divisors, key=lambda divisor: abs(divisor - groups))
            raise UserError(f"`groups` must divide `{name}` = {count}, got {groups}; {near} would work.")


@dataclass(frozen=True)
class Geometry:
    """Spatial hyper-parameters of a convolution, one entry an axis.

    Attributes:
        kernel_size: Taps.
        stride: Step of the output in input samples.
        padding: Samples added on both sides, or ``"same"`` where an even extent needs one more sample
            behind than in front (stride 1 only, as in ``torch.nn``).
        dilation: Distance of neighbouring taps.
        padding_mode: What the added samples hold.
    """

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | Literal["same"]
    dilation: tuple[int, ...]
    padding_mode: PaddingMode = "zeros"

    @classmethod
    def of(
        cls,
        dims: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        padding_mode: PaddingMode = "zeros",
    ) -> "Geometry":
        """Normalise arguments given in the forms ``torch.nn.ConvNd`` takes.

        ``padding="same"`` keeps ``ceil(size / stride)`` samples; unlike ``torch.nn`` it may be combined
        with a stride when every extent ``dilation * (kernel_size - 1) + 1`` is odd.

        Raises:
            UserError: A value has the wrong length or is out of range.
        """
        kernel = to_tuple(kernel_size, dims, "kernel_size")
        strides = to_tuple(stride, dims, "stride")
        dilations = to_tuple(dilation, dims, "dilation")
        if padding_mode not in PADDING_MODES:
            raise UserError(f"`padding_mode` must be one of {', '.join(PADDING_MODES)}, got {padding_mode!r}.")
        reach = tuple(d * (k - 1) for k, d in zip(kernel, dilations, strict=True))
        pads: tuple[int, ...] | Literal["same"]
        if padding == "valid":
            pads = (0,) * dims
        elif padding == "same":
            if all(r % 2 == 0 for r in reach):
                pads = tuple(r // 2 for r in reach)
            elif all(s == 1 for s in strides):
                pads = "same"
            else:
                raise UserError(
                    f"`padding='same'` with `stride` {strides} needs an odd `kernel_size`, got {kernel}; "
                    f"{tuple(k + 1 - k % 2 for k in kernel)} would work."
                )
        elif isinstance(padding, str):  # type: ignore[unreachable]
            raise UserError(f"`padding` must be integers, 'same' or 'valid', got {padding!r}.")
        else:
            pads = to_tuple(padding, dims, "padding", minimum=0)
        return cls(kernel, strides, pads, dilations, padding_mode)

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel_size)

    @property
    def extent(self) -> tuple[int, ...]:
        """Samples from the first tap to the last, both included, an axis."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True))

    @property
    def pads(self) -> tuple[tuple[int, int], ...]:
        """Samples added in front and behind, an axis."""
        if self.padding == "same":
            return tuple(((e - 1) // 2, e - 1 - (e - 1) // 2) for e in self.extent)
        return tuple((p, p) for p in self.padding)

    @property
    def centred(self) -> bool:
        """Whether each output's middle tap is an input sample: odd kernels, padded by half their extent."""
        return all(
            k % 2 == 1 and pads == ((e - 1) // 2,) * 2
            for k, e, pads in zip(self.kernel_size, self.extent, self.pads, strict=True)
        )

    def on_axis(self, *axes: int) -> "Geometry":
        """Return the part that acts along one axis (or several), with a single tap along the others."""

        def only(values: tuple[int, ...], neutral: int) -> tuple[int, ...]:
            return tuple(v if i in axes else neutral for i, v in enumerate(values))

        padding = self.padding if self.padding == "same" else only(self.padding, 0)
        return Geometry(
            only(self.kernel_size, 1),
            only(self.stride, 1),
            padding,
            only(self.dilation, 1),
            self.padding_mode,
        )
