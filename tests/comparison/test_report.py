"""Picture, page, table and sentences of a comparison made by hand."""

import json
import re

import pytest
from matplotlib.text import Text
from PIL import Image
from records import ROWS, comparison, with_engines
from rich.console import Console

from leanconv.comparison import Comparison, engine_table, save_html, save_picture, table, write_report
from leanconv.comparison.engine_picture import draw_engines
from leanconv.comparison.html import render_html
from leanconv.comparison.labels import _overlap
from leanconv.comparison.picture import DARK, LIGHT, PANELS, draw, svg
from leanconv.comparison.summary import sentences
from leanconv.errors import UserError


def test_report_holds_three_files_and_no_remains(tmp_path):
    record = comparison()
    files = write_report(record, tmp_path / "new", command="leanconv compare ran26")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["pareto.png", "report.html", "report.json"]
    assert Comparison.load(files["record"]) == record


def test_picture_shows_something_in_both_panels(tmp_path):
    path = save_picture(comparison(), tmp_path / "pareto.png")
    picture = Image.open(path).convert("RGB")
    width, height = picture.size
    assert width > 1000
    assert height > 500
    for half in (picture.crop((0, 0, width // 2, height)), picture.crop((width // 2, 0, width, height))):
        colors = {color for count, color in half.getcolors(1 << 24) if count > 40}
        # Every model's own colour is there: blue, vermilion, green and purple of Okabe and Ito.
        assert {(0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167)} <= colors


def test_picture_of_unknown_format_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"use \.png, \.svg or \.pdf"):
        save_picture(comparison(), tmp_path / "pareto.bmp3")


@pytest.mark.parametrize("panel", PANELS)
def test_labels_are_inside_and_do_not_cover_each_other(panel):
    spots = ((0, 0), (1, 1), (1, 2), (2, 2), (3, 0), (3, 1), (20, 9), (21, 9))
    crowd = [
        (f"model{x}_{y}_of_a_crowd", (0.9 + 0.002 * y, 0.9002 + 0.002 * y), 10**6, 10**8 + x * 10**6, 5 + 0.1 * x)
        for x, y in spots
    ]
    figure = draw(comparison(tuple(crowd), "model0_0_of_a_crowd"), [panel])
    figure.draw_without_rendering()
    axes = figure.axes[0]
    # The text alone: an annotation's own extent includes its line.
    boxes = [Text.get_window_extent(label) for label in axes.texts]
    assert len(boxes) == 8
    frame = axes.get_window_extent().padded(1)
    for index, box in enumerate(boxes):
        assert _overlap(box, frame) == pytest.approx(box.width * box.height), "inside the axes"
        assert all(_overlap(box, other) == 0 for other in boxes[:index])


def test_axis_is_logarithmic_where_costs_differ_much():
    far = (("small", (0.9,), 1, 10**6, 1.0), ("large", (0.95,), 1, 10**9, 1.1))
    latency, macs = draw(comparison(far, "large"), PANELS).axes
    assert (latency.get_xscale(), macs.get_xscale()) == ("linear", "log")


def test_one_model_and_one_seed_can_be_drawn(tmp_path):
    record = comparison(ROWS[:1], "ran26")
    assert save_picture(record, tmp_path / "one.svg").stat().st_size > 5000
    assert "one seed" in draw(comparison((("a", (0.5,), 1, 1, 1.0),), "a"), PANELS).axes[0].get_ylabel()


def test_svg_is_the_same_every_time_and_follows_the_theme():
    record = comparison()
    assert svg(record, "macs", LIGHT) == svg(record, "macs", LIGHT)
    assert DARK.ground in svg(record, "macs", DARK)


def test_page_refers_to_nothing_outside_itself(tmp_path):
    page = save_html(comparison(), tmp_path / "report.html", command="leanconv compare <models>").read_text()
    assert "http" not in page
    assert not re.search(r'(src|href|srcset)="(?!data:)', page)
    assert "<script" not in page
    assert "@import" not in page
    assert page.count("data:image/svg+xml;base64,") == 4


def test_page_shows_results_settings_and_command():
    page = render_html(comparison(), command="leanconv compare <models>")
    for text in ("93.50 ± 0.71 %", "0.26×", "9.20 M", "671 M", "4.00 ms", "A processor", "recipe.lr", "2 seeds"):
        assert text in page, text
    assert "leanconv compare &lt;models&gt;" in page
    assert "toy &lt;set&gt;" in page
    assert "toy <set>" not in page
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page


def test_table_fits_a_terminal_of_80_columns():
    rows = (*ROWS, ("squeezenext26_cifar", (0.9, 0.91), 13_618_690, 799_599_360, 5.0))
    console = Console(width=80)
    with console.capture() as captured:
        console.print(table(comparison(rows)))
    text = captured.get()
    assert "…" not in text
    for part in ("squeezenext26_cifar", "0.50×", "+1.50", "93.50 ± 0.71", "9.20 M", "671 M"):
        assert part in text


def test_sentences_say_what_is_known():
    said = {sentence.split()[0]: sentence for sentence in sentences(comparison())}
    assert set(said) == {"ran26", "axial26", "mobilenet26_cifar"}
    assert "0.22× the parameters" in said["ran26"]
    assert "1.50 percentage points more accurate" in said["ran26"]
    assert "no clear difference" in said["ran26"]
    single = comparison((("a", (0.5,), 1, 1, 1.0), ("b", (0.4,), 1, 2, 1.0)), "b")
    assert "uncertainty is unknown" in sentences(single)[0]


def test_record_is_json_without_nan(tmp_path):
    single = comparison((("a", (0.5,), 1, 1, 1.0), ("b", (0.4,), 1, 2, 1.0)), "b")
    files = write_report(single, tmp_path)
    record = json.loads(files["record"].read_text(), parse_constant=pytest.fail)
    assert record["models"][0]["accuracy_sd"] is None


def test_engines_are_in_every_part_of_the_report(tmp_path):
    record = with_engines(comparison())
    files = write_report(record, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "engines.png",
        "pareto.png",
        "report.html",
        "report.json",
    ]
    assert Comparison.load(files["record"]) == record
    ratios = {model["model"]: model["engine_ratios"] for model in json.loads(files["record"].read_text())["models"]}
    assert ratios["ran26"] == pytest.approx({"eager": 0.5, "onnxruntime": 0.5})
    page = files["page"].read_text()
    assert "Latency in engines" in page
    assert "1.33 ms" in page
    assert "Folded for inference it takes 0.50× in eager, 0.50× in onnxruntime." in page
    assert "Latency in engines" not in render_html(comparison())


def test_a_record_without_engines_can_still_be_read():
    old = comparison().to_dict()
    for model in old["models"]:
        del model["engines"], model["engine_ratios"]
    assert Comparison.from_dict(old) == comparison()


def test_engine_table_fits_a_terminal_of_80_columns():
    console = Console(width=80)
    record = with_engines(comparison(), ("eager", "compile", "onnxruntime", "openvino"))
    with console.capture() as captured:
        console.print(engine_table(record))
    text = captured.get()
    assert "…" not in text
    for part in ("openvino", "2.00 ms", "0.50×", "(baseline)"):
        assert part in text


def test_every_engine_has_a_bar_of_every_model_as_long_as_it_takes():
    (axes,) = draw_engines(with_engines(comparison())).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["eager", "onnxruntime"]
    widths = [[bar.get_width() for bar in bars] for bars in axes.containers if hasattr(bars, "patches")]
    assert widths[0] == pytest.approx([2.0, 4 / 3])
    assert widths[2] == pytest.approx([4.0, 8 / 3])
