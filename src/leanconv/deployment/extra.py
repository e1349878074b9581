"""The optional packages that exports need."""

from importlib.util import find_spec

from leanconv.errors import UserError


def require_deploy_extra(*packages: str) -> None:
    """Make sure that the packages behind a target are installed, before anything is computed.

    Args:
        packages: Names under which they are imported.

    Raises:
        UserError: One of them is not installed.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UserError(
            f'Exporting needs the "deploy" extra, {" and ".join(missing)} is not installed: '
            'pip install "leanconv[deploy]"'
        )
