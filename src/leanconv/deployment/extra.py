"""What runtimes need beside PyTorch."""

import shutil
from importlib.util import find_spec

from leanconv.errors import UserError

_COMPILERS = ("c++", "g++", "clang++", "cl")


def require_deploy_extra(*packages: str, extra: str = "deploy") -> None:
    """Make sure that the packages behind a target are installed, before anything is computed.

    Args:
        packages: Names under which they are imported.
        extra: Of this package, that brings them.

    Raises:
        UserError: One of them is not installed.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UserError(
            f'Other runtimes need the "{extra}" extra, {" and ".join(missing)} is not installed: '
            f'pip install "leanconv[{extra}]"'
        )


def require_compiler(what: str) -> None:
    """Make sure that there is a C++ compiler.

    Args:
        what: What needs it, as the beginning of a sentence.

    Raises:
        UserError: There is none.
    """
    if not any(map(shutil.which, _COMPILERS)):
        raise UserError(f"{what} needs a C++ compiler, and there is none: install g++ or clang++.")
