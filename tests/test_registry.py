import pytest

from leanconv.errors import UserError
from leanconv.registry import Registry


def test_registers_lists_and_refuses() -> None:
    shapes = Registry[type]("shape")

    @shapes.register
    class circle:  # noqa: N801
        pass

    shapes.named("square")(int)
    assert shapes["circle"] is circle
    assert list(shapes) == ["circle", "square"]
    assert len(shapes) == 2
    assert "square" in shapes
    assert shapes.names("s*") == ["square"]
    with pytest.raises(KeyError, match="square"):
        shapes.register(float, "square")
    with pytest.raises(UserError, match="Unknown shape 'circel': did you mean 'circle'"):
        shapes["circel"]
