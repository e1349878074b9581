import dataclasses
from pathlib import Path

import pytest

from leanconv.errors import UserError
from leanconv.training import Recipe, load_recipe

SHIPPED = ("ran_cifar", "resnet_cifar", "digits_demo")


def test_defaults_are_the_recipe_of_the_paper_file() -> None:
    recipe = load_recipe("ran_cifar")
    assert dataclasses.replace(recipe, augment={}) == Recipe()
    assert (recipe.optimizer, recipe.lr, recipe.momentum, recipe.weight_decay) == ("sgd", 0.1, 0.9, 1e-4)
    assert (recipe.epochs, recipe.batch_size, recipe.warmup_epochs) == (150, 128, 10)
    assert (recipe.nesterov, recipe.schedule, recipe.label_smoothing) == (False, "cosine", 0.1)
    assert recipe.augment == {"crop_padding": 4, "flip": True}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes_load_by_name_and_by_path(name: str) -> None:
    path = Path(__file__).parents[2] / "recipes" / f"{name}.yaml"
    assert load_recipe(name) == load_recipe(path)


def test_overrides_are_applied_in_order(tmp_path: Path) -> None:
    path = tmp_path / "short.yaml"
    path.write_text("epochs: 30\nlr: 1e-2\naugment: {flip: true, crop_padding: 4}\n")
    recipe = load_recipe(path, ["lr=0.5", "lr=2e-1", "augment.flip=false", "step_epochs=[3,4]", "compile=true"])
    assert (recipe.epochs, recipe.lr, recipe.compile) == (30, 0.2, True)
    assert recipe.augment == {"flip": False, "crop_padding": 4}
    assert recipe.step_epochs == [3, 4]
    assert type(recipe) is Recipe


def test_another_length_keeps_the_share_of_warm_up_and_steps() -> None:
    short = load_recipe("ran_cifar", epochs=3)
    assert (short.epochs, short.warmup_epochs) == (3, pytest.approx(0.2))
    assert load_recipe("resnet_cifar", epochs=20).step_epochs == [10, 15]
    assert load_recipe("ran_cifar", ["warmup_epochs=1"], epochs=3).warmup_epochs == 1


def test_unknown_keys_suggest_near_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'momentun'.*did you mean 'momentum'"):
        load_recipe(None, ["momentun=0.8"])
    path = tmp_path / "misspelt.yaml"
    path.write_text("lable_smoothing: 0.1\n")
    with pytest.raises(UserError, match=r"misspelt\.yaml.*'lable_smoothing'.*'label_smoothing'"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("epochs=0", "epochs=0 .*at least 1"),
        ("batch_size=0", "batch_size=0 .*at least 1"),
        ("lr=0", "lr=0.0 .*above 0"),
        ("lr=-1", "lr=-1.0 .*above 0"),
        ("lr=nan", "lr=nan .*above 0"),
        ("lr=inf", "lr=inf .*finite"),
        ("momentum=1", "momentum=1.0 .*below 1"),
        ("weight_decay=-1e-4", "weight_decay=-0.0001"),
        ("warmup_epochs=150", "warmup_epochs=150 .*epochs=150"),
        ("label_smoothing=1", "label_smoothing=1.0"),
        ("ema=1", "ema=1.0"),
        ("accumulate=0", "accumulate=0"),
        ("clip=-1", "clip=-1.0"),
        ("seed=-1", "seed=-1"),
        ("seed=99999999999999999999", "seed=9+ .*below 2"),
        ("evaluate_every=0", "evaluate_every=0"),
        ("step_epochs=[0]", "step_epochs"),
        ("optimizer=adam", "'adam' .*sgd or adamw"),
        ("schedule=linear", "'linear' .*cosine or step"),
        ("precision=fp16", "'fp16' .*fp32 or bf16"),
        ("epochs=ten", "epochs to 'ten', where a whole number"),
        ("lr=fast", "lr to 'fast', where a number"),
        ("nesterov=perhaps", "nesterov to 'perhaps', where true or false"),
        ("lr", "not of the form key=value"),
        ("lr=[", "'lr=\\[' cannot be read as YAML"),
        ("lr=${elsewhere}", "refers to something else in lr: .*elsewhere"),
    ],
)
def test_bad_values_are_named(override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load_recipe(None, [override])


def test_nesterov_needs_sgd_with_momentum() -> None:
    with pytest.raises(UserError, match="nesterov"):
        load_recipe(None, ["nesterov=true", "optimizer=adamw"])
    assert load_recipe(None, ["nesterov=true"]).nesterov


@pytest.mark.parametrize("text", ["- a\n- list\n", "lr: [unclosed\n"])
def test_files_that_are_no_mapping_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"bad\.yaml"):
        load_recipe(path)


def test_empty_file_means_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("")
    assert load_recipe(path) == Recipe()


def test_missing_recipe_suggests_shipped_ones() -> None:
    with pytest.raises(UserError, match=r"'ran_cifr'.*did you mean 'ran_cifar'"):
        load_recipe("ran_cifr")
