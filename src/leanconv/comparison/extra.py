"""The optional packages that pictures and pages need."""

from importlib.util import find_spec

from leanconv.errors import UserError


def require_plot_extra() -> None:
    """Make sure that the report can be written, before hours of training and not after.

    Raises:
        UserError: matplotlib or jinja2 is not installed.
    """
    if find_spec("matplotlib") is None or find_spec("jinja2") is None:
        raise UserError('Pictures and pages need the "plot" extra: pip install "leanconv[plot]"')
