"""Latency: how it is measured; what comes out is checked only where no noise can change it."""

import gc
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.measurement import Latency, measure_latency, paired_ratio


class Probe(nn.Module):
    """Notes under which conditions it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.seen: set[tuple[bool, ...]] = set()

    def forward(self, x: Tensor) -> Tensor:
        layouts = [tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (x, self.conv.weight)]
        self.seen.add((self.training, torch.is_inference_mode_enabled(), *layouts))
        return self.conv(x)


X = torch.zeros(2, 3, 8, 8)


def test_record() -> None:
    latency = measure_latency({"net": Probe()}, X, rounds=5, threads=1)["net"]
    assert 0 < latency.q25_s <= latency.median_s <= latency.q75_s
    assert (latency.rounds, latency.batch, latency.threads) == (5, 2, 1)
    assert (latency.device, latency.dtype, latency.channels_last) == ("cpu", "float32", False)
    assert latency.versions["torch"] == torch.__version__
    assert len(latency.samples_s) == 5
    # A sample of a network this small is many passes.
    assert latency.calls > 1
    assert Latency(**json.loads(json.dumps(asdict(latency)))) == latency


def test_conditions_and_what_is_left() -> None:
    network = Probe()
    network.conv.eval()
    threads = torch.get_num_threads()
    measure_latency({"net": network}, X, rounds=1, threads=threads + 1)
    assert network.seen == {(False, True, False, False)}
    assert network.training
    assert not network.conv.training
    assert torch.get_num_threads() == threads
    assert gc.isenabled()


def test_channels_last_runs_a_copy() -> None:
    network, seen = Probe(), []
    network.forward = lambda x: seen.append(x.is_contiguous(memory_format=torch.channels_last))  # type: ignore[assignment]
    latencies = measure_latency({"a": network, "b": network}, X, rounds=1, channels_last=["b"])
    assert {name: latency.channels_last for name, latency in latencies.items()} == {"a": False, "b": True}
    assert set(seen) == {False, True}
    assert network.conv.weight.is_contiguous()


def test_rounds_are_interleaved() -> None:
    order: list[str] = []

    def sleeper(name: str, seconds: float) -> Callable[[Tensor], None]:
        def call(x: Tensor) -> None:
            order.append(name)
            time.sleep(seconds)

        return call

    rounds, warmup = 8, 2
    models = {"a": sleeper("a", 0.006), "b": sleeper("b", 0.012), "c": sleeper("c", 0.006)}
    latencies = measure_latency(models, X, rounds=rounds, warmup=warmup)
    # After warm-up and two calls each to find how many passes fill a sample (here one), every round has all three.
    timed = order[len(models) * (warmup + 2) :]
    triples = [tuple(timed[start : start + 3]) for start in range(0, len(timed), 3)]
    assert len(triples) == rounds
    assert all(sorted(triple) == ["a", "b", "c"] for triple in triples)
    assert len(set(triples)) > 1
    assert all(latency.calls == 1 for latency in latencies.values())
    assert paired_ratio(latencies["b"], latencies["a"]).median > 1.2


def test_paired_ratio_cancels_what_slows_both() -> None:
    latency = Latency(0, 0, 0, 4, 1, 1, "cpu", "float32", {}, samples_s=(1.0, 10.0, 2.0, 4.0))
    slower = replace(latency, samples_s=(2.0, 20.0, 4.0, 12.0))
    ratio = paired_ratio(slower, latency)
    assert (ratio.q25, ratio.median, ratio.q75, ratio.rounds) == (2.0, 2.0, 2.25, 4)
    with pytest.raises(UserError, match="measured together, but have 3 and 4"):
        paired_ratio(replace(latency, samples_s=(1.0, 2.0, 3.0)), latency)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"rounds": 0}, "`rounds` must be a positive integer, got 0"),
        ({"warmup": 0}, "`warmup` must be a positive integer, got 0"),
        ({"threads": -1}, "`threads` must be a positive integer, got -1"),
        ({"rounds": 2.5}, "got 2.5"),
        ({"channels_last": ["nt"]}, "names 'nt', which is not measured: did you mean 'net'"),
        ({"example_input": torch.zeros(1, 1, 8, 8)}, r"first layer 'conv' \(Conv2d\) expects \(N, 3, H, W\)"),
        ({"models": {}}, "`models` must name at least one"),
    ],
)
def test_mistakes(arguments: dict[str, object], sentence: str) -> None:
    network = Probe()
    with pytest.raises(UserError, match=sentence):
        measure_latency(**{"models": {"net": network}, "example_input": X, **arguments})  # type: ignore[arg-type]
    assert network.training
