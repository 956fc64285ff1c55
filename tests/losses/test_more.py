"""The rarer losses, held against their formulas in plain Python."""

import math

import pytest
import torch

from returnn_lite.errors import ConfigError
from returnn_lite.losses.base import make_loss
from returnn_lite.ops.bleu import sentence_bleu
from returnn_lite.tensor import Dim, Spec, Tensor, batch_dim
from tests.losses.frames import frames, loss, normal, random_labels, softmax_frames, valid

V = 5
LOGITS = normal(3, 4, V)
TARGET = random_labels()
DENSE = torch.sigmoid(normal(3, 4, V, seed=2))


def summed(of_frame):
    return torch.tensor(sum(float(of_frame(b, t)) for b, t in valid()))


def close(found, expected):
    torch.testing.assert_close(found.double(), torch.as_tensor(expected).double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weight", [None, 3.0])
def test_binary_cross_entropy_of_logits(weight):
    z, t = LOGITS, (DENSE > 0.5).float()
    each = -(t * torch.sigmoid(z).log() * (weight or 1.0) + (1 - t) * (1 - torch.sigmoid(z)).log()).mean(-1)
    sums = loss("bin_ce", pos_weight=weight).compute(frames(z), frames(t))
    close(sums.value, summed(lambda b, i: each[b, i]))
    wrong = ((z > 0) != (t > 0.5)).float().mean(-1)
    close(sums.error, summed(lambda b, i: wrong[b, i]))
    close(loss("sse_sigmoid", pos_weight=weight).compute(frames(z), frames(t)).value, sums.value)


@pytest.mark.parametrize(("name", "reduce"), [("l1", torch.sum), ("mean_l1", torch.mean)])
def test_absolute_differences(name, reduce):
    each = (LOGITS - DENSE).abs()
    close(loss(name).compute(frames(LOGITS), frames(DENSE)).value, summed(lambda b, t: reduce(each[b, t])))


def test_generic_cross_entropy_of_any_activation():
    x = LOGITS.double().requires_grad_()
    y = x.exp() + 1.0
    value = loss("generic_ce").compute(frames(y), TARGET).value
    share = (y / y.sum(-1, keepdim=True)).detach()
    close(value, summed(lambda b, t: -math.log(share[b, t, int(TARGET.data[b, t])])))
    (grad,) = torch.autograd.grad(value, x)
    slope = (x.exp() / y).detach()  # d log y / dx
    for b, t in valid():
        one_hot = torch.eye(V)[int(TARGET.data[b, t])].double()
        close(grad[b, t], slope[b, t] * (share[b, t] - one_hot))
    close(grad[1, 2:], torch.zeros(2, V))


def test_generic_cross_entropy_of_a_softmax_is_cross_entropy():
    x = LOGITS.clone().requires_grad_()
    values = [loss(name).compute(softmax_frames(x), TARGET).value for name in ("ce", "generic_ce")]
    close(*values)
    close(*(torch.autograd.grad(v, x)[0] for v in values))


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], 1.0),
        ([1, 2, 3, 4], [1, 2, 3, 4, 5], math.exp(1 - 5 / 4)),
        ([1, 2, 9, 4, 5, 6], [1, 2, 3, 4, 5, 6], (5 / 6 * 3 / 5 * 1 / 4 * 1 / (2 * 3)) ** 0.25),
        ([1, 2], [1, 2], 1.0),
        ([7, 7, 7], [1, 2, 3], (1 / (2 * 3) * 1 / (4 * 2) * 1 / (8 * 1)) ** 0.25),
        ([1, 1, 1], [1, 2, 3], (1 / 3 * 1 / (2 * 2) * 1 / (4 * 1)) ** 0.25),
        ([], [1, 2], 0.0),
    ],
)
def test_bleu_of_one_sequence(found, wanted, expected):
    assert sentence_bleu(found, wanted) == pytest.approx(expected)


def test_bleu_is_minus_the_sum_over_sequences():
    other = random_labels(seed=4)
    total = sum(sentence_bleu(TARGET.data[b, :n].tolist(), other.data[b, :n].tolist()) for b, n in enumerate([4, 2, 3]))
    close(loss("bleu").compute(TARGET, other).error, -total)
    assert loss("bleu").compute(TARGET, other).value is None


def vectors(data):
    return Tensor(data, Spec((batch_dim, Dim(data.shape[-1], "features")), time=None), {})


@pytest.mark.parametrize("views", [1, 2])
def test_triplet_loss(views):
    data, labels = normal(2, 3 * 4 * views), torch.tensor([[1, 1, 2], [0, 3, 1]])
    target = Tensor(labels, Spec((batch_dim, Dim(3, "labels")), "int32", time=None, feature=None), {})
    expected = 0.0
    for view in data.chunk(views, -1):
        rows = torch.cat(view.chunk(3, -1))
        kinds = labels.t().reshape(-1).tolist()
        for i, a in enumerate(kinds):
            for j, b in enumerate(kinds):
                d = 1 - float(torch.cosine_similarity(rows[i], rows[j], 0))
                expected += 0.5 * (d if a * a == a * b else max(0.3 - d, 0.0))
    made = loss("triplet_loss", margin=0.3, multi_view_training=views == 2)
    close(made.compute(vectors(data), target).value, expected)
    assert float(made.inverse_norm(vectors(data), target)) == 9 * 2 * views


def test_deep_clustering():
    target = frames(DENSE[..., :4], dim=None)
    output = frames(normal(3, 4, 6, seed=5), dim=None)
    expected = 0.0
    for b, n in enumerate([4, 2, 3]):
        v, y = output.data[b, :n].reshape(-1, 3), target.data[b, :n].reshape(-1, 2)
        expected += float((v @ v.t() - y @ y.t()).square().sum())
    close(loss("deep_clustering", embedding_dimension=3, nr_of_sources=2).compute(output, target).value, expected)


def test_full_sampling_loss_is_cross_entropy():
    expected = loss("ce").compute(softmax_frames(LOGITS), TARGET).value
    close(loss("sampling_loss", use_full_softmax=True).compute(softmax_frames(LOGITS), TARGET).value, expected)
    close(loss("sampling_loss", num_sampled=2).compute(frames(LOGITS), TARGET).value, expected)  # not in training


@pytest.mark.parametrize("nce", [False, True])
@pytest.mark.parametrize("splits", [1, 3])
def test_sampled_classes_with_corrected_logits(nce, splits):
    made = loss(
        "sampling_loss", num_sampled=V, num_splits=splits, sampler="uniform", nce_loss=nce, nce_log_norm_term=0.5
    )
    made.training, made.generator = True, torch.Generator().manual_seed(1)
    x = LOGITS.clone().requires_grad_()
    value = made.compute(frames(x), TARGET).value
    expected_count = 1 - (1 - 1 / V) ** V  # all classes are drawn, each with this expected count
    corrected = LOGITS - math.log(expected_count) - (0.5 if nce else 0.0)

    def of_frame(b, t):
        z, k = corrected[b, t], int(TARGET.data[b, t])
        if nce:
            return torch.nn.functional.softplus(-z[k]) + torch.nn.functional.softplus(z).sum()
        return torch.logsumexp(z, 0) - z[k]  # the target itself is hidden among the samples

    close(value, summed(of_frame))
    assert bool(torch.autograd.grad(value, x)[0].any())


def test_rows_of_the_log_uniform_sampler_favour_frequent_classes():
    shares = loss("sampling_loss")._shares(10, torch.device("cpu"))
    close(shares.sum(), 1.0)
    close(shares[0], math.log(2) / math.log(11))
    assert bool((shares[:-1] > shares[1:]).all())


def test_search_score_without_search_has_no_value():
    assert loss("search_score").compute(frames(LOGITS), None).value is None


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("sprint", {"sprint_opts": {}}, "external speech toolkit"),
        ("fast_bw", {}, "external speech toolkit"),
        ("sampling_loss", {"sampler": "log_unifrom"}, 'did you mean "log_uniform"'),
        ("via_layer", {}, "one of `align_layer` and `error_signal_layer`"),
        ("expected_loss", {"loss": "edit_distance"}, 'must be a dict with "class"'),
        ("expected_loss", {"loss": {"class": "edit_distance"}, "loss_kind": "eror"}, "`loss_kind` must be"),
        ("deep_clustering", {"embedding_dimension": 3}, "nr_of_sources"),
        ("bin_ce", {"pos_wieght": 2.0}, 'did you mean "pos_weight"'),
    ],
)
def test_wrong_options(name, options, text):
    with pytest.raises(ConfigError, match=text):
        make_loss(name, options, 'network["output"]')


@pytest.mark.parametrize("name", ["bin_ce", "l1", "mean_l1"])
def test_dense_losses_refuse_sparse_targets(name):
    with pytest.raises(ConfigError, match="needs a dense target"):
        loss(name).compute(frames(LOGITS), TARGET)


def test_losses_per_frame_only_where_there_are_such():
    with pytest.raises(ConfigError, match="no value per frame"):
        loss("ctc").per_frame(frames(LOGITS), TARGET)
