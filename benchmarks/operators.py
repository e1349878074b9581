"""How much faster are the operators here than the forms their authors or other libraries give them?

Every section compares forms of one operator, which must give the same result before they are timed: one thread,
inference, all forms of a case next to each other in every round, and ratios taken round by round, so that they hold on
a machine that others use too.

    python benchmarks/operators.py                      # minutes; writes results/operators_<section>.json
    python benchmarks/operators.py --section dice       # one section
    python benchmarks/operators.py --quick              # seconds; few rounds, nothing compiled, nothing written

A new section is a function that yields its cases, listed in ``SECTIONS``.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.testing import assert_close

import peers
from leanconv.errors import nearest
from leanconv.measurement import measure_latency, paired_ratio
from leanconv.ops import (
    ChannelShift2d,
    ChannelShuffle2d,
    CPConv2d,
    DiCE,
    GroupedChannelwiseConv2d,
    RollingPointwise2d,
    ShiftedGroupedPointwise2d,
    TensorTrainConv2d,
    TuckerConv2d,
)
from results_file import write_results

# The forms to beat are the truth of the tests, too.
sys.path.append(str(Path(__file__).parents[1] / "tests"))
from reference_operators import AuthorsDiCE, ChannelwiseConv3d, authors_weights


@dataclass(frozen=True)
class Case:
    """Forms of one operator on one input.

    Attributes:
        name: The operator and its size.
        example: The input.
        baseline: The form that the others are measured against.
        ours: This library's form, eager.
        others: Further forms by name; ``"compiled"`` is this library's by ``torch.compile``.
        target: How many times faster this library's form is meant to be than the reference.
        unlike: Forms that compute something else, timed for comparison only.
        reference: The form that times are multiples of.
    """

    name: str
    example: Tensor
    baseline: nn.Module
    ours: nn.Module
    others: Mapping[str, nn.Module]
    target: float
    unlike: Mapping[str, nn.Module] = field(default_factory=dict)
    reference: str = "baseline"


def channelwise(_compiled: bool) -> Iterator[Case]:
    """Convolution along the channels (ChannelNets) against the same as a 3-D convolution."""
    for batch in (1, 4):
        for channels, side, groups, taps in ((512, 14, 2, 8), (512, 14, 4, 16), (1024, 7, 1, 64)):
            operator = GroupedChannelwiseConv2d(channels, groups, channel_kernel_size=taps)
            yield Case(
                f"{channels}x{side}x{side}, {groups} kernels of {taps} taps, batch {batch}",
                torch.randn(batch, channels, side, side),
                ChannelwiseConv3d(operator.weight),
                operator,
                {"pointwise": operator.dense()},
                target=3.0,
            )


def dice(compiled: bool) -> Iterator[Case]:
    """DiCE unit against the authors' form, with transposed copies, concatenation and grouped convolution."""
    for batch in (1, 8):
        for channels, side in ((116, 14), (464, 7)):
            unit = DiCE(channels, channels, side).eval()
            authors = AuthorsDiCE(channels, channels, side, side).eval()
            authors.load_state_dict(authors_weights(unit))
            forms: dict[str, nn.Module] = {}
            if compiled:
                torch.compiler.reset()
                forms = {"compiled": _compiled_module(unit), "baseline compiled": _compiled_module(authors)}
            yield Case(
                f"{channels}x{side}x{side}, batch {batch}",
                torch.randn(batch, channels, side, side),
                authors,
                unit,
                forms,
                target=3.0,
            )


def factorized(_compiled: bool) -> Iterator[Case]:
    """CP, Tucker and tensor-train convolutions of 3x3, folded for inference, against tensorly-torch at equal ranks."""
    if find_spec("tltorch") is None:
        Console().print(f"factorized: skipped, tensorly-torch is missing ({peers.INSTALL})")
        return
    for batch, channels, side in ((1, 64, 56), (1, 128, 28), (1, 256, 14), (1, 512, 7), (8, 64, 28), (8, 256, 14)):
        for form, ranks in (
            (CPConv2d, (channels // 2, channels)),
            (TuckerConv2d, (channels // 4, channels // 2)),
            (TensorTrainConv2d, (channels // 4, channels // 2)),
        ):
            for rank in ranks:
                operator = form(channels, channels, 3, padding=1, rank=rank).eval()
                yield Case(
                    f"{form.__name__} of rank {rank}, {channels}x{side}x{side}, batch {batch}",
                    torch.randn(batch, channels, side, side),
                    peers.tensorly_torch_conv(operator),
                    operator.folded(),
                    {
                        "not folded": operator,
                        "channels last": operator.folded().to(memory_format=torch.channels_last),
                    },
                    target=1.3,
                )


def shift(_compiled: bool) -> Iterator[Case]:
    """Channel shift (AddressNet) folded into a grouped pointwise convolution, against that convolution alone."""
    for batch, channels, side in ((1, 192, 28), (1, 384, 14), (16, 96, 56), (16, 192, 28), (16, 384, 14), (16, 768, 7)):
        folded = ShiftedGroupedPointwise2d(channels, channels, 4).eval()
        yield Case(
            f"{channels}x{side}x{side}, 4 groups, batch {batch}",
            torch.randn(batch, channels, side, side),
            nn.Sequential(ChannelShift2d(channels, 4), folded.conv),
            folded,
            {},
            target=1 / 1.05,
            unlike={"alone": folded.conv, "shuffled": nn.Sequential(ChannelShuffle2d(channels, 4), folded.conv)},
            reference="alone",
        )


def rolling(_compiled: bool) -> Iterator[Case]:
    """Rolling pointwise convolution (3DRF, DSXplore) against a dense pointwise convolution of the same MACs."""
    for batch, channels, side in ((1, 256, 28), (1, 512, 14), (16, 128, 28), (16, 256, 14), (16, 512, 7)):
        operator = RollingPointwise2d(channels, channels, groups=2, overlap=0.5).eval()
        yield Case(
            f"{channels}x{side}x{side}, 2 groups, overlap 0.5, batch {batch}",
            torch.randn(batch, channels, side, side),
            operator.dense(),
            operator,
            {},
            target=1 / 1.3,
            unlike={
                "same MACs, dense": nn.Conv2d(channels, channels // 2, 1, bias=False).eval(),
                "same MACs, grouped": nn.Conv2d(channels, channels, 1, groups=2, bias=False).eval(),
            },
            reference="same MACs, dense",
        )


SECTIONS: dict[str, Callable[[bool], Iterator[Case]]] = {
    "channelwise": channelwise,
    "dice": dice,
    "factorized": factorized,
    "rolling": rolling,
    "shift": shift,
}


def _compiled_module(module: nn.Module) -> nn.Module:
    compiled: Any = torch.compile(module)
    return compiled


def run(case: Case, rounds: int) -> dict[str, Any]:
    """Check that all forms agree, time them, and return the row of a case.

    Where the reference is the convolution alone, what every form adds to its time is given too.
    """
    forms = {"baseline": case.baseline, "ours": case.ours, **case.others}
    with torch.inference_mode():
        expected = case.baseline(case.example)
        for name, form in forms.items():
            assert_close(form(case.example), expected, rtol=1e-3, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}")
    timed = measure_latency({**forms, **case.unlike}, case.example, rounds=rounds, warmup=5, threads=1)
    reference = timed[case.reference]
    compared = {name: latency for name, latency in timed.items() if name != case.reference}
    speedups = {name: asdict(paired_ratio(reference, latency)) for name, latency in compared.items()}
    overhead = {name: latency.median_s - reference.median_s for name, latency in compared.items()}
    return {
        "case": case.name,
        "forms": {
            name: {"median_s": latency.median_s, "q25_s": latency.q25_s, "q75_s": latency.q75_s}
            for name, latency in timed.items()
        },
        "reference": case.reference,
        "times_faster_than_reference": speedups,
        **({"overhead_s": overhead} if case.reference == "alone" else {}),
        "target": case.target,
        "meets_target": {
            name: speedups[name]["median"] >= case.target for name in ("ours", "compiled") if name in speedups
        },
    }


def table(section: str, rows: list[dict[str, Any]]) -> Table:
    """Return the rows for people."""
    result = Table(title=f"{section}: {(SECTIONS[section].__doc__ or '').splitlines()[0]}")
    for heading in ("Case", "Form", "Median (ms)", "Quartiles (ms)", "Times faster", "Quartiles"):
        result.add_column(heading, justify="left" if heading in {"Case", "Form"} else "right")
    for row in rows:
        for name, times in row["forms"].items():
            ratio = row["times_faster_than_reference"].get(name)
            result.add_row(
                row["case"] if name == "baseline" else "",
                name,
                f"{1e3 * times['median_s']:.3f}",
                f"{1e3 * times['q25_s']:.3f} to {1e3 * times['q75_s']:.3f}",
                f"{ratio['median']:.2f}" if ratio else "",
                f"{ratio['q25']:.2f} to {ratio['q75']:.2f}" if ratio else "",
            )
    return result


def main(
    section: Annotated[str, typer.Option(help="One of the sections; all by default.")] = "",
    rounds: Annotated[int, typer.Option(min=1, help="Timed samples of each form.")] = 50,
    compiled: Annotated[bool, typer.Option("--compiled/--eager", help="Also time torch.compile's forms.")] = True,
    quick: Annotated[bool, typer.Option("--quick", help="Few rounds, nothing compiled, nothing written.")] = False,
) -> None:
    """Time the forms of each operator."""
    if section and section not in SECTIONS:
        raise typer.BadParameter(f"unknown section {section!r}: {nearest(section, SECTIONS)}", param_hint="--section")
    torch.manual_seed(0)
    for name in [section] if section else list(SECTIONS):
        rows = [run(case, 5 if quick else rounds) for case in SECTIONS[name](compiled and not quick)]
        if not rows:
            continue
        Console().print(table(name, rows))
        if not quick:
            settings = {"rounds": rounds, "threads": 1, "mode": "inference"}
            Console().print(f"Written to {write_results(f'operators_{name}', {'settings': settings, 'rows': rows})}")


if __name__ == "__main__":
    typer.run(main)
