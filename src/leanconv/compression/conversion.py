"""Replace the convolutions of a trained network by fitted factorisations, layer by layer."""

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from leanconv.compression.calibration import Calibration, calibration_for
from leanconv.compression.methods import Fit, Method
from leanconv.compression.observation import POSITIONS, Observed, gather, observe
from leanconv.compression.problem import RIDGE, Problem, problem_without_data
from leanconv.compression.record import ATTRIBUTE, LayerRecord, Record, described
from leanconv.compression.walk import Where, convolutions, replaced, selected
from leanconv.errors import UserError
from leanconv.ops.structured import Conv

#: Images of the calibration inputs that are read by default.
IMAGES = 500
#: Told of every layer when it is done: how many are, of how many, and its name.
OnProgress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Conversion:
    """A converted network.

    Attributes:
        model: The network, with the training mode the original has.
        record: What was done to it.
    """

    model: nn.Module
    record: Record


def convert(
    model: nn.Module,
    config: Method | Mapping[str, Method],
    where: Where = None,
    inputs: Iterable[Any] | None = None,
    *,
    images: int = IMAGES,
    positions: int = POSITIONS,
    ridge: float = RIDGE,
    weigh: bool = True,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Conversion:
    """Replace convolutions of a trained network by fitted factorisations.

    Layers are fitted in the order they are called.  With ``inputs``, each is fitted to what the original network's
    layer writes, from what it reads in the network converted so far (the asymmetric reconstruction of Zhang et al.,
    2015, arXiv 1505.06798), so that errors of one layer are made good by the next.  Only second moments are kept of
    what layers read, so memory does not grow with the samples.  At full rank the network computes what it did.

    Args:
        model: Any network; it is not changed.  It is observed in evaluation mode.
        config: The method for all layers, or methods by shell-style pattern of layer names, the first match first.
        where: Which layers: a pattern of names, several, or a test of name and module.  By default all plain
            convolutions that the method can replace, other than depthwise ones.
        inputs: Batches of calibration samples ``(N, …)``, as the network takes them; labels beside them are ignored.
            Without inputs the weights alone are approximated.
        images: Samples to read from ``inputs``.
        positions: Positions of each feature map to fit on.
        ridge: Pull towards the trained kernel, as a fraction of the mean variance of a layer's inputs.
        weigh: Measure errors of a layer by what they do to the network's outputs (second moments of gradients,
            for class scores those of the Kullback-Leibler divergence) instead of weighing all channels alike.
        seed: Of the positions.
        on_progress: Called after each layer with the layers done, their number and the name.

    Returns:
        The converted copy and the record.  A layer that is never called, or whose fit fails, is kept and recorded.

    Raises:
        UserError: No convolution matches, a weight is computed by a parametrisation, a rank is missing, or ``inputs``
            do not fit the network, are not finite, or its forward pass is random.
    """
    chosen, left = selected(model, config, where)
    for name, method in chosen.items():
        method.rank_for(convolutions(model)[name])
    if positions < 1:
        raise UserError(f"`positions` must be at least 1, got {positions}.")
    original = frozen_copy(model)
    if inputs is None:
        return convert_layers(model, chosen, left, on_progress=on_progress)
    calibration = calibration_for(original, inputs, images)
    observed = observe(original, chosen, calibration, positions=positions, seed=seed, moments=False, gradients=weigh)
    return convert_layers(model, chosen, left, (calibration, observed), ridge=ridge, on_progress=on_progress)


def frozen_copy(model: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode whose parameters need no gradients."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def convert_layers(
    model: nn.Module,
    chosen: Mapping[str, Method],
    left: dict[str, str],
    data: tuple[Calibration, dict[str, Observed]] | None = None,
    *,
    ridge: float = RIDGE,
    on_progress: OnProgress | None = None,
) -> Conversion:
    """Convert the chosen layers; see :func:`convert`.

    Args:
        model: The network.
        chosen: Method, with its rank, for each layer.
        left: Layers that are left alone already, and why.
        data: Calibration inputs and what the original was observed to do on them.
        ridge: See :func:`convert`.
        on_progress: See :func:`convert`.
    """
    modes = {name: module.training for name, module in model.named_modules()}
    result = copy.deepcopy(model).eval()
    left = dict(left)
    layers = []
    order = list(chosen) if data is None else [name for name in data[1] if name in chosen]
    left |= {name: "it is not called" for name in chosen if name not in order}
    few: dict[str, int] = {}
    for done, name in enumerate(order, start=1):
        conv: Any = result.get_submodule(name)
        rank = chosen[name].rank_for(conv)
        if data is None:
            problem = problem_without_data(conv)
        else:
            moments = gather(result, name, data[0], data[1][name])
            problem = moments.problem(data[1][name].sensitivity, ridge=ridge)
            if problem.samples < problem.trained.shape[1]:
                few[name] = problem.trained.shape[1]
        fit = fitted(conv, problem, chosen[name], rank)
        if fit is None:
            left[name] = "its fit failed numerically"
        else:
            error = problem.relative(problem.square_error(in_metric(fit.kernel, problem)))
            layers.append(_layer_record(name, conv, chosen[name], rank, fit, error, problem.samples))
            result = replaced(result, name, fit.module.to(conv.weight.dtype))
        if on_progress:
            on_progress(done, len(order), name)
    if few and data is not None:
        _warn_of_few_samples(few, data[0].images)
    for name, module in result.named_modules():
        module.training = modes.get(name, module.training)
    record = Record(tuple(layers), left)
    setattr(result, ATTRIBUTE, record.to_dict())
    return Conversion(result, record)


def in_metric(kernel: torch.Tensor, problem: Problem) -> torch.Tensor:
    """Return a kernel ``(g, p, q)`` as it is in the metric of a problem."""
    return kernel if problem.metric_root is None else kernel @ problem.metric_root


def fitted(conv: Conv, problem: Problem, method: Method, rank: tuple[int, ...]) -> Fit | None:
    """Return the fit of a layer, or None where it fails numerically."""
    try:
        fit = method.fit(conv, problem, rank)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        return None
    finite = all(bool(torch.isfinite(p.to(conv.weight.dtype)).all()) for p in fit.module.parameters())
    return fit if finite else None


def _layer_record(
    name: str, conv: Conv, method: Method, rank: tuple[int, ...], fit: Fit, error: float, samples: int
) -> LayerRecord:
    bias = any(key.endswith("bias") for key, _ in fit.module.named_parameters())
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in method.to_dict().items()}
    return LayerRecord(name, plain, rank, bias, described(conv), error, samples)


def _warn_of_few_samples(few: dict[str, int], images: int) -> None:
    name, unknowns = max(few.items(), key=lambda item: item[1])
    warnings.warn(
        f"{len(few)} layers were fitted on fewer samples than they have unknowns (worst {name!r}, {unknowns} for each "
        f"output), and lean on their trained weights instead: more than {images} images, or more positions of each, "
        f"would do; {unknowns} samples are the least.",
        UserWarning,
        stacklevel=3,
    )
