"""Save networks, folded ones too, and load them again, without pickle."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from leanconv.compression import storage
from leanconv.deployment.fold_record import FoldRecord
from leanconv.deployment.folding import fold
from leanconv.errors import UserError
from leanconv.tensor_file import fill, state_difference


def save(model: nn.Module, path: str | Path) -> Path:
    """Write a network's weights, and how to build it, to a safetensors file.

    Args:
        model: A network, converted, folded, both or neither.  One of the zoo is built again by name when it is loaded;
            of any other the file holds what was done to it, and :func:`load` needs the network as it was before.
        path: The file; its folder must exist.

    Returns:
        The path.

    Raises:
        UserError: The file cannot be written, and what was there before is kept; or measured times decided what was
            folded, which cannot be done the same way again.
    """
    record: FoldRecord | None = getattr(model, "fold_record", None)
    if record is None:
        return storage.save(model, path)
    if record.measured:
        raise UserError(
            "`model` was folded by measured times, which differ from run to run: save it before it is folded, or fold "
            "it with target= instead of timing=."
        )
    folding = {"target": record.target, "input_size": record.input_size}
    return storage.save_described(model, path, {"model": getattr(model, "folded_from", None), "folding": folding})


def load(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """Read a network that :func:`save` wrote.

    Args:
        path: The file.
        model: For a network that is not of the zoo: a freshly built one as it was before it was converted or folded.
            It is not changed.

    Returns:
        The network in evaluation mode, in the type its weights have.

    Raises:
        UserError: The file is missing, damaged or holds weights only, the network is not of the zoo and ``model`` is
            not given, or ``model`` is another network.
    """
    path = Path(path)
    tensors, header = storage.read_described(path)
    folding: dict[str, Any] | None = header.get("folding")
    if folding is None:
        return storage.load(path, model)
    built = storage.rebuilt(tensors, header, path, model).eval()
    # What is folded depends on which batch norms shift.  In trained networks all of them do, in fresh ones none.
    folded = fold(_shifting(copy.deepcopy(built)), **folding)
    if state_difference(folded, tensors):
        folded = fold(built, **folding)
    fill(folded, tensors, path)
    return folded


@torch.no_grad()
def _shifting(model: nn.Module) -> nn.Module:
    """Give every batch norm a shift."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator))
    return model
