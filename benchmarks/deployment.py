"""Does the arithmetic that was saved save time where networks are deployed?

Ratios of times in one run, medians of interleaved rounds, one thread:

- ``engines``: ``resnet26_cifar`` over ``ran26`` at the width of the paper, in every engine, folded and not;
- ``blocks``: folded axial blocks in one pass against the best forms of PyTorch's own kernels, folded and not, and what
  share of the bandwidth of ``clone`` they reach;
- ``torch``: the folded network through PyTorch alone against ONNX Runtime;
- ``shift``: shift operators in ONNX Runtime against the same shifts written as assignments to slices;
- ``int8``: a trained ``ran26`` in 8-bit integers against its export in floating point.

Networks that are not trained get batch norm statistics that are not trivial, as training leaves them.

    python benchmarks/deployment.py                  # minutes; writes results/deployment_<part>.json
    python benchmarks/deployment.py --only engines   # one part
    python benchmarks/deployment.py --quick          # seconds; small networks, nothing is written
"""

import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from torch import Tensor, nn

from leanconv.cli.compress import calibration_batches
from leanconv.data import batches, load
from leanconv.deployment import engine_named, export, fold
from leanconv.deployment.costs import target_of
from leanconv.deployment.engine import Runner
from leanconv.measurement import Latency, count_macs, measure_latency, paired_ratio
from leanconv.models import create_model
from leanconv.ops import AddressShift2d, AxialConv2d, ChannelShift2d
from leanconv.ops.kernels.depthwise_pair import DepthwisePair
from leanconv.training import load_weights
from results_file import write_results

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "deployment"))
from trained import trained

#: Speed of the fused form over the best folded form of PyTorch's own kernels.
FUSED_BAR = 1.5
LEAN, BASELINE = "ran26", "resnet26_cifar"
PARTS = ("engines", "blocks", "torch", "shift", "int8")
ENGINES = ("eager", "compile", "onnxruntime", "openvino")
RUNTIMES = ("onnxruntime", "openvino")
#: Kernel sizes and inputs of axial blocks.
KERNELS = (3, 7)
BLOCKS = (
    (1, 64, 56, 56),
    (1, 128, 56, 56),
    (1, 256, 28, 28),
    (1, 512, 14, 14),
    (16, 120, 32, 32),
    (16, 240, 16, 16),
    (16, 960, 4, 4),
)
#: Base width of the network that ran_claims.py trains.
TRAINED_WIDTH = 16
#: Inputs of shift operators.
SHIFTED = ((1, 64, 56, 56), (16, 240, 16, 16))


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Small networks, few rounds; write nothing.")] = False,
    only: Annotated[list[str] | None, typer.Option(help=f"Parts to run, of {', '.join(PARTS)}.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed samples of each network and engine.")] = 40,
    weights: Annotated[Path, typer.Option(help="A ran26 trained on CIFAR-10, as ran_claims.py leaves it.")] = Path(
        "runs/ran_claims/runs/ran26/seed0/last.safetensors"
    ),
    data: Annotated[str, typer.Option(help="CIFAR-10, for its calibration and accuracy.")] = "cifar10",
) -> None:
    """Run the parts and write what they found."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rounds, width = (3, 8) if quick else (rounds, 120)
    parts = {
        "engines": lambda: engines(rounds, width, (1,) if quick else (1, 16)),
        "blocks": lambda: blocks(rounds, (3,) if quick else KERNELS, BLOCKS[-1:] if quick else BLOCKS),
        "torch": lambda: list(torch_alone(rounds, width, (1,) if quick else (1, 16))),
        "shift": lambda: list(shifts(rounds, SHIFTED[-1:] if quick else SHIFTED)),
        "int8": lambda: list(eight_bits(weights, data, rounds, 64 if quick else 10_000)),
    }
    for name in only or PARTS:
        found = parts[name]()
        Console().print_json(data={name: found})
        if not quick:
            path = write_results(f"deployment_{name}", {"rounds": rounds, "threads": 1, name: found})
            Console().print(f"Written to {path}")


def network(name: str, width: int) -> nn.Module:
    """Return a network as training leaves it, without the training."""
    return trained(create_model(name, num_classes=10, base_width=width))


def times(latency: Latency) -> dict[str, float]:
    """Return the quartiles of a latency."""
    return {"median_s": latency.median_s, "q25_s": latency.q25_s, "q75_s": latency.q75_s}


def engines(rounds: int, width: int, sizes: tuple[int, ...]) -> dict[str, Any]:
    """Time the lean network and the one it replaces, folded and not, in every engine."""
    networks = {name: network(name, width) for name in (LEAN, BASELINE)}
    macs = {name: count_macs(model, (1, 3, 32, 32)) for name, model in networks.items()}
    rows = []
    for batch in sizes:
        shape = (batch, 3, 32, 32)
        x = torch.randn(shape)
        for name in ENGINES:
            engine, target = engine_named(name), target_of(name)
            for folded in (False, True):
                forms = {
                    key: fold(model, input_size=shape, target=target) if folded else model
                    for key, model in networks.items()
                }
                timed = measure_latency(
                    {key: engine.load(model, x, threads=1) for key, model in forms.items()},
                    x,
                    rounds=rounds if batch == 1 else max(3, rounds // 3),
                    threads=1,
                )
                rows.append(
                    {
                        "engine": name,
                        "batch": batch,
                        "folded": folded,
                        "networks": {key: times(latency) for key, latency in timed.items()},
                        "gmacs_per_s": {
                            key: 1e-9 * batch * macs[key] / latency.median_s for key, latency in timed.items()
                        },
                        "time_ratio": asdict(paired_ratio(timed[BASELINE], timed[LEAN])),
                    }
                )
                Console(stderr=True).print(f"{name}, batch {batch}, folded {folded}: done")
    return {
        "width": width,
        "macs": macs,
        "bar": macs[BASELINE] / macs[LEAN],
        "rows": rows,
    }


def axial_block(channels: int, kernel: int) -> nn.Module:
    """Return a residual axial block as training leaves it."""
    block = AxialConv2d(
        channels,
        channels,
        kernel,
        padding="same",
        groups=channels,
        bias=False,
        residual=True,
        norm_layer=nn.BatchNorm2d,
    )
    return trained(block)


def merged_block(block: AxialConv2d) -> nn.Module:
    """Return the one depthwise kernel that equals both axes wherever no padding is near: fewer passes, less exact."""
    kernel = block.geometry.kernel_size
    return nn.Conv2d(block.in_channels, block.in_channels, kernel, padding="same", groups=block.in_channels).eval()


def blocks(rounds: int, kernels: tuple[int, ...], shapes: tuple[tuple[int, ...], ...]) -> dict[str, Any]:
    """Time residual axial blocks in PyTorch: unfolded, folded for PyTorch's kernels, and folded for the fused one.

    All but the last in both layouts and compiled; ``clone`` stands beside them.  What the folded block is measured
    against is the fastest form of two convolutions or of the one depthwise kernel that is not exact at the borders.
    """
    rows = [block_row(rounds, kernel, shape) for kernel in kernels for shape in shapes]
    speedups = [row["fused_over_folded"]["median"] for row in rows]
    return {
        "rows": rows,
        "fused_over_folded": {
            "geometric_mean": statistics.geometric_mean(speedups),
            "least": min(speedups),
            "bar": FUSED_BAR,
            "meets_bar": statistics.geometric_mean(speedups) >= FUSED_BAR and min(speedups) >= 1,
        },
        "folded_over_unfolded": statistics.geometric_mean(row["speedup"]["median"] for row in rows),
    }


def block_row(rounds: int, kernel: int, shape: tuple[int, ...]) -> dict[str, Any]:
    """Time one block."""
    x = torch.randn(shape)
    block = axial_block(shape[1], kernel)
    fused = fold(block, input_size=shape)
    # Other targets get plain convolutions, which PyTorch's own kernels then run.
    forms = {"unfolded": block, "folded": fold(block, input_size=shape, target="openvino")}
    forms["merged"] = merged_block(block)
    runs: dict[str, Any] = {f"{name}, contiguous": form for name, form in forms.items()}
    runs |= {f"{name}, channels last": form for name, form in forms.items()}
    torch._dynamo.reset()
    runs |= {f"{name}, compiled": engine_named("compile").load(form, x) for name, form in forms.items()}
    runs |= {"fused, channels last": fused, "fused, contiguous": fused}
    timed = measure_latency(
        {**runs, "clone": torch.clone},
        x,
        rounds=rounds,
        threads=1,
        channels_last=[name for name in runs if name.endswith("channels last")],
    )
    best = {
        form: min((name for name in timed if name.startswith(form)), key=lambda name: timed[name].median_s)
        for form in (*forms, "fused")
    }
    rival = min((best["folded"], best["merged"]), key=lambda name: timed[name].median_s)
    return {
        "shape": shape,
        "kernel": kernel,
        "layers": [
            type(module).__name__ for module in fused.modules() if isinstance(module, DepthwisePair | nn.Conv2d)
        ],
        "times": {name: times(latency) for name, latency in timed.items()},
        "best": best,
        "speedup": asdict(paired_ratio(timed[best["unfolded"]], timed[best["fused"]])),
        "fused_over_folded": asdict(paired_ratio(timed[rival], timed[best["fused"]])),
        "share_of_clone": {form: paired_ratio(timed["clone"], timed[name]).median for form, name in best.items()},
    }


def torch_alone(rounds: int, width: int, sizes: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Time the folded network in PyTorch alone, as multiples of ONNX Runtime's time."""
    model = network(LEAN, width)
    for batch in sizes:
        shape = (batch, 3, 32, 32)
        x = torch.randn(shape)
        runners = {
            name: engine_named(name).load(fold(model, input_size=shape, target=target_of(name)), x, threads=1)
            for name in ("compile", "aotinductor", "onnxruntime")
        }
        timed = measure_latency(runners, x, rounds=rounds if batch == 1 else max(3, rounds // 3), threads=1)
        yield {
            "batch": batch,
            "times": {name: times(latency) for name, latency in timed.items()},
            "of_onnxruntime": {
                name: asdict(paired_ratio(latency, timed["onnxruntime"])) for name, latency in timed.items()
            },
            "bar": 1.3,
        }


class AssignedChannelShift(nn.Module):
    """The channel shift, assigned to slices of a new tensor."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.half = channels // (2 * groups)

    def forward(self, x: Tensor) -> Tensor:
        """Move the channels by half a group."""
        result = torch.zeros_like(x)
        result[:, : -self.half] = x[:, self.half :]
        result[:, -self.half :] = x[:, : self.half]
        return result


class AssignedAddressShift(nn.Module):
    """The shift of quarters that fills with zeros, assigned to slices of a new tensor."""

    def forward(self, x: Tensor) -> Tensor:
        """Shift each quarter of the channels."""
        n = x.shape[1] // 4
        result = torch.zeros_like(x)
        result[:, :n, :, :-1] = x[:, :n, :, 1:]
        result[:, n : 2 * n, :-1] = x[:, n : 2 * n, 1:]
        result[:, 2 * n : 3 * n, :, 1:] = x[:, 2 * n : 3 * n, :, :-1]
        result[:, 3 * n :, 1:] = x[:, 3 * n :, :-1]
        return result


def shifts(rounds: int, shapes: tuple[tuple[int, ...], ...]) -> Iterator[dict[str, Any]]:
    """Time shifts in ONNX Runtime against the same written as assignments to slices."""
    for shape in shapes:
        x, channels = torch.randn(shape), shape[1]
        pairs: dict[str, tuple[nn.Module, nn.Module]] = {
            "ChannelShift2d": (ChannelShift2d(channels, 4), AssignedChannelShift(channels, 4)),
            "AddressShift2d": (AddressShift2d(channels, "zeros"), AssignedAddressShift()),
        }
        for name, (ours, assigned) in pairs.items():
            engine = engine_named("onnxruntime")
            runners: dict[str, Runner] = {
                "ours": engine.load(ours.eval(), x, threads=1),
                "assigned": engine.load(assigned.eval(), x, threads=1),
            }
            torch.testing.assert_close(runners["ours"](x), runners["assigned"](x), rtol=0, atol=0)
            timed = measure_latency({**runners, "clone": torch.clone}, x, rounds=rounds, threads=1)
            yield {
                "operator": name,
                "shape": shape,
                "times": {key: times(latency) for key, latency in timed.items()},
                "speedup": asdict(paired_ratio(timed["assigned"], timed["ours"])),
                "bar": 10.0,
            }


def eight_bits(weights: Path, data: str, rounds: int, images: int) -> Iterator[dict[str, Any]]:
    """Export a trained network in 8-bit integers, calibrated on training images and tested on test images."""
    split = load(data)
    model = load_weights(create_model(LEAN, num_classes=10, base_width=TRAINED_WIDTH), weights).eval()
    calibration = torch.cat(calibration_batches(split, min(images, 1000), 0))
    x, y = (torch.cat(parts) for parts in zip(*batches(split.test, 500, train=False).epoch(0), strict=True))
    for name in RUNTIMES:
        suffix = engine_named(name).suffix  # type: ignore[attr-defined]
        for batch in (16, 1):
            labelled = list(zip(x[:images].split(batch), y[:images].split(batch), strict=True))
            with tempfile.TemporaryDirectory() as folder:
                report = export(
                    fold(model, input_size=(batch, *x.shape[1:]), target=name),
                    Path(folder) / f"ran26{suffix}",
                    calibration[:batch],
                    int8=calibration[: len(calibration) // batch * batch].split(batch),
                    accuracy=labelled if batch == 16 else None,
                    dynamic_batch=False,
                    threads=1,
                    rounds=rounds,
                )
            assert report.int8_speedup is not None
            scores = report.accuracy and {key: 100 * value for key, value in report.accuracy.items()}
            yield {
                "engine": name,
                "batch": batch,
                "width": TRAINED_WIDTH,
                "top1": scores,
                "points_lost": scores and scores["eager"] - scores[name],
                "times": {key: times(latency) for key, latency in report.latency.items()},
                "speedup": asdict(report.int8_speedup),
                "bars": {"points_lost": 0.5, "speedup": 1.5},
            }


if __name__ == "__main__":
    typer.run(main)
