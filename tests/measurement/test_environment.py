"""The description of the machine."""

import json
import os
import platform
from datetime import UTC, datetime, timedelta

import torch

import leanconv
from leanconv.measurement import environment


def test_says_where_and_when() -> None:
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert (found["torch"], found["python"]) == (torch.__version__, platform.python_version())
    assert found["leanconv"] == leanconv.__version__
    assert (found["cores"], found["threads"]) == (os.cpu_count(), torch.get_num_threads())
    assert found["device"] == found["cpu"] != ""
    age = datetime.now(UTC) - datetime.fromisoformat(found["date"])
    assert timedelta(0) <= age + timedelta(seconds=1) < timedelta(minutes=1)
