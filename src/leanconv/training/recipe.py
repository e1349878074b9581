"""What a training run is, exactly: one flat record read from YAML and overridden key by key."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leanconv.errors import UserError, nearest

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("cosine", "step")
PRECISIONS = ("fp32", "bf16")
TASKS = ("classify", "superres")
#: Values that recipes have had since later, left out at these defaults so that runs begun before go on.
LATER: dict[str, Any] = {"task": "classify", "clip_times_lr": 0.0, "superres": {}}

_TYPE_NAMES: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


@dataclass
class Recipe:
    """How a network is trained; the defaults are the recipe of residual axial networks on CIFAR.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images in one optimizer step, over all processes together.
        optimizer: ``"sgd"`` or ``"adamw"``.
        lr: Peak learning rate.
        momentum: Momentum of SGD; the first beta of AdamW.
        nesterov: Nesterov momentum (SGD only).
        weight_decay: Applied to every parameter.
        warmup_epochs: Length of the linear warm-up, which advances every step; 0 for none.
        schedule: ``"cosine"`` to zero after the warm-up, or ``"step"``.
        step_epochs: Epochs at whose beginning the ``"step"`` schedule multiplies the rate by ``step_factor``.
        step_factor: See ``step_epochs``.
        label_smoothing: Share of the target spread evenly over all classes.
        ema: Decay of the exponential moving average of the weights, 0 for none.
        accumulate: Parts in which a batch is passed through the network, to save memory.
        clip: Largest norm of the whole gradient, 0 for no clipping.
        clip_times_lr: Largest norm of the gradient times the current learning rate, 0 for no such clipping: the
            adjustable clipping of networks for super-resolution (Kim et al., 2016, arXiv 1511.04587, section 3.2).
        precision: ``"fp32"``, or ``"bf16"`` for autocast.
        channels_last: Keep weights and images in NHWC order.
        compile: Pass the network through ``torch.compile``.
        seed: Determines initial order, augmentation and dropout together with the epoch.
        augment: Changes to the data set's own augmentation, key by key.
        task: ``"classify"`` or ``"superres"``.
        superres: What :class:`~leanconv.training.superres.SuperResolve` is made with, key by key: ``loss``,
            ``patch_size``, ``patch_stride`` and ``patches`` (an epoch).
        evaluate_every: Epochs between two evaluations; the last epoch is always evaluated.
        log_every: Steps between two rows of the log.

    Raises:
        UserError: A value is out of range.
    """

    epochs: int = 150
    batch_size: int = 128
    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    warmup_epochs: float = 10.0
    schedule: str = "cosine"
    step_epochs: list[int] = field(default_factory=lambda: [100, 150])
    step_factor: float = 0.1
    label_smoothing: float = 0.1
    ema: float = 0.0
    accumulate: int = 1
    clip: float = 0.0
    precision: str = "fp32"
    channels_last: bool = True
    compile: bool = False
    seed: int = 0
    augment: dict[str, Any] = field(default_factory=dict)
    evaluate_every: int = 1
    log_every: int = 50
    task: str = "classify"
    clip_times_lr: float = 0.0
    superres: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, works, sentence in _RANGES:
            value = getattr(self, name)
            if not works(value):
                raise UserError(f"Recipe value {name}={value} does not work: {sentence}.")
        words = (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("precision", PRECISIONS), ("task", TASKS))
        for name, known in words:
            value = getattr(self, name)
            if value not in known:
                raise UserError(f"Recipe value {name}={value!r} is not known: it is {' or '.join(known)}.")
        if self.warmup_epochs >= self.epochs and self.warmup_epochs > 0:
            raise UserError(
                f"Recipe value warmup_epochs={self.warmup_epochs:g} leaves nothing of epochs={self.epochs} to "
                "train at the full rate: it must be smaller than epochs."
            )
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise UserError("Recipe value nesterov=true needs optimizer=sgd and a momentum above 0.")

    def to_dict(self) -> dict[str, Any]:
        """Return the values as plain, JSON-able objects, those in :data:`LATER` only where they differ from it."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if name not in LATER or value != LATER[name]}


def _at_least(bound: float) -> Callable[[float], bool]:
    return lambda value: value >= bound


_RANGES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("epochs", _at_least(1), "it must be at least 1"),
    ("batch_size", _at_least(1), "it must be at least 1"),
    ("lr", lambda value: 0 < value < float("inf"), "it must be above 0 and finite"),
    ("momentum", lambda value: 0 <= value < 1, "it must be at least 0 and below 1"),
    ("weight_decay", lambda value: 0 <= value < float("inf"), "it must be at least 0 and finite"),
    ("warmup_epochs", _at_least(0), "it must be at least 0"),
    ("step_epochs", lambda epochs: all(epoch >= 1 for epoch in epochs), "every epoch must be at least 1"),
    ("step_factor", lambda value: 0 < value <= 1, "it must be above 0 and at most 1"),
    ("label_smoothing", lambda value: 0 <= value < 1, "it must be at least 0 and below 1"),
    ("ema", lambda value: 0 <= value < 1, "it must be at least 0 (off) and below 1"),
    ("accumulate", _at_least(1), "it must be at least 1"),
    ("clip", _at_least(0), "it must be at least 0 (off)"),
    ("clip_times_lr", _at_least(0), "it must be at least 0 (off)"),
    ("seed", lambda value: 0 <= value < 2**63, "it must be at least 0 and below 2 to the power of 63"),
    ("evaluate_every", _at_least(1), "it must be at least 1"),
    ("log_every", _at_least(1), "it must be at least 1"),
)


def load_recipe(path: str | Path | None = None, overrides: Sequence[str] = (), *, epochs: int | None = None) -> Recipe:
    """Read a recipe from YAML and apply overrides.

    Args:
        path: A YAML file with keys of :class:`Recipe`, the name of a recipe that comes with the package
            (``"ran_cifar"``), or None for the defaults.
        overrides: Changes such as ``"lr=0.05"`` or ``"augment.flip=false"``, applied in order.
        epochs: Another length for the same recipe: warm-up and steps keep their share of it, where an override
            does not set them.

    Raises:
        UserError: The file is missing or not YAML, a key is unknown, or a value has the wrong type or range.
    """
    try:
        from omegaconf import OmegaConf
    except ImportError:
        raise UserError('Training needs the "train" extra: pip install "leanconv[train]"') from None

    merged = OmegaConf.structured(Recipe)
    if path is not None:
        merged = _merge(merged, _read_yaml(_find(path)), f"recipe file {path}")
    if epochs is not None:
        merged = _merge(merged, _rescaled(merged, epochs), f"length of {epochs} epochs")
    for override in overrides:
        merged = _merge(merged, _parsed(override), f"override {override!r}")
    values: dict[str, Any] = OmegaConf.to_container(merged, resolve=True)
    return Recipe(**values)


def _merge(recipe: Any, layer: Any, origin: str) -> Any:
    """Return the structured config ``recipe`` with the values of ``layer``, which comes from ``origin``."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    known = {entry.name: entry.type for entry in dataclasses.fields(Recipe)}
    for key in layer:
        if key not in known:
            raise UserError(f"The {origin} has the unknown key {key!r}: {nearest(str(key), known)}")
        try:
            value = layer[key]
        except OmegaConfBaseException as error:
            raise UserError(f"The {origin} refers to something else in {key}: {str(error).splitlines()[0]}.") from None
        try:
            recipe = OmegaConf.merge(recipe, {key: value})
        except OmegaConfBaseException:
            expected = _TYPE_NAMES.get(known[key], str(known[key]))
            raise UserError(f"The {origin} sets {key} to {value!r}, where {expected} is needed.") from None
    return recipe


def _parsed(override: str) -> Any:
    """Parse an override such as ``"lr=0.05"``, whose value is YAML."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    key, equals, _ = override.partition("=")
    if not key or not equals:
        raise UserError(f"Override {override!r} is not of the form key=value, for example lr=0.05.")
    try:
        return OmegaConf.from_dotlist([override])
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"Override {override!r} cannot be read as YAML: {reason}.") from None


def _rescaled(recipe: Any, epochs: int) -> dict[str, Any]:
    """Return the values that make a recipe last another number of epochs."""
    share = epochs / recipe.epochs
    return {
        "epochs": epochs,
        "warmup_epochs": recipe.warmup_epochs * share,
        "step_epochs": [max(1, round(epoch * share)) for epoch in recipe.step_epochs],
    }


def _recipe_folders() -> tuple[Path, ...]:
    """Where recipes that come with the package lie: in the wheel, and in a source checkout."""
    package = Path(__file__).resolve().parent.parent
    return package / "recipes", package.parent.parent / "recipes"


def _find(path: str | Path) -> Path:
    """Turn the name of a shipped recipe, or a path, into the path of a file that exists."""
    if Path(path).is_file():
        return Path(path)
    shipped = {file.stem: file for folder in _recipe_folders() for file in sorted(folder.glob("*.yaml"))}
    if str(path) in shipped:
        return shipped[str(path)]
    raise UserError(f"Recipe {str(path)!r} is neither a file nor the name of a recipe: {nearest(str(path), shipped)}")


def _read_yaml(path: Path) -> Any:
    """Read a YAML file whose top level is a mapping."""
    import yaml
    from omegaconf import DictConfig, OmegaConf

    try:
        content = OmegaConf.load(path)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"Recipe file {path} cannot be read as YAML: {reason}.") from None
    if not isinstance(content, DictConfig):
        raise UserError(f"Recipe file {path} is not a mapping of keys to values.")
    return content
