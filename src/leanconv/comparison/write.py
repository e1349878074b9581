"""The files of a comparison: report.json, pareto.png, engines.png and report.html."""

from pathlib import Path

from leanconv.comparison.engine_picture import save_engine_picture
from leanconv.comparison.html import save_html
from leanconv.comparison.ledger import write_json
from leanconv.comparison.picture import save_picture
from leanconv.comparison.record import Comparison


def write_report(comparison: Comparison, folder: str | Path, *, command: str | None = None) -> dict[str, Path]:
    """Write all files and return their paths by name; engines.png where engines were compared.

    The JSON comes first: it needs no extra, and everything else can be made from it.

    Args:
        comparison: What to report.
        folder: Where to.
        command: The command line that repeats the comparison, for the page.

    Raises:
        UserError: matplotlib or jinja2 is not installed.
    """
    folder = Path(folder)
    record = folder / "report.json"
    write_json(record, comparison.to_dict())
    picture = save_picture(comparison, folder / "pareto.png")
    page = save_html(comparison, folder / "report.html", command=command)
    files = {"record": record, "picture": picture, "page": page}
    if comparison.engines:
        files["engines"] = save_engine_picture(comparison, folder / "engines.png")
    return files
