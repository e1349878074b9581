"""Whether something else runs when a module is called than its forward pass."""

from torch import nn

#: Where a module keeps it.
HOOKS = (
    "_backward_pre_hooks",
    "_backward_hooks",
    "_forward_hooks",
    "_forward_pre_hooks",
)


def has_hooks(module: nn.Module) -> bool:
    """Whether something else than its forward pass runs when a module is called."""
    return any(getattr(module, hooks) for hooks in HOOKS)
