"""Cross-entropies written out, with their gradients."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from returnn_lite.ops import cross_entropy as ce

GENERATOR = torch.Generator().manual_seed(1)
LOGITS = torch.randn(2, 3, 5, generator=GENERATOR)
CLASSES = torch.tensor([[0, 4, 2], [1, 1, 3]], dtype=torch.int32)
VALID = torch.tensor([[True, True, True], [True, False, False]])


def test_picking() -> None:
    found = ce.pick(LOGITS, CLASSES)
    assert torch.equal(found, torch.stack([LOGITS[b, t, CLASSES[b, t]] for b in range(2) for t in range(3)]).view(2, 3))
    assert torch.equal(ce.pick(LOGITS.transpose(1, 2), CLASSES, 1), found)


def test_the_sum_over_valid_frames() -> None:
    each = -ce.pick(LOGITS.log_softmax(-1), CLASSES)
    torch.testing.assert_close(ce.summed_cross_entropy(LOGITS, CLASSES), each.sum())
    torch.testing.assert_close(ce.summed_cross_entropy(LOGITS, CLASSES, VALID), each[VALID].sum())


def test_dense_targets() -> None:
    logits, target = LOGITS.clone().requires_grad_(), torch.rand(2, 3, 5, generator=GENERATOR, requires_grad=True)
    value = ce.dense_cross_entropy(logits, target)
    torch.testing.assert_close(value, -(target * logits.log_softmax(-1)).sum(-1))
    found = torch.autograd.grad(value.sum(), (logits, target))
    torch.testing.assert_close(found, ((logits.softmax(-1) - target).detach(), -logits.log_softmax(-1).detach()))


def test_smoothed_targets() -> None:
    e, log_probs = 0.2, LOGITS.log_softmax(-1)
    q = torch.full((2, 3, 5), e / 4).scatter(-1, CLASSES.long().unsqueeze(-1), 1 - e)
    wanted = (q * (q.log() - log_probs)).sum(-1)
    torch.testing.assert_close(ce.smoothed_cross_entropy(log_probs, CLASSES, e), wanted)
    torch.testing.assert_close(ce.smoothed_cross_entropy(q.log(), CLASSES, e), torch.zeros(2, 3), atol=1e-6, rtol=0)


def test_shares_of_any_positive_numbers() -> None:
    y = torch.rand(2, 5, generator=GENERATOR).requires_grad_()
    classes = torch.tensor([1, 4])
    value = ce.share_cross_entropy(y, classes)
    share = (y / y.sum(-1, keepdim=True)).detach()
    torch.testing.assert_close(value.detach(), -ce.pick(share, classes).log())
    (found,) = torch.autograd.grad(value.sum(), y)
    torch.testing.assert_close(found, (share - F.one_hot(classes, 5)) / y.detach())


def test_log_uniform_shares() -> None:
    shares = ce.log_uniform_shares(9, torch.device("cpu"))
    assert float(shares.sum()) == pytest.approx(1.0, rel=1e-5)
    assert float(shares[2]) == pytest.approx(math.log(4 / 3) / math.log(10), rel=1e-5)


def test_a_sample_of_all_classes_is_the_cross_entropy() -> None:
    """Each class once, the frame's own as the right one: all logits are corrected alike."""
    rows, classes = LOGITS.flatten(0, 1), CLASSES.flatten().long()
    shares = torch.full((5,), 0.2)
    correction = math.log(1 - 0.8**5)
    found = ce.sampled_cross_entropy(rows, classes, shares, 99)
    torch.testing.assert_close(found, F.cross_entropy(rows - correction, classes, reduction="none"))
    noise = ce.sampled_cross_entropy(rows, classes, shares, 5, noise_contrastive=True)
    corrected = rows - correction
    others = F.softplus(corrected).masked_fill(F.one_hot(classes, 5).bool(), 0).sum(-1)
    torch.testing.assert_close(noise, F.softplus(-ce.pick(corrected, classes)) + others)
    fewer = ce.sampled_cross_entropy(rows, classes, shares, 2, generator=torch.Generator().manual_seed(1))
    assert fewer.shape == (6,) and not torch.equal(fewer, found)
