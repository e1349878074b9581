import pytest
from counting import counts

from leanconv.errors import UserError
from leanconv.models import create_model

PHOTO = (1, 3, 224, 224)


@pytest.mark.parametrize(("bias", "extra"), [(True, 2_530_992), (False, 2_514_944)])
def test_what_the_attention_of_resnet50_costs(bias: bool, extra: int) -> None:
    """28,088,024 parameters and 4,091,699,200 MACs with biases: the published network, strided on the 3x3."""
    plain, with_attention = counts("resnet50", PHOTO), counts("se_resnet50", PHOTO, attention_bias=bias)
    assert with_attention[0] - plain[0] == extra
    assert with_attention[1] == 4_091_699_200
    if bias:
        assert with_attention[0] == 28_088_024


def test_reduction_below_one_is_refused() -> None:
    with pytest.raises(UserError, match=r"`reduction`.* 16 would work"):
        create_model("se_resnet18", reduction=0)
