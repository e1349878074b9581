"""Is a ShuffleNet V2 better when it is decomposed from a regular network than when it is trained from scratch?

The experiment of He et al., 2019 (arXiv 1910.09455), as we read it, on CIFAR-10 at a small width: every depthwise 3x3
convolution of ShuffleNet V2 becomes a regular one, that network is trained, each of its 3x3 convolutions is joined with
the 1x1 convolution that follows, and the composite kernels are decomposed into depthwise and pointwise ones: exactly
ShuffleNet V2 again.  Batch norm is put back, and the network fine-tuned.  ShuffleNet V2 from scratch gets as many
epochs in total, by the same recipe.  The paper claims about two points on ImageNet.

    LEANCONV_DATA=… python benchmarks/shufflenet_decomposition.py --epochs 6 --finetune-epochs 3 --seeds 3
"""

import argparse
import copy
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from leanconv.cli.compress import calibration_batches
from leanconv.comparison import Ledger, Run, run_settings
from leanconv.comparison.difference import mean_difference
from leanconv.compression import DepthwiseDecomposition, compose, convert
from leanconv.data import ImageData, load
from leanconv.measurement import count_macs, count_params
from leanconv.models import create_model
from leanconv.models.shufflenet import SplitShuffleUnit
from leanconv.training import evaluate, load_recipe
from results_file import write_results
from single_run import trained_run

NETWORK: dict[str, Any] = {"name": "shufflenet_v2_050", "stem": "cifar", "num_classes": 10}
CHANGES = ("precision=bf16", "channels_last=true", "warmup_epochs=1")
CLAIMED_POINTS = 2.0
IMAGES, POSITIONS = 500, 10


def shufflenet() -> nn.Module:
    """Return ShuffleNet V2."""
    return create_model(**NETWORK)


def regular() -> nn.Module:
    """Return ShuffleNet V2 with regular 3x3 convolutions in place of the depthwise ones."""
    model = shufflenet()
    for spatial, _ in pairs(model):
        depthwise: Any = spatial[0]
        width = depthwise.in_channels
        spatial[0] = nn.Conv2d(width, width, 3, depthwise.stride, 1, bias=False)
    return model


def pairs(model: nn.Module) -> Iterator[tuple[nn.Sequential, nn.Sequential]]:
    """Yield each 3x3 convolution, with its norm, and the 1x1 convolution after it, with norm and activation."""
    for unit in model.modules():
        if isinstance(unit, SplitShuffleUnit):
            body: Any = unit.body
            yield body[1], body[2]
            passed: Any = unit.passed
            if passed is not None:
                yield passed[0], passed[1]


def decomposed(model: nn.Module, calibration: list[Tensor]) -> nn.Module:
    """Return the ShuffleNet V2 that is nearest to a trained regular network."""
    composite = copy.deepcopy(model).eval()
    names = {module: name for name, module in composite.named_modules()}
    chosen = []
    for spatial, mix in pairs(composite):
        first: Any = fuse_conv_bn_eval(spatial[0], spatial[1])  # type: ignore[type-var]
        second: Any = fuse_conv_bn_eval(mix[0], mix[1])  # type: ignore[type-var]
        spatial[0], spatial[1] = compose(first, second), nn.Identity()
        mix[0], mix[1] = nn.Identity(), nn.Identity()
        chosen.append(f"{names[spatial]}.0")
    method = DepthwiseDecomposition(rank=1)
    fitted = convert(composite, method, chosen, calibration, images=IMAGES, positions=POSITIONS).model

    result = shufflenet()
    state = model.state_dict()
    replaced = [part for spatial, mix in pairs(result) for part in (*spatial.parameters(), *mix.parameters())]
    same = {name for name, parameter in result.named_parameters() if not any(parameter is other for other in replaced)}
    result.load_state_dict({name: state[name] for name in state if name in same or "running" in name}, strict=False)
    biases = {}
    for (spatial, mix), (separable, _) in zip(pairs(result), pairs(fitted), strict=True):
        operator: Any = separable[0]
        for target, source in ((spatial, operator.depthwise), (mix, operator.pointwise)):
            conv: Any = target[0]
            conv.weight.data.copy_(source.weight)
        biases[spatial[1]], biases[mix[1]] = torch.zeros(()), operator.pointwise.bias.detach()
    return with_batch_norm(result.eval(), biases, torch.cat(calibration))


@torch.no_grad()
def with_batch_norm(model: nn.Module, biases: dict[nn.Module, Tensor], images: Tensor) -> nn.Module:
    """Give batch norms the statistics of what they read, and scales and shifts that undo them.

    Args:
        model: The network, changed in place.
        biases: For each of the norms, in order, what it is to add to what it reads.
        images: What the statistics are of.
    """

    def identity(norm: Any, args: tuple[Tensor, ...]) -> None:
        norm.running_var, norm.running_mean = (f(args[0], (0, 2, 3)) for f in (torch.var, torch.mean))
        norm.weight.copy_((norm.running_var + norm.eps).sqrt())
        norm.bias.copy_(norm.running_mean + biases[norm])

    handles = [norm.register_forward_pre_hook(identity) for norm in biases]
    model(images)
    for handle in handles:
        handle.remove()
    return model


def run_seed(seed: int, data: ImageData, ledger: Ledger, options: argparse.Namespace) -> None:
    """Train the regular network, decompose and fine-tune it, and train ShuffleNet V2 from scratch."""
    total = options.epochs + options.finetune_epochs
    scratch, first, tune = (
        load_recipe("ran_cifar", [*CHANGES, *options.changes, f"epochs={epochs}"])
        for epochs in (total, options.epochs, options.finetune_epochs)
    )
    tune = load_recipe("ran_cifar", [*CHANGES, *options.changes, f"epochs={tune.epochs}", f"lr={options.finetune_lr}"])
    if ledger.finished("finetuned", seed) is None:
        model, run = trained_run("regular", regular, data, first, seed, ledger)
        print(f"regular, seed {seed}: {100 * run.accuracy:.2f} %", flush=True)
        lean = decomposed(model, calibration_batches(data, IMAGES, seed))
        result = evaluate(lean, data)
        ledger.record(Run("decomposed", seed, result["top1"], result["top1"], result["loss"], 0, 0.0))
        print(f"decomposed, seed {seed}: {100 * result['top1']:.2f} %", flush=True)
        _, run = trained_run("finetuned", lambda: lean, data, tune, seed, ledger)
        print(f"finetuned, seed {seed}: {100 * run.accuracy:.2f} %", flush=True)
    if ledger.finished("scratch", seed) is None:
        _, run = trained_run("scratch", shufflenet, data, scratch, seed, ledger)
        print(f"scratch, seed {seed}: {100 * run.accuracy:.2f} %", flush=True)


def main() -> None:
    """Run what is missing and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    local = os.environ.get("LEANCONV_DATA")
    parser.add_argument("--data", type=Path, default=Path(local) / "cifar10" if local else None)
    parser.add_argument("--output", type=Path, default=Path("runs/shufflenet_decomposition"), help="folder of the runs")
    parser.add_argument("--epochs", type=int, default=6, help="of the regular network")
    parser.add_argument("--finetune-epochs", type=int, default=3, help="after it was decomposed")
    parser.add_argument("--finetune-lr", type=float, default=0.02, help="highest learning rate of fine-tuning")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--threads", type=int, help="CPU threads of training")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    data = load("cifar10", folder=options.data)
    recipe = load_recipe("ran_cifar", [*CHANGES, *options.changes, f"epochs={options.epochs}"])
    keys = ("finetune_epochs", "finetune_lr")
    ledger = Ledger(options.output, run_settings(data, recipe, None) | {key: getattr(options, key) for key in keys})
    for seed in range(options.seeds):
        run_seed(seed, data, ledger, options)
    runs = ledger.all_finished()
    by_kind = {kind: [run.accuracy for run in runs if run.model == kind] for kind in {run.model for run in runs}}
    difference = mean_difference(by_kind["finetuned"], by_kind["scratch"])
    size = (1, 3, 32, 32)
    models = {"regular": regular(), "shufflenet": shufflenet()}
    costs = {name: {"params": count_params(m), "macs": count_macs(m, size)} for name, m in models.items()}
    found = {
        "network": NETWORK,
        "costs": costs,
        "accuracy_percent": {kind: 100 * fmean(values) for kind, values in sorted(by_kind.items())},
        "difference_points": 100 * difference.mean,
        "interval_points": [None if end is None else 100 * end for end in (difference.low, difference.high)],
        "claimed_points": CLAIMED_POINTS,
        "settings": ledger.settings,
        "runs": [asdict(run) for run in runs],
    }
    print(f"Written to {write_results('shufflenet_decomposition', found)}")


if __name__ == "__main__":
    main()
