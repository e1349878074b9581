"""The record: what it derives, and that JSON gives it back."""

import json

import pytest
from records import comparison, entry

from leanconv.comparison import Comparison
from leanconv.errors import UserError


def test_json_round_trip_gives_an_equal_record():
    record = comparison()
    text = json.dumps(record.to_dict(), allow_nan=False)
    assert Comparison.from_dict(json.loads(text)) == record


def test_ratios_and_differences_are_to_the_baseline():
    record = comparison()
    ran = record["ran26"]
    assert record.ratio(ran, "params") == 9_200_770 / 40_907_650
    assert record.ratio(ran, "latency_s") == pytest.approx(0.5)
    assert record.ratio(record["resnet26_cifar"], "macs") == 1
    assert record.difference(ran).mean == pytest.approx(0.015)
    assert record.to_dict()["models"][0]["ratios"]["macs"] == pytest.approx(0.2627, abs=1e-4)


def test_mean_and_spread_over_seeds():
    found = entry("ran26", (0.9, 0.94), 1, 1, 1.0)
    assert found.accuracy == pytest.approx(0.92)
    assert found.accuracy_sd == pytest.approx(0.0282843, abs=1e-6)
    assert entry("ran26", (0.9,), 1, 1, 1.0).accuracy_sd is None


def test_unknown_model_is_answered_with_near_names():
    with pytest.raises(UserError, match="did you mean 'ran26'"):
        comparison()["ran62"]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"format": 1}', '{"format": 99}'])
def test_other_files_are_refused_with_a_sentence(tmp_path, content):
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(UserError):
        Comparison.load(path)
