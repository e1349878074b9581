"""Which calls of a graph are linear, and what they compute."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from leanconv.ops.affine import Affine
from leanconv.ops.axial import every
from leanconv.ops.hooks import has_hooks
from leanconv.ops.structured import is_plain

_NORMS: dict[type[nn.Module], int] = {nn.BatchNorm2d: 2, nn.BatchNorm3d: 3}
_POOLS: dict[type[nn.Module], int] = {nn.AvgPool1d: 1, nn.AvgPool2d: 2, nn.AvgPool3d: 3}
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_POINTWISE = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Tanh, nn.LeakyReLU, nn.Linear)


class Linear(NamedTuple):
    """A call in the graph, what it reads, and what it computes."""

    node: fx.Node
    source: fx.Node
    map: Affine


class Reader:
    """Reads the layers of one graph.

    Args:
        network: The graph.

    Attributes:
        paths: Names of the layers that have weights of their own to fold into.
    """

    def __init__(self, network: fx.GraphModule) -> None:
        self.network = network
        self.paths = {
            name
            for name, module in network.named_modules(remove_duplicate=False)
            if is_plain(module) or isinstance(module, (nn.Linear, *_TRANSPOSED))
        }

    def chain(self, first: fx.Node, second: fx.Node) -> tuple[Linear, Linear] | None:
        """Return two calls, one reading the other's result, where both are linear."""
        a, b = self._own(first), self._own(second)
        if a is None and b is not None:
            a = self._like(first, b, b.layout.in_channels)
        if b is None and a is not None:
            b = self._like(second, a, a.layout.out_channels)
        if a is None or b is None or (a.layout.dims == 0 < len(b.layout.kernel)):
            return None
        source = first.args[0]
        assert isinstance(source, fx.Node)
        return Linear(first, source, a), Linear(second, first, b)

    def branches(self, a: fx.Node, b: fx.Node) -> tuple[list[Linear], fx.Node] | None:
        """Return what is added: two linear branches of one source, or one and the source itself; and the source."""
        own = [(node, self._own(node)) for node in (a, b)]
        for (node, found), (other, theirs) in (own, own[::-1]):
            if found is None:
                continue
            source = node.args[0]
            assert isinstance(source, fx.Node)
            if other is source:
                return [Linear(node, source, found)], source
            theirs = theirs or self._like(other, found, found.layout.in_channels)
            if theirs is not None and other.args[0] is source:
                return [Linear(node, source, found), Linear(other, source, theirs)], source
        return None

    def is_pool(self, node: fx.Node) -> bool:
        """Whether a call is an average pooling."""
        return type(self._module(node)) in _POOLS

    def is_norm(self, node: fx.Node) -> bool:
        """Whether a call is a batch norm."""
        return isinstance(self._module(node), nn.modules.batchnorm._BatchNorm)

    def needs_size(self, node: fx.Node) -> bool:
        """Whether a call is linear only on the size of inputs it was traced with."""
        return getattr(self._module(node), "ceil_mode", False) is True

    def transposed(self, node: fx.Node) -> Any:
        """Return the transposed convolution that a call is, or None."""
        module = self._module(node)
        return module if type(module) in _TRANSPOSED else None

    def norm(self, node: fx.Node, dims: int) -> nn.Module | None:
        """Return the batch norm that a call is, if it acts on so many spatial axes, or None."""
        module: Any = self._module(node)
        if not isinstance(module, nn.modules.batchnorm._BatchNorm) or module.running_var is None:
            return None
        kinds = (nn.BatchNorm1d, *_NORMS, nn.SyncBatchNorm)
        return module if type(module) in kinds and _NORMS.get(type(module), dims) == dims else None

    def _module(self, node: fx.Node) -> nn.Module | None:
        """Return the module that a call with one argument calls, unless folding made it or it has hooks."""
        if node.op != "call_module" or "layers" in node.meta or len(node.args) != 1 or node.kwargs:
            return None
        module = self.network.get_submodule(str(node.target))
        return None if has_hooks(module) else module

    def _own(self, node: fx.Node) -> Affine | None:
        """Return what a call computes, where its module alone tells."""
        known: Affine | None = node.meta.get("affine")
        if known is not None:
            return known
        module = self._module(node)
        if module is None or not isinstance(node.args[0], fx.Node):
            return None
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and not weight.is_floating_point():
            return None
        found = None
        if is_plain(module):
            found = Affine.of_conv(module)
        elif type(module) is nn.Linear:
            found = Affine.of_linear(module)
        elif type(module) in _NORMS and self.norm(node, _NORMS[type(module)]) is not None:
            found = Affine.of_norm(module, _NORMS[type(module)])
        if found is not None:
            node.meta["read"] = found
        return found

    def _like(self, node: fx.Node, neighbour: Affine, channels: int) -> Affine | None:
        """Return what a call computes whose channels and axes only its neighbour tells."""
        layout = neighbour.layout
        one = Affine.identity(neighbour, channels)
        if node.op == "call_function" and node.target is every and len(node.args) == 3 and layout.dims:
            _, step, axis = node.args
            strides = tuple(step if 2 + index == axis else 1 for index in range(layout.dims))
            return Affine.identity(neighbour, channels, strides)  # type: ignore[arg-type]
        module: Any = self._module(node)
        if module is None or not isinstance(node.args[0], fx.Node):
            return None
        if type(module) in _POOLS and _POOLS[type(module)] == layout.dims:
            return self._pool(node, module, one)
        if self.norm(node, layout.dims) is not None and (layout.dims or self._is_flat(node.args[0])):
            return Affine.of_norm(module, layout.dims)
        return None

    def _pool(self, node: fx.Node, pool: Any, one: Affine) -> Affine | None:
        """Return an average pooling as a convolution, where every output is the mean of as many samples."""
        dims = one.layout.dims
        kernel, stride, padding = (
            (value,) * dims if isinstance(value, int) else tuple(value)
            for value in (pool.kernel_size, pool.stride, pool.padding)
        )
        if any(padding) and not pool.count_include_pad:
            return None
        if pool.ceil_mode:
            source: Any = node.args[0]
            size = source.meta.get("shape")
            if size is None or any(
                (s + 2 * p - k) % step for s, p, k, step in zip(size[2:], padding, kernel, stride, strict=True)
            ):
                return None
        return one.mean(kernel, stride, padding, getattr(pool, "divisor_override", None))

    def _is_flat(self, node: fx.Node) -> bool:
        """Whether a value is known to have no axis beside the batch and the channels."""
        shape = node.meta.get("shape")
        if shape is not None:
            return len(shape) == 2
        if node.op == "call_module":
            module = self.network.get_submodule(str(node.target)) if "layers" not in node.meta else nn.Linear(1, 1)
            if type(module) is nn.Flatten:
                return (module.start_dim, module.end_dim) == (1, -1)
            passes = isinstance(module, (*_POINTWISE, nn.modules.batchnorm._BatchNorm))
            return passes and isinstance(node.args[0], fx.Node) and self._is_flat(node.args[0])
        if node.target in (torch.flatten, "flatten"):
            return node.args[1:] in ((1,), (1, -1)) and not node.kwargs
        if node.target is F.relu or node.target is torch.relu:
            return isinstance(node.args[0], fx.Node) and self._is_flat(node.args[0])
        return False
