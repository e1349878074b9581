"""Super-resolution is trained by the same loop and judged as the field judges it."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy_images import toy_data

from leanconv.data import PictureData, Pictures, load_pictures
from leanconv.errors import UserError
from leanconv.models import create_model
from leanconv.models.superres import Bicubic
from leanconv.training import Recipe, SuperResolve, enlarging_network, evaluate, load_recipe, train
from leanconv.training.superres import structural_similarity

TINY = {"width": 8, "recursions": 2, "scales": (2,)}
SETTINGS = {"loss": "charbonnier", "patch_size": 16, "patch_stride": 8, "patches": 64}


def shapes(count: int, seed: int) -> Pictures:
    """Bright and dark discs: what is learnt from some sharpens others."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(48), torch.arange(56), indexing="ij")
    planes = []
    for _ in range(count):
        plane = torch.full((48, 56), 90.0)
        for y, x, radius, level in torch.rand(9, 4, generator=generator).tolist():
            inside = (rows - 48 * y).square() + (columns - 56 * x).square() < (3 + 9 * radius) ** 2
            plane = torch.where(inside, 235 * level, plane)
        planes.append(plane.to(torch.uint8))
    return Pictures(tuple(f"discs {number}" for number in range(count)), tuple(planes))


@pytest.fixture(scope="module")
def discs() -> PictureData:
    return PictureData("discs", shapes(8, 1), shapes(2, 2))


def recipe(**changes: object) -> Recipe:
    values = {"epochs": 2, "batch_size": 8, "optimizer": "adamw", "lr": 2e-3, "warmup_epochs": 0, "weight_decay": 0.0}
    return Recipe(**{**values, "task": "superres", "superres": SETTINGS, "log_every": 4, **changes})


@pytest.mark.parametrize("name", ["ran_drrn_b1u9", "lean_sr"])
def test_training_beats_bicubic_and_counts_patches(name: str, tmp_path: Path) -> None:
    photos = load_pictures()
    model = create_model(name, **(TINY if "drrn" in name else {"width": 8, "depth": 2}))
    plan = recipe(epochs=4, lr=5e-3, superres={**SETTINGS, "patches": 4096})
    result = train(model, photos, plan, tmp_path, progress=False)
    bicubic = evaluate(Bicubic(), photos, task=SuperResolve(scales=(2,)))["psnr"]
    assert result.last["test_psnr"] > bicubic + 0.4
    assert result.last["test_psnr"] == pytest.approx(result.last["test_psnr_x2"])
    assert result.last["patches_per_second"] > 0
    again = enlarging_network(name, tmp_path / "last.safetensors", 2)
    assert again.config["kwargs"].keys() == model.config["kwargs"].keys()
    assert evaluate(again, photos)["psnr"] == pytest.approx(result.last["test_psnr"], abs=1e-3)
    with pytest.raises(UserError, match="`scale` 3 is none"):
        enlarging_network(name, tmp_path / "last.safetensors", 3)


def test_an_interrupted_run_ends_like_a_whole_one(discs: PictureData, tmp_path: Path) -> None:
    def tiny() -> nn.Module:
        torch.manual_seed(0)
        return create_model("drrn_b1u9", **TINY)

    whole = train(tiny(), discs, recipe(epochs=3, schedule="step", step_epochs=[2]), tmp_path / "a", progress=False)
    for epochs in (2, 3):
        plan = recipe(epochs=epochs, schedule="step", step_epochs=[2])
        parts = train(tiny(), discs, plan, tmp_path / "b", resume=True, progress=False)
    for mine, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_the_gradient_is_clipped_more_loosely_as_the_rate_falls(discs: PictureData) -> None:
    norms = []

    class Watched(SuperResolve):
        def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
            if model.exit[0].weight.grad is None:
                norms.append([p.detach().clone() for p in model.parameters()])
            return super().loss(model, inputs, targets)

    plan = recipe(
        epochs=2,
        optimizer="sgd",
        lr=0.5,
        momentum=0.0,
        clip_times_lr=0.01,
        schedule="step",
        step_epochs=[1],
        step_factor=0.5,
        superres={"loss": "squares", "patch_size": 16, "patches": 16},
    )
    train(create_model("drrn_b1u9", **TINY), discs, plan, progress=False, task=Watched(**plan.superres))
    moves = [
        sum(float((b - a).square().sum()) for a, b in zip(before, after, strict=True)) ** 0.5
        for before, after in pairwise(norms)
    ]
    # lr times a gradient of norm 0.01 / lr: every clipped step is as long, whatever the rate.
    assert len(moves) == 3
    assert moves == pytest.approx([0.01] * 3, rel=1e-3)


def test_losses_are_what_they_say() -> None:
    class Zero(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 0 * x

    x, y = torch.rand(3, 1, 4, 5), torch.rand(3, 1, 4, 5)
    found = {loss: float(SuperResolve(loss=loss).loss(Zero(), x, y)) for loss in ("squares", "l1", "charbonnier")}
    assert found["squares"] == pytest.approx(float(y.square().sum()) / 6)
    assert found["l1"] == pytest.approx(float(y.mean()))
    assert found["charbonnier"] == pytest.approx(float((y.square() + 1e-6).sqrt().mean()))


def test_psnr_is_of_rounded_luma_without_its_border() -> None:
    plane = torch.full((30, 33), 100, dtype=torch.uint8)
    data = PictureData("flat", Pictures((), ()), Pictures(("flat",), (plane,)))

    class Off(Bicubic):
        def forward(self, x: Tensor) -> Tensor:
            wrong = F.pad(x[..., 3:-3, 3:-3], (3, 3, 3, 3), value=1.0)  # the border does not count
            return wrong + 2.4 / 255  # rounds to two levels

    metrics = evaluate(Off(), data, task=SuperResolve(scales=(3,)))
    assert metrics["psnr_x3"] == pytest.approx(10 * torch.tensor(255**2 / 4).log10().item(), abs=1e-4)


def test_structural_similarity_is_that_of_its_definition() -> None:
    a, b = (torch.randint(0, 256, (1, 1, 20, 24), dtype=torch.uint8) for _ in range(2))
    line = torch.exp(-(torch.arange(-5.0, 6.0) ** 2) / (2 * 1.5**2)).double()
    window = torch.outer(line, line)[None, None] / line.sum() ** 2
    x, y = a.double(), b.double()
    mx, my = F.conv2d(x, window), F.conv2d(y, window)
    vx, vy = F.conv2d(x * x, window) - mx**2, F.conv2d(y * y, window) - my**2
    covariance = F.conv2d(x * y, window) - mx * my
    c, d = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    wanted = ((2 * mx * my + c) * (2 * covariance + d) / ((mx**2 + my**2 + c) * (vx + vy + d))).mean()
    assert float(structural_similarity(a, b)) == pytest.approx(float(wanted), abs=1e-9)
    assert float(structural_similarity(a, a)) == 1


def test_bicubic_has_the_published_figures(data_folder: Path) -> None:
    data = load_pictures("set5", folder=data_folder / "superres")
    bicubic = evaluate(Bicubic(), data, task=SuperResolve(scales=(2, 3, 4), ssim=True))
    for scale, psnr, ssim in ((2, 33.67, 0.9299), (3, 30.40, 0.8682), (4, 28.43, 0.8104)):
        assert bicubic[f"psnr_x{scale}"] == pytest.approx(psnr, abs=0.02)
        assert bicubic[f"ssim_x{scale}"] == pytest.approx(ssim, abs=2e-4)


@pytest.mark.slow
def test_the_given_weights_have_the_published_figures(data_folder: Path) -> None:
    data = load_pictures("set5", folder=data_folder / "superres")
    vdsr = evaluate(enlarging_network("vdsr", data_folder / "weights/vdsr_291.safetensors"), data)
    for scale, psnr in ((2, 37.58), (3, 33.74), (4, 31.44)):
        assert vdsr[f"psnr_x{scale}"] == pytest.approx(psnr, abs=0.02)


def test_recipes_that_come_with_the_package(discs: PictureData) -> None:
    paper, modern = load_recipe("superres_paper"), load_recipe("superres", ["superres.patch_size=16"])
    assert (paper.clip_times_lr, paper.superres["loss"]) == (0.01, "squares")
    assert modern.superres["patch_size"] == 16
    # Runs that began before there was another task go on: what they never had is not written.
    assert not {"task", "superres", "clip_times_lr"} & load_recipe("ran_cifar").to_dict().keys()
    assert paper.to_dict()["task"] == "superres"


@pytest.mark.parametrize("loss", ["squares", "l1", "charbonnier"])
def test_what_is_shaved_does_not_count_in_the_loss(loss: str) -> None:
    inputs, targets = torch.rand(2, 3, 1, 20, 24)
    wrong = targets.clone()
    wrong[..., :3, :] = wrong[..., -3:, :] = wrong[..., :3] = wrong[..., -3:] = 9.0
    task = SuperResolve(loss=loss, patch_size=20, shave=3)
    assert task.loss(nn.Identity(), inputs, wrong) == task.loss(nn.Identity(), inputs, targets)
    inside = (..., slice(3, -3), slice(3, -3))
    whole = SuperResolve(loss=loss, patch_size=20)
    assert task.loss(nn.Identity(), inputs, targets) == whole.loss(nn.Identity(), inputs[inside], targets[inside])


@pytest.mark.parametrize("shave", [-1, 7, 1.5])
def test_more_cannot_be_shaved_than_patches_have(shave: int) -> None:
    SuperResolve(patch_size=16, shave=6)
    with pytest.raises(UserError, match="of patches of 16 pixels, 0 to 6 can be shaved off"):
        SuperResolve(patch_size=16, shave=shave)


def test_mistakes_are_answered(discs: PictureData, tmp_path: Path) -> None:
    model = create_model("drrn_b1u9", **TINY)
    with pytest.raises(UserError, match=r"superres\.patchsize is not known: did you mean 'patch_size'"):
        train(model, discs, recipe(superres={"patchsize": 3}), progress=False)
    with pytest.raises(UserError, match="loss='l2' is not known"):
        train(model, discs, recipe(superres={"loss": "l2"}), progress=False)
    with pytest.raises(UserError, match=r"'discs 0' of 56x48 pixels is smaller than a patch of 64"):
        train(model, discs, recipe(superres={"patch_size": 64}), progress=False)
    with pytest.raises(UserError, match="enlarges no images"):
        evaluate(nn.Conv2d(1, 1, 1), discs)
    with pytest.raises(UserError, match="is for classification"):
        evaluate(model, toy_data(), task=SuperResolve())
    small = PictureData("small", Pictures((), ()), Pictures(("dot",), (torch.zeros(12, 12, dtype=torch.uint8),)))
    with pytest.raises(UserError, match=r"'dot' of 12x12 pixels is too small to be tested at scale 2"):
        evaluate(model, small)
    with pytest.raises(UserError, match="no network and has no weights"):
        enlarging_network("bicubic", tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="'ran26' enlarges no images: known names are bicubic, drrn_b1u25"):
        enlarging_network("ran26", None)
    with pytest.raises(UserError, match="knows nothing without weights"):
        enlarging_network("vdsr")
    with pytest.raises(UserError, match="task='enlarge' is not known"):
        recipe(task="enlarge")
