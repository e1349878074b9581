"""The whole comparison on a data set made here, one epoch."""

from dataclasses import replace

import pytest
import torch

from leanconv.comparison import compare
from leanconv.comparison import engines as engines_module
from leanconv.comparison import run as run_module
from leanconv.data import ArraySplit, ImageData
from leanconv.deployment.onnx import ONNXRuntime
from leanconv.errors import UserError
from leanconv.measurement import count_macs
from leanconv.models import create_model
from leanconv.training import Recipe, load_weights

NAMES = ("ran26", "resnet26_cifar")
RECIPE = Recipe(epochs=1, batch_size=16, warmup_epochs=0, lr=0.02)


@pytest.fixture(scope="module", autouse=True)
def _quick():
    """Times are not looked at here, and several threads on tiny layers only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "ROUNDS", 2)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data() -> ImageData:
    def split(count, seed):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(count) % 3
        images = torch.randint(0, 60, (count, 1, 8, 8), generator=generator) + 90 * labels[:, None, None, None]
        return ArraySplit(images.to(torch.uint8), labels)

    return ImageData("shades", ("dark", "grey", "light"), 1, (8, 8), (0.5,), (0.3,), split(48, 1), split(18, 2))


class Calls(list):
    """Notes what a comparison reports of its runs."""

    def __call__(self, model, seed, run):
        self.append((model, seed, "begins" if run is None else "finished"))


@pytest.fixture(scope="module")
def first(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    calls = Calls()
    record = compare(NAMES, data, RECIPE, folder, width=2, seeds=2, threads=1, progress=False, on_run=calls)
    return folder, record, calls


def test_every_model_is_trained_with_every_seed(first):
    _, record, calls = first
    assert [entry.model for entry in record.entries] == list(NAMES)
    for entry in record.entries:
        assert [run.seed for run in entry.runs] == [0, 1]
        assert all(0 <= run.accuracy <= run.best_accuracy <= 1 and run.epochs == 1 for run in entry.runs)
    assert record.seeds == (0, 1)
    order = [(model, seed) for model, seed, what in calls if what == "begins"]
    assert order == [("ran26", 0), ("resnet26_cifar", 0), ("ran26", 1), ("resnet26_cifar", 1)]


def test_costs_are_those_of_the_models_on_these_images(first):
    _, record, _ = first
    for entry in record.entries:
        model = create_model(entry.model, num_classes=3, in_channels=1, base_width=2)
        assert entry.params == sum(parameter.numel() for parameter in model.parameters())
        assert entry.macs == count_macs(model, (1, 1, 8, 8))
        assert entry.latency.threads == 1
        assert entry.latency_s > 0
    assert record.baseline == "resnet26_cifar", "the one with most multiply-accumulates"


def test_finished_runs_are_not_repeated_and_others_are_added(first, data):
    folder, record, _ = first
    calls = Calls()
    again = compare(
        (*NAMES, "axial26"), data, RECIPE, folder, width=2, seeds=2, threads=1, progress=False, on_run=calls
    )
    assert {model for model, _, what in calls if what == "begins"} == {"axial26"}
    assert again["ran26"].runs == record["ran26"].runs


def test_an_interrupted_run_goes_on(data, tmp_path, monkeypatch):
    longer = replace(RECIPE, epochs=2)
    whole = compare(["ran26"], data, longer, tmp_path / "whole", width=2, seeds=1, progress=False)
    real_train = run_module.train

    def cut_short(model, data, recipe, folder, **options):
        def stop(_row):
            raise KeyboardInterrupt

        return real_train(model, data, recipe, folder, on_progress=stop, **options)

    monkeypatch.setattr(run_module, "train", cut_short)
    with pytest.raises(KeyboardInterrupt):
        compare(["ran26"], data, longer, tmp_path / "cut", width=2, seeds=1, progress=False)
    monkeypatch.setattr(run_module, "train", real_train)
    resumed = compare(["ran26"], data, longer, tmp_path / "cut", width=2, seeds=1, progress=False)
    assert resumed["ran26"].accuracies == whole["ran26"].accuracies
    assert resumed["ran26"].runs[0].loss == whole["ran26"].runs[0].loss


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 3}, r"width was 2, now 3"),
        ({"recipe": replace(RECIPE, lr=0.5, epochs=3)}, r"recipe\.epochs was 1, now 3; recipe\.lr was 0\.02, now 0\.5"),
    ],
)
def test_other_settings_in_the_folder_are_refused(first, data, changes, said):
    arguments = {"recipe": RECIPE, "width": 2, "progress": False} | changes
    with pytest.raises(UserError, match=said):
        compare(NAMES, data, output_dir=first[0], **arguments)


def test_engines_time_the_trained_networks_folded(first, data, monkeypatch):
    folded = []

    def noting_fold(model, **options):
        folded.append((model, options, torch.equal(model(x), trained(x))))
        return real_fold(model, **options)

    real_fold = engines_module.fold
    trained = create_model("ran26", num_classes=3, in_channels=1, base_width=2).eval()
    load_weights(trained, first[0] / "runs" / "ran26" / "seed0" / "last.safetensors")
    x = torch.randn(2, 1, 8, 8)
    monkeypatch.setattr(engines_module, "fold", noting_fold)
    engines = ["eager", "torch.export"]
    record = compare(["ran26"], data, RECIPE, first[0], width=2, seeds=1, threads=1, progress=False, engines=engines)
    assert record.engines == ("eager", "torch.export")
    assert all(times.median_s > 0 and times.rounds == 2 for times in record["ran26"].engines.values())
    assert [(options["input_size"], same) for _, options, same in folded] == 2 * [((1, 1, 8, 8), True)]


def test_a_missing_runtime_is_named_before_anything_is_trained(data, tmp_path, monkeypatch):
    monkeypatch.setattr(ONNXRuntime, "packages", ("onnxruntime_that_is_not_there",))
    with pytest.raises(UserError, match=r'pip install "leanconv\[deploy\]"'):
        compare(NAMES, data, RECIPE, tmp_path / "new", progress=False, engines=["onnxruntime"])
    assert not list(tmp_path.iterdir())


def test_another_first_seed_adds_runs(first, data):
    record = compare(["ran26"], data, replace(RECIPE, seed=1), first[0], width=2, seeds=2, progress=False)
    assert record.seeds == (1, 2)
    assert record["ran26"].runs[0] == first[1]["ran26"].runs[1]


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        ((), {}, "nothing to compare"),
        (("ran26", "ran26"), {}, "'ran26' 2 times"),
        (("ran26", "ran62"), {}, "did you mean 'ran26'"),
        (NAMES, {"seeds": 0}, "seeds=0 is out of range"),
        (NAMES, {"width": 0}, "must be a positive integer, got 0"),
        (NAMES, {"device": "abacus"}, "`device` 'abacus' is not available"),
        (NAMES, {"baseline": "resnet"}, "did you mean 'resnet26_cifar'"),
        (NAMES, {"engines": ["onnx"]}, "Engine 'onnx' is not known"),
        (NAMES, {"engines": ["eager", "eager"]}, "'eager' 2 times"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(data, tmp_path, names, options, said):
    with pytest.raises(UserError, match=said):
        compare(names, data, RECIPE, tmp_path / "new", progress=False, **{"width": 2, **options})
    assert not (tmp_path / "new").exists()


def test_divergence_names_model_and_seed(data, tmp_path):
    with pytest.raises(UserError, match=r"Training ran26 with seed 0 failed: .* is (nan|inf)"):
        compare(["ran26"], data, replace(RECIPE, lr=1e30, epochs=4), tmp_path, width=2, seeds=1, progress=False)
