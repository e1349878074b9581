"""The table of a report, as text."""

import io

import pytest
from rich.console import Console
from rich.table import Table
from torch import nn

from leanconv.errors import UserError
from leanconv.measurement import measure
from leanconv.measurement.table import grouped, report_table


def network() -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(3, 100, 3, padding=1), nn.ReLU())
    return nn.Sequential(stem, nn.Identity(), nn.ModuleDict({"a": nn.Sequential(nn.Conv2d(100, 100, 1))})["a"])


def text(table: Table) -> str:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def row(printed: str, name: str) -> list[str]:
    (line,) = [line for line in printed.splitlines() if line.split()[:1] == [name]]
    return line.split()


def test_layers_and_totals() -> None:
    report = measure(network(), (1, 3, 32, 32))
    printed = text(report_table(report))
    moved = 4 * (3 * 1024 + 2700 + 100 + 102400) / 2**20
    assert row(printed, "0.0") == ["0.0", "Conv2d", "1×100×32×32", "0.003", "2.765", f"{moved:.2f}"]
    assert row(printed, "Total") == ["Total", "0.013", "13.005", f"{report.bytes_moved / 2**20:.2f}"]
    assert "Sequential on 1×3×32×32 (float32, cpu)" in printed
    assert f"peak memory {report.peak_memory / 2**20:.2f} MiB" in printed
    assert "Identity" not in printed
    assert "Floor" not in printed
    assert "latency" not in printed


def test_depth_adds_up_inner_layers() -> None:
    report = measure(network(), (1, 3, 32, 32))
    printed = text(report_table(report, depth=1))
    assert row(printed, "0")[:5] == ["0", "Sequential", "1×100×32×32", "0.003", "2.765"]
    assert "0.0" not in [line.split()[0] for line in printed.splitlines() if line.split()]
    groups = list(grouped(report.layers, 1))
    for amount in ("params", "macs", "bytes_moved"):
        assert sum(getattr(layer, amount) for layer in groups) == getattr(report, amount)
    with pytest.raises(UserError, match="`depth` must be a positive integer, got 0"):
        report_table(report, depth=0)


def test_time_and_floor() -> None:
    report = measure(network(), (1, 3, 32, 32), latency=True, roofline=True, rounds=1)
    printed = text(report_table(report))
    assert report.latency is not None
    assert f"latency {1e3 * report.latency.median_s:.3f} ms" in printed
    assert "Floor (ms)" in printed
    assert f"floor {1e3 * (report.floor_s or 0):.3f} ms, {report.floor_share:.0%} of the latency" in printed
