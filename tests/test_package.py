"""Importing the package costs next to nothing and pulls in nothing it should not."""

import json
import subprocess
import sys

import leanconv
from leanconv.errors import nearest

FORBIDDEN = ("torchvision", "timm", "accelerate", "datasets", "pandas", "matplotlib", "sklearn", "omegaconf", "pyvips")
EVERYTHING = (
    "import json, sys, torch; before = set(sys.modules);"
    "import leanconv, leanconv.ops, leanconv.models, leanconv.measurement, leanconv.data, leanconv.training,"
    "leanconv.compression, leanconv.deployment, leanconv.receptive, leanconv.upscaling, leanconv.comparison,"
    "leanconv.cli;"
    "print(json.dumps(sorted(set(sys.modules) - before)))"
)


def test_no_house_imports_a_heavy_library() -> None:
    out = subprocess.run([sys.executable, "-c", EVERYTHING], capture_output=True, text=True, check=True).stdout
    added = {name.partition(".")[0] for name in json.loads(out)}
    assert not added & set(FORBIDDEN)
    assert "leanconv" in added


def test_import_loads_no_house() -> None:
    """What takes time is what is imported: beside torch, the package itself is one small file."""
    code = "import sys, torch, leanconv; print([m for m in sys.modules if m.startswith('leanconv.')])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_every_public_verb_resolves() -> None:
    for name in leanconv.__all__:
        assert getattr(leanconv, name) is not None
        assert name in dir(leanconv)


def test_near_names_are_suggested() -> None:
    assert nearest("rn26", ["ran26", "resnet20_cifar"]) == "did you mean 'ran26'?"
    assert nearest("zzz", ["ran26"]) == "known names are ran26"
