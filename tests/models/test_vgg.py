"""VGG: published sizes and torchvision's outputs."""

import pytest
import torch
from counting import counts

import oracles
from leanconv.errors import UserError
from leanconv.models import create_model


@pytest.mark.parametrize(
    ("name", "options", "params"),
    [
        # torchvision's own counts
        ("vgg16", {}, 138_357_544),
        ("vgg19", {}, 143_667_240),
        ("vgg16", {"batch_norm": True}, 138_365_992),
        # 14.73 M, as printed in papers on CIFAR-10
        ("vgg16", {"stem": "cifar", "num_classes": 10}, 14_728_266),
    ],
)
def test_sizes_are_the_published_ones(name: str, options: dict, params: int) -> None:
    size = [1, 3, 32, 32] if options.get("stem") == "cifar" else [1, 3, 224, 224]
    assert counts(name, size, **options)[0] == params


@pytest.mark.parametrize("batch_norm", [False, True])
def test_torchvision_gives_the_same_outputs(batch_norm: bool) -> None:
    torchvision = oracles.torchvision()
    theirs = getattr(torchvision.models, "vgg16_bn" if batch_norm else "vgg16")(num_classes=5).eval()
    ours = create_model("vgg16", num_classes=5, batch_norm=batch_norm).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-5)


def test_mistakes_are_answered_with_what_would_work() -> None:
    with pytest.raises(UserError, match="2, 2, 3, 3, 3"):
        create_model("vgg16", depths=(1, 2, 3))
    with pytest.raises(UserError, match="stem"):
        create_model("vgg16", stem="mnist")
