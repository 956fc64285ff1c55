"""Functions along axes."""

import numpy as np
import pytest

from returnn_lite import frontend as rf
from returnn_lite.config import Config
from returnn_lite.errors import ConfigError
from returnn_lite.running_config import running_config_ctx
from tests.frontend.helpers import random, same, sized, values

B, F, G, K = rf.Dim(3, name="B"), rf.Dim(4, name="F"), rf.Dim(2, name="G"), rf.Dim(5, name="K")
LENGTHS = np.array([5, 2, 4])
T = sized(LENGTHS, B)
MASK = np.arange(5) < LENGTHS[:, None]


@pytest.mark.parametrize("mode", ["sum", "mean", "max", "min", "logsumexp", "logmeanexp", "argmax", "argmin"])
def test_reductions_leave_padding_out(mode):
    x = random([B, T, F], feature_dim=F)
    functions = {
        "logsumexp": lambda v: np.log(np.exp(v).sum(0)),
        "logmeanexp": lambda v: np.log(np.exp(v).mean(0)),
    }
    function = functions.get(mode, lambda v: getattr(np, mode)(v, 0))
    found = rf.reduce(x, mode=mode, axis=T)
    same(found, (B, F), [function(values(x)[b, :n]) for b, n in enumerate(LENGTHS)])
    assert found.feature_dim is None and (found.sparse_dim is T) == mode.startswith("arg")
    if not mode.startswith("arg"):
        flat = np.concatenate([values(x)[b, :n] for b, n in enumerate(LENGTHS)])
        same(rf.reduce(x, mode=mode, axis=[T, B]), (F,), function(flat))
        whole = getattr(np, mode)(values(x), 1) if mode not in functions else None
        if whole is not None:
            same(rf.reduce(x, mode=mode, axis=T, use_mask=False), (B, F), whole)


def test_reductions_of_nothing_and_of_other_types():
    empty = sized([2, 0, 1], B, "empty")
    x = random([B, empty])
    assert np.isnan(values(rf.reduce_mean(x, axis=empty))[1])
    assert values(rf.reduce_max(x, axis=empty))[1] == np.finfo("float32").min
    assert values(rf.reduce_all(x > 100, axis=empty)).tolist() == [False, True, False]
    assert rf.reduce_sum(x > 0, axis=empty).dtype == "int64"
    with pytest.raises(ConfigError, match=r"lacks the axes \['B'\(3\)\] of the sizes of .*use_mask=False"):
        rf.reduce_sum(random([T]), axis=T)
    with pytest.raises(ConfigError, match="has no axis"):
        rf.reduce_sum(random([B]), axis=F)
    with pytest.raises(ConfigError, match="reduce_mean"):
        rf.reduce_mean(rf.zeros([B], dtype="int32"), axis=B)


def test_padding_gets_no_gradient():
    x = random([B, T, F])
    rf.set_requires_gradient(x)
    for function in (
        lambda: rf.reduce_mean(rf.exp(x), axis=T), lambda: rf.softmax(x, axis=T) * x, lambda: rf.reduce_max(x, axis=T),
        lambda: rf.pack_padded(x, dims=[B, T])[0], lambda: rf.reduce_logsumexp(x, axis=[B, T]),
    ):  # fmt: skip
        y = function()
        grad = values(rf.gradient(rf.reduce_sum(rf.square(y), axis=y.dims), x))
        assert (grad[~MASK] == 0).all() and np.abs(grad[MASK]).sum() > 0


def test_softmax():
    x = random([B, T, F], feature_dim=F)
    found = rf.softmax(x, axis=T)
    for b, n in enumerate(LENGTHS):
        e = np.exp(values(x)[b, :n])
        np.testing.assert_allclose(values(found)[b, :n], e / e.sum(0), rtol=1e-5)
        assert (values(found)[b, n:] == 0).all()
    assert found.feature_dim is F and np.isneginf(values(rf.log_softmax(x, axis=T))[1, 2:]).all()
    with running_config_ctx(Config({"inf_value": 1e9})):
        assert np.isfinite(values(rf.log_softmax(x, axis=T))).all()


def test_top_k():
    x = random([B, K, F], feature_dim=F)
    v, (i, j), dim = rf.top_k(x, axis=[F, K], k=3)
    flat = values(x).transpose(0, 2, 1).reshape(3, -1)
    order = np.argsort(-flat, 1)[:, :3]
    same(v, (B, dim), np.take_along_axis(flat, order, 1))
    assert values(i).tolist() == (order // 5).tolist() and values(j).tolist() == (order % 5).tolist()
    assert i.sparse_dim is F and j.sparse_dim is K and dim.dimension == 3 and i.dtype == "int64"
    one, index, _ = rf.top_k(random([B, T]), axis=T, k=2)
    assert values(index)[1].max() < 2 and index.sparse_dim is T
    with pytest.raises(ConfigError, match="at most 5, but is 6"):
        rf.top_k(x, axis=K, k=6)


def test_matmul():
    x, y = random([G, B, F]), random([B, F, K], 1)
    same(rf.matmul(x, y, reduce=F), (B, G, K), np.einsum("gbf,bfk->bgk", values(x), values(y)))
    same(rf.matmul(x, y, reduce=[B, F]), (G, K), np.einsum("gbf,bfk->gk", values(x), values(y)))
    w = random([K, F], 2)
    same(rf.matmul(x, w, reduce=F), (G, B, K), values(x) @ values(w).T)
    same(
        rf.matmul(x, random([K], 3), reduce=[F, K]), (G, B), values(x).sum(-1) * values(random([K], 3)).sum(), rtol=1e-4
    )
    with pytest.raises(ConfigError, match="none has the axis"):
        rf.matmul(x, w, reduce=rf.Dim(3, name="other"))
    with pytest.raises(ConfigError, match="use_mask=False"):
        rf.matmul(random([B, T]), random([T, F]), reduce=T)


def test_statistics_and_gates():
    x = random([B, T, F], feature_dim=F)
    mean, var = rf.moments(x, axis=[B, T], correction=1)
    flat = values(x)[MASK]
    same(mean, (F,), flat.mean(0))
    same(var, (F,), flat.var(0, ddof=1))
    gated, half = rf.gating(x)
    v = values(x)
    same(gated, (B, T, half), v[..., :2] / (1 + np.exp(-v[..., 2:])))
    assert half is F.div_left(2) and gated.feature_dim is half
