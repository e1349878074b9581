"""Effective fields against closed forms, tables, pictures and the command line."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from leanconv.cli import app
from leanconv.errors import UserError
from leanconv.models import create_model
from leanconv.receptive import effective_receptive_field, receptive_field
from leanconv.receptive.picture import save_picture
from leanconv.receptive.table import field_table, idle_layers, stage_table

runner = CliRunner()


def box_stack(depth: int, taps: int = 3) -> nn.Sequential:
    layers = [nn.Conv1d(1, 1, taps, padding=taps // 2, bias=False) for _ in range(depth)]
    for layer in layers:
        nn.init.constant_(layer.weight, 1 / taps)
    return nn.Sequential(*layers)


def test_averaging_layers_give_the_powers_of_a_box() -> None:
    found = effective_receptive_field(box_stack(3), (1, 1, 15), images=2)
    weights = torch.tensor([1.0, 3, 6, 7, 6, 3, 1], dtype=torch.float64) / 7
    assert found.layer == "2"
    torch.testing.assert_close(found.heat[4:11], weights, rtol=1e-6, atol=0)
    assert found.heat[:4].count_nonzero() == 0
    assert found.size == 7


def test_the_effective_field_lies_inside_the_theoretical_one() -> None:
    net = create_model("resnet20_cifar", base_width=4)
    found = effective_receptive_field(net, (1, 3, 32, 32), layer="stages.0", images=4)
    axis = next(layer.axes[0] for layer in receptive_field(net).layers if layer.name == "stages.0")
    inside = torch.zeros(32, dtype=torch.bool)
    assert axis.offset is not None
    assert axis.jump is not None
    first = int(axis.offset + 16 * axis.jump)
    inside[first : first + axis.size] = True
    assert found.heat[~inside].count_nonzero() == 0
    assert 1 < found.size < axis.size
    assert found.heat.max() == 1


def test_the_last_layer_with_an_extent_is_taken_and_others_refused() -> None:
    net = create_model("ran26", base_width=4)
    assert effective_receptive_field(net, images=1).layer.startswith("stages.3")
    with pytest.raises(UserError, match=r"'stages\.3'"):
        effective_receptive_field(net, layer="stage.3")
    with pytest.raises(UserError, match=r"'head\.fc' has no output with a spatial extent"):
        effective_receptive_field(net, layer="head.fc")


def test_tables_say_what_the_record_says() -> None:
    found = receptive_field(create_model("vgg16", stem="cifar", base_width=4))
    table = field_table(found, depth=2)
    assert list(table.columns[0].cells)[:2] == ["stages.0", "stages.1"]
    assert list(table.columns[3].cells)[:5] == ["5", "14", "40", "92", "196"]
    assert len(field_table(found).rows) == sum(layer.is_leaf for layer in found.layers)
    stages = stage_table(found)
    assert list(stages.columns[4].cells)[2:] == ["–", "stages.3.4", "stages.4.1"]
    assert [idle_layers(stage) for stage in found.stages] == [0, 0, 0, 1, 2]


@pytest.mark.parametrize(("size", "suffix"), [((1, 3, 32, 24), ".png"), ((1, 3, 32, 32), ".svg")])
def test_pictures_are_written_whole(size: tuple[int, ...], suffix: str, tmp_path: Path) -> None:
    net = create_model("ran26", base_width=4)
    path = save_picture(
        receptive_field(net, size), effective_receptive_field(net, size, images=1), tmp_path / f"a{suffix}"
    )
    assert path.stat().st_size > 10_000
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_one_dimension_is_drawn_without_a_map(tmp_path: Path) -> None:
    net = box_stack(4)
    found = receptive_field(net, (1, 1, 40))
    save_picture(found, effective_receptive_field(net, (1, 1, 40), images=1), tmp_path / "one.png")
    with pytest.raises(UserError, match="picture format"):
        save_picture(found, None, tmp_path / "one.txt")


def test_the_command_line_prints_tables_or_json(tmp_path: Path) -> None:
    shown = runner.invoke(app, ["rf", "resnet20_cifar", "--width", "4"])
    assert shown.exit_code == 0
    assert "stages.2" in shown.stdout
    assert "Saturated by" in shown.stdout
    picture = tmp_path / "rf.png"
    record = runner.invoke(
        app, ["rf", "vgg16", "--set", "stem=cifar", "--width", "4", "--json", "--plot", str(picture)]
    )
    assert record.exit_code == 0, record.stderr
    parsed = json.loads(record.stdout)
    assert parsed["model"]["kwargs"]["stem"] == "cifar"
    assert len(parsed["stages"]) == 5
    assert parsed["effective"]["size"] <= 32
    assert picture.exists()


def test_the_command_line_answers_mistakes_in_one_sentence() -> None:
    for arguments, words in (
        (["rf", "vgg61"], "vgg16"),
        (["rf", "ran26", "--width", "4", "--input-size", "1,3,4,4"], "smaller than the stride 8"),
        (["rf", "ran26", "--set", "stem"], "write it as in stem=cifar"),
        (["rf", "ran26", "--set", "stems=cifar"], "no option `stems`"),
        (["rf", "ran26", "--input-size", "32,32"], "give batch, channels"),
    ):
        result = runner.invoke(app, arguments)
        assert result.exit_code == 2, arguments
        assert words in " ".join(result.stderr.split())
        assert "Traceback" not in result.stderr
