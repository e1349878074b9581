"""The same operators as other libraries write them, with the weights of ours."""

import warnings

import torch
from torch import Tensor, nn

from leanconv.ops.cp import CPConv
from leanconv.ops.factorized import FactorizedConv
from leanconv.ops.tensor_train import TensorTrainConv
from leanconv.ops.tucker import TuckerConv

INSTALL = "pip install tensorly && pip install --no-deps tensorly-torch==0.5.0"


@torch.no_grad()
def tensorly_torch_conv(operator: FactorizedConv) -> nn.Module:
    """Return tensorly-torch's form of a factorised convolution whose spatial modes are whole, factor for factor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tensorly-torch uses what tensorly deprecates
        import tltorch
    geometry, weights = operator.geometry, [conv.weight for conv in operator.convolutions()]
    factorization, rank, values = _factors(operator, weights)
    last = operator.convolutions()[-1]
    peer = tltorch.FactorizedConv(
        operator.in_channels,
        operator.out_channels,
        geometry.kernel_size,
        order=operator.dims,
        stride=geometry.stride[0],
        padding=[front for front, _ in geometry.pads],
        dilation=geometry.dilation[0],
        bias=last.bias is not None,
        factorization=factorization,
        rank=rank,
        implementation="factorized",
    )
    parameters = list(peer.weight.parameters())
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value.reshape(parameter.shape))
    if last.bias is not None:
        peer.bias.copy_(last.bias)
    return peer.eval()


def _factors(operator: FactorizedConv, weights: list[Tensor]) -> tuple[str, int | tuple[int, ...], list[Tensor]]:
    kernel = operator.geometry.kernel_size
    if isinstance(operator, CPConv):
        ins, *axes, outs = (weight.flatten(1) for weight in weights)
        return "cp", operator.rank, [torch.ones(operator.rank), outs, ins.T, *(axis.T for axis in axes)]
    if isinstance(operator, TuckerConv):
        ins, core, outs = weights
        rank = (core.shape[0], core.shape[1], *kernel)
        return "tucker", rank, [core, outs.flatten(1), ins.flatten(1).T, *(torch.eye(taps) for taps in kernel)]
    assert isinstance(operator, TensorTrainConv)
    return "tt", (1, *operator.rank, 1), [weight.flatten(2).permute(1, 2, 0) for weight in weights]
