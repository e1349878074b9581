import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, top_k_accuracy_score
from torch import nn
from toy_images import ToyNet, toy_data, toy_net

from leanconv.errors import UserError
from leanconv.training import evaluate


def _scores(model: ToyNet, images: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model.eval()((images / 255 - 0.25) / 0.25).double().softmax(1).numpy()


@pytest.mark.parametrize("batch_size", [5, 33, 256])
def test_metrics_agree_with_scikit_learn_for_any_batch_size(batch_size: int) -> None:
    model, data = toy_net(), toy_data()
    metrics = evaluate(model, data, batch_size=batch_size)
    scores, labels = _scores(model, data.test.images), data.test.labels.numpy()
    classes = list(range(7))
    assert metrics["loss"] == pytest.approx(log_loss(labels, scores, labels=classes), rel=1e-5)
    assert metrics["top1"] == pytest.approx(top_k_accuracy_score(labels, scores, k=1, labels=classes))
    assert metrics["top5"] == pytest.approx(top_k_accuracy_score(labels, scores, k=5, labels=classes))
    assert metrics["images"] == 33
    assert metrics["images_per_second"] > 0


def test_five_classes_have_no_top5() -> None:
    assert "top5" not in evaluate(toy_net(classes=5), toy_data(classes=5))


def test_the_training_split_can_be_evaluated_and_the_mode_is_kept() -> None:
    model = toy_net()
    assert evaluate(model.train(), toy_data(), split="train")["images"] == 96
    assert model.training


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"channels_last": True}])
def test_other_precision_and_layout_measure_the_same(options: dict[str, object]) -> None:
    model, data = toy_net(), toy_data()
    plain, other = evaluate(model, data), evaluate(model, data, **options)
    assert other["loss"] == pytest.approx(plain["loss"], rel=0.02)
    assert (other["loss"] == plain["loss"]) == ("precision" not in options)


def test_misfits_are_named() -> None:
    with pytest.raises(UserError, match=r"tells 5 classes apart and toy has 7.*num_classes=7"):
        evaluate(toy_net(classes=5), toy_data())
    with pytest.raises(UserError, match=r"does not take the images of toy, of shape \(1, 8, 8\)"):
        evaluate(toy_net(), toy_data(channels=1))
    gray = toy_net()
    gray.input_size = (1, 8, 8)
    with pytest.raises(UserError, match=r"1 channels and toy has 3.*in_channels=3"):
        evaluate(gray, toy_data())
    with pytest.raises(UserError, match="no classifier"):
        evaluate(nn.Conv2d(3, 7, 1), toy_data())
    with pytest.raises(UserError, match="split='validation'"):
        evaluate(toy_net(), toy_data(), split="validation")
    with pytest.raises(UserError, match="precision='fp16'"):
        evaluate(toy_net(), toy_data(), precision="fp16")
