import numpy as np
import pytest
import torch

from imgcls.modeling import SigmoidLoss, SoftmaxLoss

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, -3.0]])


def softmax(x):
    return np.exp(x) / np.exp(x).sum(1, keepdims=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_by_hand(smoothing):
    labels = torch.tensor([0, 2])
    target = np.full((2, 3), smoothing / 3)
    target[[0, 1], [0, 2]] += 1 - smoothing
    expected = -(target * np.log(softmax(LOGITS.numpy()))).sum(1).mean()
    assert SoftmaxLoss(smoothing)(LOGITS, labels).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weight", [None, [3.0, 1.0, 0.5]])
def test_binary_cross_entropy_by_hand(weight):
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    p, y, w = 1 / (1 + np.exp(-LOGITS.numpy())), labels.numpy(), np.array(weight or [1.0] * 3)
    expected = -(w * y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    assert SigmoidLoss(weight)(LOGITS, labels).item() == pytest.approx(expected, rel=1e-5)


def test_probabilities():
    np.testing.assert_allclose(SoftmaxLoss().probabilities(LOGITS), softmax(LOGITS.numpy()), rtol=1e-5)
    np.testing.assert_allclose(SigmoidLoss().probabilities(LOGITS), 1 / (1 + np.exp(-LOGITS.numpy())), rtol=1e-5)


def test_extreme_logits_stay_finite():
    """A sigmoid followed by a logarithm would give infinity."""
    assert SigmoidLoss()(torch.tensor([[200.0, -200.0]]), torch.tensor([[0.0, 1.0]])).item() == pytest.approx(200)
    assert SoftmaxLoss()(torch.tensor([[200.0, -200.0]]), torch.tensor([1])).item() == pytest.approx(400)


@pytest.mark.parametrize(
    ("loss", "labels"), [(SoftmaxLoss(), torch.tensor([0, 2])), (SigmoidLoss([1.0, 2.0, 3.0]), torch.ones(2, 3))]
)
def test_half_precision_logits_under_autocast_give_a_float32_loss(loss, labels):
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(LOGITS.bfloat16(), labels)
    assert value.dtype == torch.float32 and torch.isfinite(value)


def test_pos_weight_is_not_saved_with_the_weights():
    assert not SigmoidLoss([1.0, 2.0]).state_dict()


def test_loss_of_each_image_has_no_smoothing_and_no_weight():
    labels, hot = torch.tensor([0, 2]), torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    single = SoftmaxLoss(0.3).per_image(LOGITS.half(), labels.int())
    assert single.dtype == torch.float32 and single.shape == (2,)
    assert single.mean().item() == pytest.approx(SoftmaxLoss()(LOGITS.half(), labels).item(), rel=1e-6)
    assert single[0] != single[1]
    several = SigmoidLoss([3.0, 1.0, 0.5]).per_image(LOGITS.half(), hot.bool())
    assert several.dtype == torch.float32 and several.shape == (2,)
    assert several.mean().item() == pytest.approx(SigmoidLoss()(LOGITS.half(), hot).item(), rel=1e-6)


def test_labels_that_do_not_fit_have_no_loss_and_are_left_to_the_evaluator():
    """Without the check, a GPU would stop the process at an index that is out of range."""
    loss = SoftmaxLoss().per_image(LOGITS.expand(4, 2, 3)[:, 0], torch.tensor([-1, 3, -100, 1]))
    assert loss.isnan().tolist() == [True, True, True, False]
    assert SoftmaxLoss().per_image(LOGITS, torch.ones(2, 3)).isnan().tolist() == [True, True]
    assert SigmoidLoss().per_image(LOGITS, torch.tensor([0, 1])).isnan().tolist() == [True, True]
    assert SigmoidLoss().per_image(LOGITS, torch.ones(2, 4)).isnan().tolist() == [True, True]
