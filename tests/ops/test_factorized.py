"""What the CP, Tucker and tensor-train convolutions promise alike."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from leanconv.errors import UserError
from leanconv.ops import OPERATORS
from leanconv.ops.factorized import FactorizedConv
from leanconv.ops.structured import CONV

FORMS = ("CPConv", "TuckerConv", "TensorTrainConv")
every_form = pytest.mark.parametrize("form", FORMS)


def producers(operator: FactorizedConv) -> list[torch.Tensor]:
    """The weights whose outputs are the components, ``(groups, components, inputs, …)``."""
    weights = [conv.weight.data.unflatten(0, (operator.groups, -1)) for conv in operator.convolutions()]
    name = type(operator).__name__
    return weights[:1] if name.startswith("CP") else [weights[0], weights[-2]] if "Tucker" in name else weights[:-1]


def make(form: str, *args: Any, dims: int = 2, **kwargs: Any) -> FactorizedConv:
    operator = OPERATORS[f"{form}{dims}d"](*args, **kwargs).double()
    assert isinstance(operator, FactorizedConv)
    return operator


@every_form
@settings(max_examples=15, deadline=None)
@given(
    dims=st.integers(1, 3),
    groups=st.sampled_from([1, 2]),
    outs=st.sampled_from([2, 6]),
    bias=st.booleans(),
    mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    stride=st.lists(st.integers(1, 2), min_size=3, max_size=3),
    dilation=st.integers(1, 2),
)
def test_any_convolution_is_exact_at_full_rank(
    form: str, dims: int, groups: int, outs: int, bias: bool, mode: str, stride: list[int], dilation: int
) -> None:
    conv = CONV[dims](
        4, outs, 3, tuple(stride[:dims]), 1, dilation, groups, bias, padding_mode=mode, dtype=torch.float64
    )
    fitted = OPERATORS[f"{form}{dims}d"].from_dense(conv)
    x = torch.randn(2, 4, *[6, 7, 5][:dims], dtype=torch.float64)
    assert_close(fitted(x), conv(x), rtol=1e-10, atol=1e-10)


@every_form
def test_even_kernels_padded_to_the_same_size_are_exact(form: str) -> None:
    conv = nn.Conv2d(3, 4, (4, 2), padding="same", dilation=(1, 3), dtype=torch.float64)
    fitted = OPERATORS[f"{form}2d"].from_dense(conv)
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    assert_close(fitted(x), conv(x), rtol=1e-10, atol=1e-10)


@every_form
def test_fit_is_reproducible_and_keeps_dtype_and_mode(form: str) -> None:
    conv = nn.Conv2d(8, 6, 3, dtype=torch.bfloat16).eval()
    first, second = (OPERATORS[f"{form}2d"].from_dense(conv, rank=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert {parameter.dtype for parameter in first.parameters()} == {torch.bfloat16}
    assert not first.training
    assert conv.bias is not None
    assert first.convolutions()[-1].bias.data_ptr() != conv.bias.data_ptr()


@every_form
@pytest.mark.parametrize("rank", [2, 5])
def test_outputs_start_with_the_variance_of_the_dense_convolution(form: str, rank: int) -> None:
    """A fan-in rule for the whole chain: E[y²] is x² / 3 for the default of torch, whatever the ranks."""
    x = torch.randn(4, 16, 12, 12, dtype=torch.float64)
    squares = [
        make(form, 16, 12, 3, bias=False, rank=(rank, rank, 1, 2) if form == "TuckerConv" else rank)(x).square().mean()
        for _ in range(300)
    ]
    assert_close(torch.stack(squares).mean(), torch.tensor(1 / 3, dtype=torch.float64), rtol=0.25, atol=0)


@every_form
@pytest.mark.parametrize("groups", [1, 2])
def test_component_norm_is_that_of_the_kernel_with_the_other_components_removed(form: str, groups: int) -> None:
    operator = make(form, 6, 8, 3, groups=groups, rank=(2, 3, 2, 3) if form == "TuckerConv" else 2, bias=False)
    for component, norms in enumerate(operator.component_norms()):
        assert norms.shape[0] == groups
        for kept in range(norms.shape[1]):
            alone = make(form, 6, 8, 3, groups=groups, rank=operator.rank, bias=False)
            alone.load_state_dict(operator.state_dict())
            weight = producers(alone)[component]
            weight *= torch.eye(norms.shape[1])[kept].view(1, -1, *[1] * (weight.dim() - 2))
            kernel = alone.dense().weight.unflatten(0, (groups, -1)).flatten(1)
            assert_close(norms[:, kept], kernel.norm(dim=1))


@every_form
def test_penalty_ignores_how_scale_is_shared_between_factors(form: str) -> None:
    operator = make(form, 6, 8, 3, rank=2)
    before, x = operator.sparsity().item(), torch.randn(1, 6, 5, 5, dtype=torch.float64)
    y = operator(x)
    first, second = operator.convolutions()[:2]
    with torch.no_grad():
        first.weight[1] *= 1000
        (second.weight if second.groups > 1 else second.weight.transpose(0, 1))[1] /= 1000
    assert_close(operator(x), y)
    assert operator.sparsity().item() == pytest.approx(before)


@every_form
def test_penalty_has_finite_gradients_where_components_are_zero(form: str) -> None:
    operator = make(form, 6, 8, 3, rank=3)
    nn.init.zeros_(operator.convolutions()[0].weight)
    operator.sparsity().backward()
    assert all(p.grad.isfinite().all() for name, p in operator.named_parameters() if "bias" not in name)


@every_form
@pytest.mark.parametrize("groups", [1, 2])
def test_pruning_drops_exactly_what_carries_nothing(form: str, groups: int) -> None:
    operator = make(form, 8, 12, 3, 2, 1, groups=groups, rank=3, padding_mode="reflect").eval()
    dropped = {0: [1], 1: [0, 2]}  # groups keep as many as the one that needs most
    for weight in producers(operator):
        for group in range(groups):
            weight[group, dropped[group]] = 0
    pruned = operator.prune(threshold=1e-6)
    x = torch.randn(2, 8, 7, 6, dtype=torch.float64)
    assert_close(pruned(x), operator(x))
    assert all(norms.shape == (groups, 2) for norms in pruned.component_norms())
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in operator.parameters())
    assert not pruned.training
    assert pruned.prune(threshold=1e-6).rank == pruned.rank


@pytest.mark.parametrize("form", ["TuckerConv", "TensorTrainConv"])
def test_pruning_sees_through_components_that_repeat_each_other(form: str) -> None:
    operator = make(form, 8, 12, 3, rank=3)
    for weight in producers(operator):
        weight[:, 1] = -2 * weight[:, 0]
    pruned = operator.prune(threshold=1e-6)
    x = torch.randn(2, 8, 7, 6, dtype=torch.float64)
    assert_close(pruned(x), operator(x))
    assert all(norms.shape == (1, 2) for norms in pruned.component_norms())


@pytest.mark.parametrize("form", ["TuckerConv", "TensorTrainConv"])
def test_penalty_is_the_nuclear_norm_at_best(form: str) -> None:
    conv = nn.Conv2d(8, 12, 3, bias=False, dtype=torch.float64)
    for operator, slack in ((OPERATORS[f"{form}2d"].from_dense(conv, rank=3), 1.05), (make(form, 8, 12, 3, rank=3), 9)):
        first, *_, last = operator.component_norms()
        kernel = operator.dense().weight
        for norms, unfolded in ((first, kernel.transpose(0, 1).flatten(1)), (last, kernel.flatten(1))):
            nuclear = torch.linalg.matrix_norm(unfolded, "nuc")
            assert nuclear * (1 - 1e-9) <= norms.sum() <= nuclear * slack


@every_form
def test_pruning_keeps_factors_of_axes(form: str) -> None:
    operator = make(form, 5, 6, 3, rank=(3, 2, 2, 1) if form == "TuckerConv" else 3)
    strong = make(form, 5, 6, 3, rank=operator.rank)
    strong.load_state_dict(operator.state_dict())
    strong.convolutions()[0].weight.data[1] = 1e-9
    x = torch.randn(2, 5, 7, 6, dtype=torch.float64)
    pruned = strong.prune()
    assert_close(pruned(x), strong(x), rtol=1e-6, atol=1e-6)
    if form == "TuckerConv":
        assert pruned.rank == (2, 2, 2, 1)


@pytest.mark.parametrize(("form", "left"), [("TuckerConv", 0), ("TensorTrainConv", 1)])
def test_whole_modes_have_no_factor_and_no_penalty(form: str, left: int) -> None:
    """At full rank only the channels between the two axes of the tensor train are not those of the layer itself."""
    operator = make(form, 3, 4, 3, rank=99)
    assert len(operator.convs) == left + 1
    assert len(operator.component_norms()) == left
    assert (operator.sparsity() > 0) == bool(left)
    assert operator.prune(threshold=0).rank == operator.rank


@every_form
def test_lasso_finds_the_rank_of_the_task(form: str) -> None:
    """Trained on the outputs of a smaller operator, the penalised one falls back to about its size."""
    teacher = make(form, 6, 8, 3, rank=1, bias=False)
    teacher.convolutions()[0].weight.data *= 3 / teacher.dense().weight.norm()
    student = make(form, 6, 8, 3, rank=4, bias=False)
    optimizer = torch.optim.Adam(student.parameters(), 0.02)
    for step in range(400):
        x = torch.randn(16, 6, 5, 5, dtype=torch.float64)
        loss = (student(x) - teacher(x)).square().mean() + 0.02 * student.sparsity()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == 300:
            optimizer.param_groups[0]["lr"] = 0.002
    pruned = student.prune(threshold=0.05)
    assert all(norms.shape == (1, 1) for norms in pruned.component_norms())
    error = (pruned.dense().weight - teacher.dense().weight).norm() / teacher.dense().weight.norm()
    assert error < 0.1


@every_form
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("padding", ["same", 1])
def test_folded_chain_equals_the_operator_with_fewer_convolutions(form: str, dims: int, padding: Any) -> None:
    operator = make(form, 6, 8, 3, 1, padding, groups=2, rank=2, dims=dims, padding_mode="circular").eval()
    folded = operator.folded()
    x = torch.randn(2, 6, *[7, 6, 5][:dims], dtype=torch.float64)
    assert_close(folded(x), operator(x))
    assert all(type(conv) is CONV[dims] for conv in folded)
    assert len(folded) <= (3 if form == "CPConv" else len(operator.convs))
    assert not folded.training
    nn.init.zeros_(folded[0].weight)
    assert operator.convolutions()[0].weight.any()


@every_form
def test_parameters_and_macs_follow_the_formula(form: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    ins, outs, rank, (kh, kw) = 32, 48, 6, (3, 5)
    operator = make(form, ins, outs, (kh, kw), padding="same", rank=rank, bias=False)
    weights = {
        "CPConv": rank * (ins + outs + kh + kw),
        "TuckerConv": ins * rank + rank * rank * kh * kw + rank * outs,
        "TensorTrainConv": ins * rank + rank * rank * (kh + kw) + rank * outs,
    }[form]
    assert sum(p.numel() for p in operator.parameters()) == weights
    with FlopCounterMode(display=False) as counter:
        operator(torch.randn(1, ins, 9, 7, dtype=torch.float64))
    assert counter.get_total_flops() == 2 * weights * 9 * 7


@every_form
@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"rank": 0}, "`rank`.*at least 1, got 0"),
        ({"rank": -3}, "`rank`.*at least 1"),
        ({"rank": 0.5}, "`rank`.*integer.*0.5"),
        ({"rank": (2, 2, 2, 2, 2)}, "`rank`"),
        ({"groups": 3}, "`groups` must divide `in_channels` = 4, got 3; 2 would work"),
        ({"kernel_size": (3, 3, 3)}, "`kernel_size`"),
        ({"stride": (1, 0)}, "`stride`"),
        ({"padding_mode": "mirror"}, "`padding_mode`"),
        ({"out_channels": 0}, "`out_channels`"),
    ],
)
def test_wrong_arguments_are_named(form: str, kwargs: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        OPERATORS[f"{form}2d"](**{"in_channels": 4, "out_channels": 4, "kernel_size": 3, "rank": 2, **kwargs})


@every_form
def test_a_convolution_with_other_axes_is_refused(form: str) -> None:
    with pytest.raises(UserError, match="kernel_size"):
        OPERATORS[f"{form}2d"].from_dense(nn.Conv1d(4, 4, 3), rank=2)


@every_form
@pytest.mark.parametrize("threshold", [-0.1, 1.0])
def test_threshold_is_a_fraction(form: str, threshold: float) -> None:
    with pytest.raises(UserError, match="`threshold`"):
        make(form, 4, 4, 3, rank=2).prune(threshold)


@every_form
def test_ranks_above_the_full_ones_are_clamped(form: str) -> None:
    operator = make(form, 4, 6, 3, rank=10**6)
    assert operator.rank == {"CPConv": 36, "TuckerConv": (4, 6, 3, 3), "TensorTrainConv": (4, 12, 6)}[form]
    x = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    assert operator(x).isfinite().all()


@every_form
def test_inputs_without_a_batch_are_taken_as_by_torch(form: str) -> None:
    operator = make(form, 4, 6, 3, rank=(3, 2, 2, 1) if form == "TuckerConv" else 2)
    x = torch.randn(4, 5, 7, dtype=torch.float64)
    assert_close(operator(x), operator(x.unsqueeze(0)).squeeze(0))


@every_form
def test_transposed_convolutions_are_refused(form: str) -> None:
    with pytest.raises(UserError, match=r"`conv`.*ConvTranspose2d"):
        OPERATORS[f"{form}2d"].from_dense(nn.ConvTranspose2d(4, 4, 3), rank=2)


@every_form
def test_axis_convolutions_act_along_their_axis(form: str) -> None:
    operator = make(form, 6, 6, (3, 5), rank=(2, 2, 2, 4) if form == "TuckerConv" else 2)
    assert [operator.axis_conv(axis).kernel_size for axis in (0, 1)] == [(3, 1), (1, 5)]
    with pytest.raises(UserError, match="`axis`"):
        operator.axis_conv(2)
