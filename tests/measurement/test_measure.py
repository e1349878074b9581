"""The verb: one record of everything, from a network that is left as found."""

import copy
import json
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leanconv.errors import UserError
from leanconv.measurement import bytes_moved, count_macs, count_params, measure, peak_memory


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


def state_of(model: nn.Module) -> dict[str, Any]:
    """Everything about a network that measuring might change."""
    tensors = model.state_dict(keep_vars=True).values()
    return {
        "modes": [module.training for module in model.modules()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "tensors": [(id(t), t.data_ptr(), t.dtype, t.stride(), t._version) for t in tensors],
        "grads": [(p.requires_grad, None if p.grad is None else p.grad.tolist()) for p in model.parameters()],
        "values": {name: value.tolist() for name, value in model.state_dict().items()},
    }


def test_totals_are_those_of_the_single_functions() -> None:
    model, size = network(), (2, 3, 9, 9)
    report = measure(model, size)
    assert report.params == count_params(model) == 216 + 16 + 45
    assert report.macs == count_macs(model, size) == 2 * (216 * 81 + 40)
    assert report.bytes_moved == bytes_moved(model, size)
    assert report.peak_memory == peak_memory(model, size)
    assert report.weight_memory == 4 * (216 + 16 + 45 + 16) + 8
    assert report.layers[1].output_shape == (2, 8, 9, 9)
    assert (report.model, report.input_shapes, report.dtype) == ("Sequential", (size,), "float32")
    assert report.latency is report.roofline is report.floor_s is report.achieved_gbs is None


def test_latency_and_roofline() -> None:
    report = measure(network(), (2, 3, 9, 9), latency=True, roofline=True, threads=1, rounds=3)
    assert report.latency is not None
    assert report.roofline is not None
    assert (report.latency.rounds, report.latency.batch, report.latency.threads) == (3, 2, 1)
    assert report.floor_s == report.roofline.floor_s(report.macs, report.bytes_moved)
    assert report.floor_share == report.floor_s / report.latency.median_s
    assert report.achieved_gflops == pytest.approx(2e-9 * report.macs / report.latency.median_s)
    assert report.achieved_gbs == pytest.approx(1e-9 * report.bytes_moved / report.latency.median_s)
    record = json.loads(report.to_json())
    assert record["latency"]["median_s"] == report.latency.median_s
    assert record["roofline"]["peak_gflops"] == report.roofline.peak_gflops
    assert record["floor_s"] == report.floor_s
    assert record["layers"][1]["macs"] == 2 * 216 * 81
    assert {"device", "cpu", "threads", "python", "torch", "leanconv", "date"} <= record["environment"].keys()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"latency": True, "rounds": 1},
        {"dtype": torch.float64, "latency": True, "rounds": 1},
        {"channels_last": True},
    ],
)
def test_the_network_is_left_as_found(options: dict[str, Any]) -> None:
    model = network()
    model(torch.rand(2, 3, 9, 9)).sum().backward()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[5].register_forward_hook(lambda *_: None)
    before, random_state = copy.deepcopy(state_of(model)), torch.get_rng_state()
    measure(model, (2, 3, 9, 9), **options)
    assert state_of(model) == before
    assert torch.equal(torch.get_rng_state(), random_state)


def test_the_network_is_left_as_found_after_a_pass_on_real_data_and_after_a_failure() -> None:
    class Looking(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            assert x.isfinite().all().item()
            return super().forward(x)

    model = Looking(*network())
    before = copy.deepcopy(state_of(model))
    assert measure(model, (2, 3, 9, 9)).macs == 2 * (216 * 81 + 40)
    with pytest.raises(UserError):
        measure(model, (2, 1, 9, 9))
    assert state_of(model) == before


def test_dtype_and_layout() -> None:
    model = network()
    single, double = measure(model, (1, 3, 9, 9)), measure(model, (1, 3, 9, 9), dtype=torch.float64)
    assert double.dtype == "float64"
    assert double.bytes_moved == 2 * single.bytes_moved
    assert double.macs == single.macs
    assert measure(model.half(), (1, 3, 9, 9)).dtype == "float16"


def test_size_comes_from_the_network_where_it_says() -> None:
    model = network()
    assert measure(model).input_shapes == ((1, 3, 32, 32),)
    model.input_size = (3, 9, 9)  # type: ignore[assignment]
    model.config = {"name": "tiny", "kwargs": {}}  # type: ignore[assignment]
    report = measure(model)
    assert (report.model, report.input_shapes) == ("tiny", ((1, 3, 9, 9),))


def test_several_inputs_of_any_type() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(7, 4)

        def forward(self, tokens: Tensor, x: Tensor) -> dict[str, Tensor]:
            return {"product": self.embedding(tokens) @ x}

    report = measure(Two(), example=[torch.tensor([1, 2, 3]), torch.rand(4, 5)])
    assert report.macs == 3 * 4 * 5
    assert report.layers[0].output_shape == (3, 5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"input_size": (1, 1, 9, 9)},
            "(1, 1, 9, 9) does not fit the network: its first layer '0' (Conv2d) expects (N, 3, H, W)",
        ),
        ({"input_size": (3, 9, 9)}, "`input_size` (3, 9, 9) has no batch axis: (1, 3, 9, 9) would be"),
        ({"input_size": (1, 3)}, "first layer '0' (Conv2d) expects (N, 3, H, W)"),
        ({"input_size": (1, 3, 0, 9)}, "`input_size` must be positive integers with the batch first"),
        ({"input_size": "1,3,9,9"}, "`input_size` must be positive integers"),
        ({"input_size": 32}, "`input_size` must be positive integers"),
        ({"example": []}, "`example` must be a tensor or a sequence of tensors"),
        ({"example": [torch.rand(1, 3, 9, 9)] * 2}, "the network: Sequential.forward() takes 2 positional arguments"),
        ({"input_size": (1, 3, 9, 9), "example": torch.rand(1)}, "give one of them"),
        ({"rounds": 0}, "`rounds` must be a positive integer, got 0"),
        ({"warmup": True}, "`warmup` must be a positive integer, got True"),
        ({"threads": 0}, "`threads` must be a positive integer, got 0"),
        ({"device": "abacus"}, "`device` 'abacus' is not available, this machine has cpu"),
        ({"dtype": torch.int64}, "`dtype` must be a floating-point torch.dtype"),
        ({"input_size": (1, 3, 10**8, 10**8)}, "is too large for the memory of this machine"),
    ],
)
def test_mistakes(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        measure(network(), **arguments)
    assert "\n" not in str(caught.value)


def test_misfit_inside_the_network_names_the_layer() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(10, 2))
    with pytest.raises(UserError, match=r"in layer '2' \(Linear\); its first layer '0' \(Conv2d\) expects"):
        measure(model, (1, 3, 9, 9))


def test_defects_of_the_network_are_not_blamed_on_the_user() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return self.missing(x)  # type: ignore[no-any-return, operator]

    with pytest.raises(AttributeError, match="missing"):
        measure(Broken())
