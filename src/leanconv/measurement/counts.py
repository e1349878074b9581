"""Parameters and multiply-accumulates."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.flop_counter import FlopCounterMode

from leanconv.errors import UserError
from leanconv.measurement.forward import observe
from leanconv.measurement.inputs import example_inputs


def count_params(model: nn.Module) -> int:
    """Return the number of learnable values: all elements of all parameters, shared tensors once.

    Affine parameters of normalisations are included, and so are parameters that are frozen at the moment;
    running statistics and other buffers are not.

    Raises:
        UserError: A lazy layer has not seen an input yet, so that its size is unknown.
    """
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise UserError(
                f"`model` has a lazy parameter {name!r} of unknown size: run the network once before it is measured."
            )
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(
    model: nn.Module,
    input_size: Sequence[int] | None = None,
    *,
    example: Tensor | Sequence[Tensor] | None = None,
) -> int:
    """Return the multiply-accumulates of one forward pass in evaluation mode.

    Half of what ``torch.utils.flop_counter`` counts: convolutions, matrix products, and attention, also where they
    are called as functions; additions of a bias, normalisations, activations and pooling are not counted.  Custom
    operators count if they registered a formula there.  This is what papers on small networks call FLOPs.

    Args:
        model: Any module; it is left as found.
        input_size: Shape of the input, batch first (see :func:`leanconv.measurement.measure`).
        example: Input tensors instead of a size.

    Raises:
        UserError: The input does not fit the network, or a lazy layer has not seen an input yet.
    """
    count_params(model)
    inputs = example_inputs(model, input_size, example)
    counter = observe(model, inputs, lambda *_: FlopCounterMode(display=False))
    return int(counter.get_total_flops()) // 2
