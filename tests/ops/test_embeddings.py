"""Losses on distances, pair by pair."""

import torch

from returnn_lite.ops.embeddings import affinity_distance, cosine_hinge_loss


def test_hinge_loss_on_pairs() -> None:
    vectors = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    labels, total = torch.tensor([1.0, 2.0, 1.0, 2.0]), 0.0
    for i in range(4):
        for j in range(4):
            distance = 1 - float(torch.cosine_similarity(vectors[i], vectors[j], 0))
            total += 0.5 * (distance if labels[i] == labels[j] else max(0.7 - distance, 0.0))
    torch.testing.assert_close(cosine_hinge_loss(vectors, labels, 0.7), torch.tensor(total))


def test_distance_of_affinities() -> None:
    generator = torch.Generator().manual_seed(1)
    v, y = torch.randn(2, 6, 3, generator=generator), torch.randn(2, 6, 2, generator=generator)
    wanted = (v @ v.transpose(1, 2) - y @ y.transpose(1, 2)).square().sum((1, 2))
    torch.testing.assert_close(affinity_distance(v, y), wanted)
