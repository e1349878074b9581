"""Super-resolution: training on patches, PSNR and SSIM of the luma plane as the field computes them."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.data.patches import PatchBatches, Patches, PlaneBatches, cut_to_multiple
from leanconv.data.pictures import PictureData
from leanconv.errors import UserError, nearest
from leanconv.imresize import imresize, to_uint8
from leanconv.models.superres import SCALES, check_scale
from leanconv.training.metrics import at_least_float32
from leanconv.training.recipe import Recipe
from leanconv.training.tasks import Classify, Task

LOSSES = ("squares", "l1", "charbonnier")
#: Below this distance the Charbonnier loss is round, in levels of 0 to 1 (Lai et al., 2017, arXiv 1704.03915).
_CHARBONNIER = 1e-3
#: Side of the window of structural similarity, the least a picture may have after its border is shaved.
SSIM_WINDOW = 11


class SuperResolve:
    """Enlarging the luma plane of images.

    An evaluation cuts each picture to a multiple of the scale, makes it small by MATLAB's ``imresize``, lets the
    network enlarge it, rounds to whole levels of 0 … 255, shaves as many pixels as the scale off each side, and takes
    peak signal-to-noise ratio and, on request, structural similarity (Wang et al., 2004, window 11, sigma 1.5).

    Args:
        loss: To train by: ``"squares"``, half the squared error summed over a patch, as the authors of VDSR and DRRN
            do; ``"l1"`` or ``"charbonnier"``, means over pixels.
        patch_size: Pixels a side of training patches of the large image.
        patch_stride: Pixels between them.
        patches: How many an epoch has, 0 for all there are.
        shave: Pixels off each side of a patch that do not count in the loss, as an evaluation shaves pictures: what
            networks pad there is an edge that pictures have at their ends only, but patches everywhere.
        scales: To evaluate at; by default all that the network is trained for.
        ssim: Whether to evaluate structural similarity too.

    Raises:
        UserError: A value is unknown or out of range.
    """

    monitor, unit = "psnr", "patches"

    def __init__(
        self,
        *,
        loss: str = "l1",
        patch_size: int = Patches.size,
        patch_stride: int = Patches.stride,
        patches: int = Patches.number,
        shave: int = 0,
        scales: tuple[int, ...] | None = None,
        ssim: bool = False,
    ) -> None:
        if loss not in LOSSES:
            raise UserError(f"loss={loss!r} is not known: {nearest(str(loss), LOSSES)}")
        self.measure = loss
        self.patches = Patches(patch_size, patch_stride, patches)
        most = (patch_size - max(SCALES)) // 2  # patches may be cut to a multiple of the scale
        if type(shave) is not int or not 0 <= shave <= max(most, 0):
            raise UserError(
                f"shave={shave!r} does not work: of patches of {patch_size} pixels, 0 to {max(most, 0)} can be shaved "
                "off each side."
            )
        self.shave = shave
        self.scales, self.ssim = scales, ssim

    def check(self, model: nn.Module, data: PictureData) -> None:
        """Check that network and data are for super-resolution, and the scales those it is trained for.

        Raises:
            UserError: They are not, or a test picture is too small to be compared.
        """
        for scale in self._scales(model):
            check_scale(model, scale)
        if not isinstance(data, PictureData):
            raise UserError(f"The data {data.name!r} is for classification: load_pictures gives images to enlarge.")
        largest = max(self._scales(model))
        for name, plane in zip(data.test.names, data.test.planes, strict=True):
            height, width = cut_to_multiple(plane, largest).shape
            if min(height, width) < SSIM_WINDOW + 2 * largest:
                raise UserError(
                    f"The image {name!r} of {plane.shape[1]}x{plane.shape[0]} pixels is too small to be tested at "
                    f"scale {largest}: sides of at least {SSIM_WINDOW + 3 * largest} would work."
                )

    def train_batches(self, model: nn.Module, data: PictureData, recipe: Recipe, **processes: Any) -> PatchBatches:
        """Return pairs of patches in batches."""
        small_input: Any = model.upsamples
        scales = self._scales(model)
        return PatchBatches(data.train, scales, small_input, self.patches, recipe.batch_size, **processes)

    def test_batches(self, data: PictureData, split: str, batch_size: int, **processes: Any) -> PlaneBatches:
        """Return the pictures of a split one by one, whatever the batch size."""
        places = {name: value for name, value in processes.items() if name != "seed"}
        return PlaneBatches(data.test if split == "test" else data.train, **places)

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch of patches."""
        enlarged = at_least_float32(model(inputs))
        height, width = targets.shape[2:]
        inside = (..., slice(self.shave, height - self.shave), slice(self.shave, width - self.shave))
        enlarged, targets = enlarged[inside], targets[inside]
        if self.measure == "squares":
            return F.mse_loss(enlarged, targets, reduction="sum") / (2 * len(targets))
        if self.measure == "l1":
            return F.l1_loss(enlarged, targets)
        return ((enlarged - targets).square() + _CHARBONNIER**2).sqrt().mean()

    def sums(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return metrics of one picture ``(1, 1, H, W)`` uint8.

        Returns:
            ``psnr_x2`` and ``ssim_x2`` and so on, ``psnr`` and ``ssim``, their means over the scales, and ``loss``,
            the mean squared error of levels of 0 to 1.
        """
        found: dict[str, Tensor] = {}
        scales = self._scales(model)
        for scale in scales:
            truth = cut_to_multiple(targets, scale)
            enlarged = enlarge(model, imresize(truth.float(), 1 / scale), scale)
            a, b = (plane[..., scale:-scale, scale:-scale] for plane in (to_uint8(enlarged), truth))
            error = (a.double() - b.double()).square().mean() / 255**2
            # A picture without any error still gets a finite number.
            found[f"psnr_x{scale}"] = -10 * error.clamp_min(1e-12).log10()
            found[f"loss_x{scale}"] = error
            if self.ssim:
                found[f"ssim_x{scale}"] = structural_similarity(a, b)
        for name in ("psnr", "ssim", "loss") if self.ssim else ("psnr", "loss"):
            found[name] = torch.stack([found[f"{name}_x{scale}"] for scale in scales]).mean()
        return {name: value for name, value in found.items() if not name.startswith("loss_")}

    def _scales(self, model: nn.Module) -> tuple[int, ...]:
        trained: Any = getattr(_unwrapped(model), "scales", None)
        if trained is None:
            raise UserError("The network enlarges no images: name one of those for super-resolution, such as 'vdsr'.")
        return self.scales or tuple(trained)


def enlarge(model: nn.Module, small: Tensor, scale: int) -> Tensor:
    """Enlarge luma planes with a network.

    Args:
        model: A network for super-resolution.
        small: (N, 1, h, w), levels of 0 to 255.
        scale: One of the network's scales.

    Returns:
        (N, 1, scale * h, scale * w), levels of about 0 to 255, not rounded.
    """
    upsamples: Any = _unwrapped(model).upsamples
    inputs = small if upsamples else imresize(small, scale)
    enlarged: Tensor = at_least_float32(model(inputs / 255))
    return enlarged * 255


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the network in the module that averages its weights or shares its work."""
    inner = getattr(model, "module", model)
    assert isinstance(inner, nn.Module)
    return inner


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean structural similarity of two uint8 planes, of windows that lie inside.

    Raises:
        UserError: scikit-image is missing.
    """
    try:
        from skimage.metrics import structural_similarity as ssim
    except ImportError:
        raise UserError('Structural similarity needs the "train" extra: pip install "leanconv[train]"') from None

    planes = (plane.squeeze().double().cpu().numpy() for plane in (a, b))
    value = ssim(*planes, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    return torch.tensor(float(value), dtype=torch.float64, device=a.device)


def make_task(recipe: Recipe) -> Task:
    """Return the task that a recipe trains for.

    Raises:
        UserError: The recipe has a value for super-resolution that is not known.
    """
    if recipe.task == "classify":
        return Classify(recipe.label_smoothing)
    known = ("loss", "patch_size", "patch_stride", "patches", "shave")
    for name in recipe.superres:
        if name not in known:
            raise UserError(f"Recipe value superres.{name} is not known: {nearest(name, known)}")
    return SuperResolve(**recipe.superres)
