"""Frame-wise losses against their formulas, frame by frame in numpy."""

import math

import numpy as np
import pytest
import torch

from returnn_lite.errors import ConfigError
from returnn_lite.losses.base import loss_names, make_loss
from returnn_lite.ops.cross_entropy import smoothed_cross_entropy
from returnn_lite.tensor import Dim, Spec, Tensor, batch_dim
from tests.losses.frames import CLASSES, LENGTHS, frames, labels, loss, normal, random_labels, softmax_frames, valid

V = 5
LOGITS = normal(3, 4, V)
TARGET = random_labels()
DENSE = torch.softmax(normal(3, 4, V, seed=7), -1)


def log_softmax(z):
    z = z.double().numpy()
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def summed(value):
    """Sum of value(b, t) over valid frames."""
    return sum(float(value(b, t)) for b, t in valid())


def close(found, expected):
    torch.testing.assert_close(float(found.detach()), float(expected), rtol=1e-5, atol=1e-5)


def log_p():
    return log_softmax(LOGITS)


def at_target(values):
    return lambda b, t: values[b, t, int(TARGET.data[b, t])]


def smoothed(e, gaussian=False):
    """Value per frame of label smoothing."""
    others = e / (V - 1)
    entropy = -((1 - e) * math.log(1 - e) + (V - 1) * others * math.log(others + 1e-20))

    def value(b, t):
        k = int(TARGET.data[b, t])
        weights = [1 - e if i == k else others for i in range(V)]
        if gaussian:
            weights = [math.exp(-0.5 * ((i - k) / (1 - e)) ** 2) / ((1 - e) * math.sqrt(2 * math.pi)) for i in range(V)]
        return -sum(w * log_p()[b, t, i] for i, w in enumerate(weights)) - entropy

    return value


CE = {
    "plain": ({}, lambda b, t: -at_target(log_p())(b, t)),
    "not fused": ({"use_fused": False}, lambda b, t: -at_target(log_p())(b, t)),
    "focal": (
        {"focal_loss_factor": 2.0},
        lambda b, t: -at_target(log_p())(b, t) * (1 - math.exp(at_target(log_p())(b, t))) ** 2,
    ),
    "smoothed": ({"label_smoothing": 0.1}, smoothed(0.1)),
    "gaussian": ({"label_smoothing": 0.1, "label_smoothing_gaussian": True}, smoothed(0.1, gaussian=True)),
    "bounded": ({"fake_upper_bound": 1.5}, lambda b, t: min(-at_target(log_p())(b, t), 1.5)),
}


@pytest.mark.parametrize("name", CE)
def test_cross_entropy(name):
    options, value = CE[name]
    close(loss("ce", **options).compute(softmax_frames(LOGITS), TARGET).value, summed(value))


def test_cross_entropy_of_logits_and_of_plain_probabilities():
    expected = summed(CE["plain"][1])
    close(loss("ce", input_type="logits").compute(frames(LOGITS), TARGET).value, expected)
    close(loss("ce").compute(frames(torch.softmax(LOGITS, -1)), TARGET).value, expected)


def test_cross_entropy_of_a_dense_target():
    expected = summed(lambda b, t: -(DENSE[b, t].double().numpy() * log_p()[b, t]).sum())
    target = frames(DENSE)
    close(loss("ce").compute(softmax_frames(LOGITS), target).value, expected)
    close(loss("ce").compute(frames(torch.softmax(LOGITS, -1)), target).value, expected)


def test_the_bound_hides_the_value_but_not_the_gradient():
    logits = LOGITS.clone().requires_grad_()
    bounded = loss("ce", fake_upper_bound=0.1).compute(softmax_frames(logits), TARGET).value
    plain = loss("ce").compute(softmax_frames(logits), TARGET).value
    close(bounded, 0.1 * sum(LENGTHS))
    torch.testing.assert_close(torch.autograd.grad(bounded, logits), torch.autograd.grad(plain, logits))


@pytest.mark.parametrize("options", [{}, {"focal_loss_factor": 2.0}, {"label_smoothing": 0.2}], ids=str)
def test_gradients_of_cross_entropy(options):
    def value(logits):
        return loss("ce", **options).compute(softmax_frames(logits), TARGET).value

    assert torch.autograd.gradcheck(value, LOGITS.double().requires_grad_())


def test_gradient_of_a_dense_target_is_that_of_a_distribution():
    logits, target = LOGITS.double().requires_grad_(), frames(DENSE.double())
    value = loss("ce").compute(softmax_frames(logits), target).value
    (grad,) = torch.autograd.grad(value, logits)
    expected = torch.zeros_like(grad)
    for b, t in valid():
        expected[b, t] = torch.softmax(logits[b, t], -1) - target.data[b, t]
    torch.testing.assert_close(grad, expected)


def test_mean_squared_error():
    target = normal(3, 4, V, seed=3)
    squares = ((LOGITS - target).double() ** 2).numpy()
    close(loss("mse").compute(frames(LOGITS), frames(target)).value, summed(lambda b, t: squares[b, t].mean()))
    one_hot = np.eye(V)[TARGET.data.numpy()]
    squares = (LOGITS.double().numpy() - one_hot) ** 2
    close(loss("mse").compute(frames(LOGITS), TARGET).value, summed(lambda b, t: squares[b, t].mean()))


def test_the_error_counts_frames_with_a_wrong_best_class():
    wrong = lambda target: summed(lambda b, t: int(LOGITS[b, t].argmax() != target(b, t)))  # noqa: E731
    expected = wrong(lambda b, t: int(TARGET.data[b, t]))
    for name in ("ce", "mse"):
        close(loss(name).compute(frames(torch.softmax(LOGITS, -1)), TARGET).error, expected)
    found = loss("ce").compute(softmax_frames(LOGITS), frames(DENSE))
    close(found.error, wrong(lambda b, t: int(DENSE[b, t].argmax())))


def test_as_is_sums_the_output_itself():
    value = loss("as_is").compute(frames(LOGITS), None)
    close(value.value, summed(lambda b, t: LOGITS[b, t].sum()))
    assert value.error is None
    scalar = Tensor(torch.tensor(3), Spec((), "int32"), {})
    assert float(loss("as_is").compute(scalar, None).value) == 3
    shown = loss("as_is", as_error=True).compute(scalar, None)
    assert shown.value is None and float(shown.error) == 3


@pytest.mark.parametrize("name", ["ce", "mse"])
def test_what_stands_behind_the_sequence_ends_does_not_count(name):
    values = {}
    for fill in (0.0, 30.0):
        logits, target = LOGITS.clone(), TARGET.data.clone()
        for b, n in enumerate(LENGTHS):
            logits[b, n:] = fill
            target[b, n:] = int(fill > 0)
        logits.requires_grad_()
        found = loss(name).compute(softmax_frames(logits), labels(target))
        values[fill] = (found.value.detach(), found.error, torch.autograd.grad(found.value, logits)[0])
    torch.testing.assert_close(values[0.0], values[30.0])
    assert not values[30.0][2][1, LENGTHS[1] :].any()


def test_without_a_time_axis_every_sequence_is_one_frame():
    output = Tensor(LOGITS[:, 0], Spec((batch_dim, CLASSES)), {})
    target = Tensor(TARGET.data[:, 0], Spec((batch_dim,), "int32", sparse_dim=CLASSES), {})
    found = loss("ce", input_type="logits").compute(output, target)
    close(found.value, sum(-at_target(log_p())(b, 0) for b in range(3)))


def test_norm_is_the_number_of_frames():
    target = random_labels()
    made = loss("ce")
    assert float(made.inverse_norm(softmax_frames(LOGITS), target)) == sum(LENGTHS)
    assert float(made.inverse_norm(softmax_frames(LOGITS), None)) == sum(LENGTHS)
    assert float(made.inverse_norm(Tensor(LOGITS[:, 0], Spec((batch_dim, CLASSES)), {}), None)) == 3
    assert float(made.inverse_norm(Tensor(torch.zeros(5), Spec((Dim(5, "x"),)), {}), None)) == 1


def test_errors():
    with pytest.raises(ConfigError, match='`input_type` must be "prob" or "logits", but is \'log\' instead'):
        loss("ce", input_type="log")
    with pytest.raises(ConfigError, match="unknown loss 'mce'; did you mean \"ce\""):
        make_loss("mce", {}, "network")
    with pytest.raises(ConfigError, match="loss 'mse' has no option 'scal'; did you mean \"scale\""):
        make_loss("mse", {"scal": 1}, "network")
    for name in ("ce", "mse"):
        with pytest.raises(ConfigError, match=f"`{name}` needs a target"):
            loss(name).compute(frames(LOGITS), None)
    assert {"ce", "mse", "as_is", "ctc", "edit_distance"} <= set(loss_names())


@pytest.mark.parametrize("gaussian", [False, True])
def test_the_gradient_of_label_smoothing_is_that_of_its_value(gaussian):
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    classes = torch.tensor([0, 3, 4])

    def value(x):
        return smoothed_cross_entropy(x.log_softmax(-1), classes, 0.1, gaussian=gaussian).sum()

    assert torch.autograd.gradcheck(value, (logits,))
