"""A comparison's folder: finished runs are found again, other settings are refused."""

import pytest

from leanconv.comparison.ledger import Ledger
from leanconv.comparison.record import Run
from leanconv.errors import UserError

SETTINGS = {"data": {"name": "digits"}, "recipe": {"epochs": 2, "lr": 0.1}, "width": 16}


def test_recorded_run_is_found_by_a_new_ledger(tmp_path):
    run = Run("ran26", 1, accuracy=0.5, best_accuracy=0.6, loss=1.0, epochs=2, seconds=3.0)
    Ledger(tmp_path, SETTINGS).record(run)
    again = Ledger(tmp_path, SETTINGS)
    assert again.finished("ran26", 1) == run
    assert again.finished("ran26", 0) is None


def test_other_settings_are_refused_by_name(tmp_path):
    Ledger(tmp_path, SETTINGS)
    other = {**SETTINGS, "width": 8, "recipe": {"epochs": 3, "lr": 0.1}}
    with pytest.raises(UserError, match=r"recipe\.epochs was 2, now 3; width was 16, now 8"):
        Ledger(tmp_path, other)


def test_tuples_and_lists_are_the_same_setting(tmp_path):
    Ledger(tmp_path, {"sizes": (1, 2)})
    Ledger(tmp_path, {"sizes": [1, 2]})


def test_a_file_is_no_output_folder(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(UserError, match="is a file"):
        Ledger(path, SETTINGS)


def test_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/comparison/settings\.json' cannot be written to: Not a directory"):
        Ledger(tmp_path / "file" / "comparison", SETTINGS)


def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path):
    ledger = Ledger(tmp_path, SETTINGS)
    run = Run("ran26", 0, accuracy=0.5, best_accuracy=0.6, loss=1.0, epochs=2, seconds=3.0)
    ledger.record(run)
    (ledger.run_folder("ran26", 0) / "run.json.tmp").mkdir()
    with pytest.raises(UserError, match=r"run\.json' cannot be written to: Is a directory"):
        ledger.record(run)
    assert ledger.finished("ran26", 0) == run


def test_damaged_run_file_is_named(tmp_path):
    ledger = Ledger(tmp_path, SETTINGS)
    folder = ledger.run_folder("ran26", 0)
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json' is damaged"):
        ledger.finished("ran26", 0)
