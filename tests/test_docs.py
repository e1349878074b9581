"""The documentation keeps up with the code."""

import re
from pathlib import Path

import pytest

from leanconv.models import MODELS

ROOT = Path(__file__).parents[1]


def test_every_network_has_a_row_with_its_source() -> None:
    page = (ROOT / "docs/models.md").read_text()
    rows = set(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE))
    assert rows == set(MODELS), "run python docs/generate_models.py"
    for name in MODELS:
        assert f"## {MODELS[name].source.paper}\n" in page, name


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/models.md"])
def test_links_and_pictures_exist(page: str) -> None:
    path = ROOT / page
    targets = re.findall(r"\]\(([^)#]+)\)", path.read_text())
    missing = [t for t in targets if not t.startswith("http") and not (path.parent / t).exists()]
    assert missing == []
