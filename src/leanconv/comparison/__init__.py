"""Networks trained alike and measured side by side: record, table, picture and page."""

from leanconv.comparison.build import build_model, build_models
from leanconv.comparison.engine_picture import save_engine_picture
from leanconv.comparison.engines import engine_latencies, require_engines
from leanconv.comparison.extra import require_plot_extra
from leanconv.comparison.html import save_html
from leanconv.comparison.ledger import Ledger
from leanconv.comparison.picture import save_picture
from leanconv.comparison.record import Comparison, Entry, Run
from leanconv.comparison.run import compare, run_settings, train_runs
from leanconv.comparison.table import engine_table, table
from leanconv.comparison.write import write_report

__all__ = [
    "Comparison",
    "Entry",
    "Ledger",
    "Run",
    "build_model",
    "build_models",
    "compare",
    "engine_latencies",
    "engine_table",
    "require_engines",
    "require_plot_extra",
    "run_settings",
    "save_engine_picture",
    "save_html",
    "save_picture",
    "table",
    "train_runs",
    "write_report",
]
