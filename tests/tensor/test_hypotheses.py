"""What all hypotheses of a sequence share is read once, with the results of its copies."""

import pytest
import torch

from returnn_lite.ops.product import product
from returnn_lite.tensor import Beam, Dim, Spec, Tensor, batch_dim
from returnn_lite.tensor.hypotheses import hypotheses, place_apart, product_of

BATCH, SIZE = 2, 3
TIME, FEATURE = Dim(5, "time"), Dim(4, "feature")
SHARED = Spec((batch_dim, TIME, FEATURE), time=1)
BEAM = Beam(SIZE, torch.zeros(BATCH, SIZE), torch.arange(BATCH).repeat_interleave(SIZE))


def shared():
    """(B, T, F), tiled."""
    return Tensor(torch.randn(BATCH, 5, 4), SHARED, {}).tile(BEAM)


def own(*dims):
    """Numbers of each hypothesis."""
    sizes = [BATCH * SIZE, *(d.size for d in dims)]
    return Tensor(torch.randn(sizes), Spec((batch_dim, *dims)), {}, BEAM)


@pytest.mark.parametrize("shared_first", [True, False])
def test_products(shared_first):
    """Weights (B, T) of each hypothesis with a shared base (B, T, F)."""
    base, weights = shared(), own(TIME)
    a, b, equation = (base, weights, "btf,bt->bf") if shared_first else (weights, base, "bt,btf->bf")
    torch.testing.assert_close(product_of(equation, a, b), product(equation, a.data, b.data))


def test_sums():
    """Shared (B, T, F) plus (B, F) of each hypothesis."""
    keys, query = shared(), own(FEATURE)
    parts = [place_apart(x, SHARED, 0, SIZE) for x in (keys, query)]
    torch.testing.assert_close((parts[0] + parts[1]).flatten(0, 1), keys.data + query.data.unsqueeze(1))


def test_only_where_some_are_shared():
    """All shared, or none: there is nothing to gain."""
    assert hypotheses([shared(), own(FEATURE)]) == SIZE
    assert hypotheses([shared(), shared()]) == 0
    assert hypotheses([own(FEATURE), own(FEATURE)]) == 0
    assert hypotheses([shared().copy(), own(FEATURE)]) == 0
