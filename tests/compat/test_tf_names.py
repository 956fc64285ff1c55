"""The names of TensorFlow and the tensor helpers, on PyTorch tensors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from returnn_lite.compat.tf import Context, TFTensor, eval_names, unwrap, wrap
from returnn_lite.errors import ConfigError

NAMES = eval_names()
TF = NAMES["tf"]
VALUES = {
    "x": torch.tensor([[1.5, -0.5, 0.25], [-2.0, 3.0, 0.0]]),
    "i": torch.tensor([[1, -7, 3], [4, 0, 2]], dtype=torch.int32),
    "v": torch.tensor([1.5, -2.5, 0.5]),
    "k": torch.tensor(3, dtype=torch.int32),
    "j": torch.tensor([2, 0], dtype=torch.int32),
    "z": torch.arange(24.0).reshape(2, 4, 3),
    "lens": torch.tensor([4, 2], dtype=torch.int32),
    "b": torch.tensor([True, False]),
    "step": torch.tensor(1500),
}


def evaluate(text: str, **more: Any) -> Any:
    wrapped = {name: wrap(value) for name, value in VALUES.items()}
    return unwrap(eval(text, {**NAMES, **wrapped, "inf": math.inf, **more}))


INT, LONG, FLOAT, DOUBLE, BOOL = torch.int32, torch.int64, torch.float32, torch.float64, torch.bool
CALLS = [
    # shapes
    ("tf.shape(z)", INT, [2, 4, 3]),
    ("tf.shape(z, out_type=tf.int64)[:-1]", LONG, [2, 4]),
    ("tf.size(z) + tf.rank(z)", INT, 27),
    ("tf.expand_dims(j, dim=-1)", INT, [[2], [0]]),
    ("tf.squeeze([[1, 2]], squeeze_dims=0)", INT, [1, 2]),
    ("tf.transpose(i, perm=[1, 0])[0]", INT, [1, 4]),
    ("tf.reshape(i, (tf.shape(i)[1], -1))", INT, [[1, -7], [3, 4], [0, 2]]),
    ("tf.tile([[0.5]], [1, k])", FLOAT, [[0.5] * 3]),
    ("tf.concat([i, [[9], [8]]], axis=1)", INT, [[1, -7, 3, 9], [4, 0, 2, 8]]),
    ("tf.stack([1, tf.shape(i)[0], k])", INT, [1, 2, 3]),
    ("tf.unstack(i, axis=1)[2]", INT, [3, 2]),
    ("tf.split(i, [1, 2], axis=1)[1]", INT, [[-7, 3], [0, 2]]),
    ("tf.split(z, 2, axis=1)[1][0, :, 0]", FLOAT, [6, 9]),
    ("tf.split(i, [1, -1], axis=1)[1]", INT, [[-7, 3], [0, 2]]),
    ("tf.pad(i, [[1, 0], [0, 1]], constant_values=9)", INT, [[9, 9, 9, 9], [1, -7, 3, 9], [4, 0, 2, 9]]),
    ("tf.pad([1, 2, 3], [[2, 1]], mode='REFLECT')", INT, [3, 2, 1, 2, 3, 2]),
    ("tf.pad([1, 2, 3], [[2, 1]], mode='SYMMETRIC')", INT, [2, 1, 1, 2, 3, 3]),
    ("tf.pad(b, [[0, 1]])", BOOL, [True, False, False]),
    ("tf.gather(v, [[0, 2], [1, 1]])", FLOAT, [[1.5, 0.5], [-2.5, -2.5]]),
    ("tf.gather(z, j, axis=1)[0]", FLOAT, [[6, 7, 8], [0, 1, 2]]),
    ("tf.gather(z, [[1, 0], [2, 3]], batch_dims=1)[:, :, 0]", FLOAT, [[3, 0], [18, 21]]),
    ("tf.gather(z, [[1, 0, 0], [2, 1, 1]], axis=2, batch_dims=1)[1, 0]", FLOAT, [14, 13, 13]),
    ("tf.batch_gather(i, [[2, 0], [1, 1]])", INT, [[3, 1], [0, 0]]),
    ("tf.gather_nd(i, [[0, 1], [1, 2]])", INT, [-7, 2]),
    ("tf.gather_nd(z, nd_indices(j))[:, 0]", FLOAT, [6, 12]),
    ("tf.scatter_nd([[0], [2], [0]], [1., 2., 3.], [4])", FLOAT, [4, 0, 2, 0]),
    ("tf.one_hot([1, 3, -1], 3)", FLOAT, [[0, 1, 0], [0, 0, 0], [0, 0, 0]]),
    ("tf.one_hot(j, k, on_value=5, off_value=1, axis=0)", INT, [[1, 5], [1, 1], [5, 1]]),
    ("tf.sequence_mask(lens, 3, dtype=tf.int32)", INT, [[1, 1, 1], [1, 1, 0]]),
    ("tf.boolean_mask(i, b)", INT, [[1, -7, 3]]),
    ("tf.meshgrid(tf.range(2), tf.range(3))[1]", INT, [[0, 0], [1, 1], [2, 2]]),
    ("tf.slice(i, [0, 1], [-1, 1])", INT, [[-7], [0]]),
    ("tf.reverse(i, axis=[-1])", INT, [[3, -7, 1], [2, 0, 4]]),
    ("tf.reverse_sequence(z, lens, seq_axis=1, batch_axis=0)[:, :, 0]", FLOAT, [[9, 6, 3, 0], [15, 12, 18, 21]]),
    ("tf.unique([3, 1, 3, 0])[0]", INT, [3, 1, 0]),
    ("tf.unique([3, 1, 3, 0])[1]", INT, [0, 1, 0, 2]),
    ("tf.segment_sum([3., 1., 2.], [0, 0, 2])", FLOAT, [4, 0, 2]),
    ("tf.segment_min([3., 1., 2.], [0, 0, 2])", FLOAT, [1, 0, 2]),
    ("tf.matrix_band_part(tf.ones((2, 3)), 0, -1)", FLOAT, [[1, 1, 1], [0, 1, 1]]),
    # order, repetition, diagonals
    ("tf.roll(i, shift=1, axis=1)", INT, [[3, 1, -7], [2, 4, 0]]),
    ("tf.roll(i, [1, -1], [0, 1])", INT, [[0, 2, 4], [-7, 3, 1]]),
    ("tf.repeat(j, 2)", INT, [2, 2, 0, 0]),
    ("tf.repeat(i, [2, 1], axis=0)", INT, [[1, -7, 3], [1, -7, 3], [4, 0, 2]]),
    ("tf.sort(i, direction='DESCENDING')", INT, [[3, 1, -7], [4, 2, 0]]),
    ("tf.argsort([2, 1, 2], direction='DESCENDING')", INT, [0, 2, 1]),
    ("tf.argsort(i, axis=0)", INT, [[0, 0, 1], [1, 1, 0]]),
    ("tf.searchsorted([1., 2., 3.], [2., 9.])", INT, [1, 3]),
    ("tf.searchsorted([1., 2., 3.], [2., 0.], side='right')", INT, [2, 0]),
    ("tf.count_nonzero(i)", LONG, 5),
    ("tf.math.count_nonzero(i, axis=1, dtype=tf.int32)", INT, [3, 2]),
    ("tf.norm([[3., 4.], [0., 2.]], axis=1)", FLOAT, [5, 2]),
    ("tf.linalg.norm([3., -4.], ord=1)", FLOAT, 7),
    ("tf.linalg.diag([1., 2.])", FLOAT, [[1, 0], [0, 2]]),
    ("tf.matrix_diag_part(i)", INT, [1, 0]),
    ("tf.tensor_scatter_nd_update(i, [[0, 1], [1, 2]], [9, 8])", INT, [[1, 9, 3], [4, 0, 8]]),
    ("tf.tensor_scatter_nd_update(i, [[1]], [[5, 6, 7]])", INT, [[1, -7, 3], [5, 6, 7]]),
    ("tf.nn.l2_loss([3., 4.])", FLOAT, 12.5),
    ("tf.nn.in_top_k(x, [0, 0], 1)", BOOL, [True, False]),
    ("tf.math.log_softmax([0., 0.])", FLOAT, [-math.log(2)] * 2),
    ("tf.math.xlogy(0., 0.)", FLOAT, 0),
    ("tf.matmul([[1., 2.]], [[3., 4.]], adjoint_b=True)", FLOAT, [[11]]),
    ("tf.range(2, 8, 3)", INT, [2, 5]),
    ("tf.range(k, dtype=tf.float32)", FLOAT, [0, 1, 2]),
    ("tf.range(0., 1., 0.5)", FLOAT, [0, 0.5]),
    # where
    ("tf.where(tf.equal(i, 3))", LONG, [[0, 2]]),
    ("tf.where(b, i, -i)", INT, [[1, -7, 3], [-4, 0, -2]]),
    ("tf.where(tf.greater(v, 0), x, 9.)", FLOAT, [[1.5, 9, 0.25], [-2, 9, 0]]),
    ("tf.where(tf.greater_equal(step, 1000), 1, 0)", INT, 1),
    ("tf.where(True, 1., 0.)", FLOAT, 1.0),
    # dtypes and arithmetic
    ("tf.cast([-1.7, 1.7], tf.int32)", INT, [-1, 1]),
    ("tf.cast(v, dtype='bool')", BOOL, [True] * 3),
    ("tf.to_float(j)", FLOAT, [2, 0]),
    ("tf.round([0.5, 1.5, -0.5])", FLOAT, [0, 2, 0]),
    ("tf.maximum(i, [[0], [3]])", INT, [[1, 0, 3], [4, 3, 3]]),
    ("tf.minimum(lens, step)", INT, [4, 2]),
    ("tf.maximum(tf.shape(z)[1] // 3, 2) * (1 + 2)", INT, 6),
    ("tf.clip_by_value(i, 0, tf.shape(x)[1] - 1)", INT, [[1, 0, 2], [2, 0, 2]]),
    ("tf.div(i, 2)", INT, [[0, -4, 1], [2, 0, 1]]),
    ("tf.div(v, 2)", FLOAT, [0.75, -1.25, 0.25]),
    ("tf.truediv(j, 4)", DOUBLE, [0.5, 0]),
    ("tf.mod(i, 4)", INT, [[1, 1, 3], [0, 0, 2]]),
    ("tf.math.floordiv(i, 3)", INT, [[0, -3, 1], [1, 0, 0]]),
    ("tf.pow(i, 2)", INT, [[1, 49, 9], [16, 0, 4]]),
    ("tf.math.divide_no_nan(v, [0., 1., 2.])", FLOAT, [0, -2.5, 0.25]),
    ("tf.add_n([j, j, lens])", INT, [8, 2]),
    ("tf.logical_and(tf.less(v, 1), tf.is_finite(v))", BOOL, [False, True, True]),
    # reductions
    ("tf.reduce_sum(i)", INT, 3),
    ("tf.reduce_sum(i, axis=(1,), keep_dims=True)", INT, [[-3], [6]]),
    ("tf.reduce_mean([[-3, -4]], reduction_indices=1)", INT, [-3]),
    ("tf.reduce_mean(z, axis=[0, 2])", FLOAT, [7, 10, 13, 16]),
    ("tf.reduce_max(i, -1)", INT, [3, 4]),
    ("tf.reduce_prod(i, axis=[0, 1])", INT, 0),
    ("tf.reduce_any(tf.less(i, 0), axis=1)", BOOL, [True, False]),
    ("tf.reduce_all(tf.less(i, 9))", BOOL, True),
    ("tf.reduce_logsumexp([[-inf, -inf]], axis=1)", FLOAT, [-math.inf]),
    ("tf.argmax([[1, 3, 3], [2, 0, 2]], axis=1)", LONG, [1, 0]),
    ("tf.argmin(i, dimension=1, output_type=tf.int32)", INT, [1, 1]),
    ("tf.cumsum(i, axis=1, exclusive=True)", INT, [[0, 1, -6], [0, 4, 4]]),
    ("tf.cumsum(i, axis=1, reverse=True)", INT, [[-3, -4, 3], [6, 2, 2]]),
    ("tf.cumprod([1., 2., 3.], exclusive=True, reverse=True)", FLOAT, [6, 3, 1]),
    ("tf.matmul(i, i, transpose_b=True)", INT, [[59, 10], [10, 20]]),
    ("tf.tensordot(i, i, axes=[[1], [1]])", INT, [[59, 10], [10, 20]]),
    ("tf.einsum('bf,bf->b', x, x)", FLOAT, [2.5625, 13]),
    # nn
    ("tf.nn.top_k([[1., 3., 3., 2.]], 3)[1]", INT, [[1, 2, 3]]),
    ("tf.nn.top_k(x, k=tf.reduce_max(j)).values", FLOAT, [[1.5, 0.25], [3, 0]]),
    ("tf.nn.softmax([[0., 0.]], dim=-1)", FLOAT, [[0.5, 0.5]]),
    ("tf.nn.moments(z, axes=[0, 1])[0]", FLOAT, [10.5, 11.5, 12.5]),
    ("tf.nn.l2_normalize([3., 4.], axis=0)", FLOAT, [0.6, 0.8]),
    ("tf.nn.sigmoid_cross_entropy_with_logits(labels=[0.5], logits=[0.])", FLOAT, [math.log(2)]),
    ("tf.nn.softmax_cross_entropy_with_logits_v2(labels=[[1., 0.]], logits=[[0., 0.]])", FLOAT, [math.log(2)]),
    ("tf.nn.sparse_softmax_cross_entropy_with_logits(labels=[1], logits=[[0., 0.]])", FLOAT, [math.log(2)]),
    ("tf.nn.conv1d(z, tf.ones((3, 3, 1)), stride=2, padding='SAME')[0, :, 0]", FLOAT, [36, 51]),
    ("tf.nn.conv2d(z[:, :, :, None], tf.ones((2, 2, 1, 1)), [1, 1, 1, 1], 'VALID')[0, 0, :, 0]", FLOAT, [8, 12]),
    # control flow
    ("tf.cond(tf.less(k, 2), lambda: (x, k), lambda: (x, k + 1))[1]", INT, 4),
    ("tf.while_loop(lambda a, _: tf.less(a, k), lambda a, q: (a + 1, q * 2), (0, j))[1]", INT, [16, 0]),
    ("tf.while_loop(lambda a: a < 10, lambda a: [a + 3], [0])", INT, 12),
    ("tf.case([(tf.less(k, 2), lambda: 1)], default=lambda: 2)", INT, 2),
    ("tf.compat.v1.Print(j, [j], 'msg', name='p')", INT, [2, 0]),
    # making
    ("tf.fill([2, 1], 7)", INT, [[7], [7]]),
    ("tf.constant(0., shape=[2])", FLOAT, [0, 0]),
    ("tf.convert_to_tensor([1, k])", INT, [1, 3]),
    ("tf.zeros_like(j, dtype=tf.float32)", FLOAT, [0, 0]),
    ("tf.random_uniform((2,), minval=j[0], maxval=j[0] + 1, dtype=tf.int32)", INT, [2, 2]),
    # operators
    ("i / 2", DOUBLE, [[0.5, -3.5, 1.5], [2, 0, 1]]),
    ("4 / j[:1]", DOUBLE, [2]),
    ("-i // 2", INT, [[-1, 3, -2], [-2, 0, -1]]),
    ("lens * step", INT, [6000, 3000]),
    ("z[:, k - 1, 0]", FLOAT, [6, 18]),
    ("z[0, :k - 1, -1]", FLOAT, [2, 5]),
    ("v[::-1]", FLOAT, [0.5, -2.5, 1.5]),
    ("z[..., ::-2, 0]", FLOAT, [[9, 3], [21, 15]]),
    ("z[0, None, 2::-1, 1]", FLOAT, [[7, 4, 1]]),
    # helpers
    ("where_bc(tf.expand_dims(b, 1), 0.0, x)", FLOAT, [[0, 0, 0], [-2, 3, 0]]),
    ("where_bc(tf.equal(j, 2), 1., 0.)", FLOAT, [1, 0]),
    ("expand_dims_unbroadcast(v, axis=-1, dim=2)[0]", FLOAT, [1.5, 1.5]),
    ("sequence_mask_time_major(lens, maxlen=3)", BOOL, [[True, True], [True, True], [True, False]]),
    ("nd_indices(j)", INT, [[0, 2], [1, 0]]),
    ("nd_indices(j, batch_axis=1)", INT, [[2, 0], [0, 1]]),
    ("tile_transposed(v, axis=0, multiples=2)", FLOAT, [1.5, 1.5, -2.5, -2.5, 0.5, 0.5]),
    ("flatten_with_seq_len_mask(z, lens, batch_dim_axis=0, time_dim_axis=1)[:, 0]", FLOAT, [0, 3, 6, 9, 12, 15]),
    ("flatten_with_seq_len_mask(tf.transpose(z, [1, 0, 2]), lens, time_major=True)[-1]", FLOAT, [15, 16, 17]),
    ("get_linear_alignment_out_to_in_indices([7, 3, 2], [3, 3, 4])", INT, [[1, 3, 5, 0], [0, 1, 2, 0], [0, 0, 1, 1]]),
    ("get_rnnt_linear_aligned_output([2, 1], [[5, 6], [7, 0]], [2, 1], 9)[0]", INT, [[9, 5, 6, 9], [9, 7, 0, 0]]),
    ("get_rnnt_linear_aligned_output([7, 1], [[1, 2], [5, 6]], [1, 2], 9, targets_consume_time=True)[0]", INT,
     [[9, 9, 9, 1, 9, 9, 9], [5, 0, 0, 0, 0, 0, 0]]),
    ("filter_ended_scores([[1., 2.], [3., 4.]], b)", FLOAT, [[0, -1e30], [3, 4]]),
    ("dot(i, [[1], [1], [1]])", INT, [[-3], [6]]),
    ("to_int32_64(tf.cast(j, 'int8'))", INT, [2, 0]),
    ("matrix_triangular((2, 3), dtype=tf.bool, upper=True)", BOOL, [[True] * 3, [False, True, True]]),
    ("dimshuffle(j, ('x', 0, 'x'))", INT, [[[2], [0]]]),
    ("dimshuffle(i[:, None], (2, 0))", INT, [[1, 4], [-7, 0], [3, 2]]),
    ("move_axis(i, 1, 0)[0]", INT, [1, 4]),
    ("expand_multiple_dims(j, (0, -1))", INT, [[[2], [0]]]),
    ("single_strided_slice(i, axis=-1, begin=1, end=k)", INT, [[-7, 3], [0, 2]]),
    ("batched_uniq([[1, 1, 2, 2], [3, 3, 3, 4]], [4, 2])[0]", INT, [[1, 2], [3, 0]]),
    ("sparse_labels([[1, 2], [3, 4]], [2, 1]).values", INT, [1, 2, 3]),
    ("slice_nd(z, [1, -1], 2)[..., 0]", FLOAT, [[3, 6], [0, 12]]),
    ("pad_replicate(j, axes=[0], padding=[(1, 2)])", INT, [2, 2, 0, 0, 0]),
    ("windowed_nd([[1., 2., 3.]], window_size=3)", FLOAT, [[[0, 1, 2], [1, 2, 3], [2, 3, 0]]]),
    ("safe_exp([0., 100.])", FLOAT, [1, 1e20]),
    ("get_initializer('ones')((2,))", FLOAT, [1, 1]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "dtype", "wanted"), CALLS, ids=[text for text, _, _ in CALLS])
def test_value_and_dtype(text: str, dtype: torch.dtype, wanted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluate(text)
    assert type(found) is torch.Tensor
    assert found.dtype == dtype
    np.testing.assert_allclose(found.numpy(), np.array(wanted), rtol=1e-5, atol=1e-6)
    assert ("msg" in capsys.readouterr().err) == ("Print" in text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("x.get_shape().ndims", 2),
        ("x.get_shape().as_list()", [2, 3]),
        ("x.shape.ndims + x.shape[0] + len(x.shape)", 6),
        ("x.get_shape().dims[1].value", 3),
        ("tf.shape(x).get_shape().is_fully_defined()", True),
        ("x.dtype == tf.float32", True),
        ("isinstance(x * 2, tf.Tensor)", True),
        ("tf.newaxis", None),
        ("x.set_shape((None, 3))", None),
        ("get_shape(x)", [2, 3]),
        ("get_shape_dim(x, 1)", 3),
        ("tf.summary.image('name', x)", None),
        ("tf_compat.v1 is tf", True),
    ],
)
def test_python_values(text: str, wanted: Any) -> None:
    assert evaluate(text) == wanted


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("tf.minimum(i, 0.5)", TypeError),
        ("tf.squeeze(i, axis=1)", ValueError),
        ("tf.split(i, 2, axis=1)", ValueError),
        ("tf.nn.top_k(v, 4)", ValueError),
        ("tf.random_uniform((2,), 3, 3, dtype=tf.int32)", ValueError),
        ("tf.Assert(tf.less(k, 2), [k])", ValueError),
        ("where_bc(b, z, 0.0)", ValueError),
        ("dropout(x, keep_prob=0)", ValueError),
        ("check_input_dim(x, 1, 4)", ValueError),
        ("tf.cast(x, 'float31')", ConfigError),
        ("tf.constant({})", TypeError),
    ],
)
def test_errors(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        evaluate(text)


def test_unknown_names_say_where_and_what_else() -> None:
    with pytest.raises(
        ConfigError, match=r"module 'tensorflow.nn' \(PyTorch stand-in\) has no attribute 'softmaks'"
    ) as info:
        evaluate("tf.nn.softmaks(x)")
    assert info.value.path.startswith("<string>:1")
    assert info.value.message.endswith('; did you mean "softmax"?')
    with pytest.raises(ConfigError, match="graphs"):
        evaluate("tf.placeholder(tf.float32)")
    assert not hasattr(TF, "softmaks")


def gradient(text: str, value: list[float]) -> list[float]:
    x = torch.tensor(value, requires_grad=True)
    evaluate(text, x=wrap(x)).sum().backward()
    assert x.grad is not None
    return x.grad.tolist()


@pytest.mark.parametrize(
    ("text", "value", "wanted"),
    [
        ("tf.maximum(x, 1.)", [0.0, 1.0, 2.0], [0, 1, 1]),
        ("tf.minimum(x, 1.)", [0.0, 1.0, 2.0], [1, 1, 0]),
        ("tf.clip_by_value(x, 0., 1.)", [-1.0, 0.0, 0.5, 1.0, 2.0], [0, 1, 1, 1, 0]),
        ("tf.reduce_max(x)", [3.0, 3.0, 1.0], [0.5, 0.5, 0]),
        ("tf.nn.relu(x) + tf.abs(x)", [0.0, 2.0], [0, 2]),
        ("tf.stop_gradient(x) * x", [2.0, 3.0], [2, 3]),
        ("maximum_with_identity_grad(x, 1.)", [0.0, 2.0], [1, 1]),
        ("clip_by_value_with_identity_grad(x, 0., 1.)", [-1.0, 2.0], [1, 1]),
        ("tf.while_loop(lambda n, y: n < 3, lambda n, y: (n + 1, y * x), (0, x))[1]", [2.0], [32]),
    ],
)
def test_gradients(text: str, value: list[float], wanted: list[float]) -> None:
    assert gradient(text, value) == wanted


def test_exact_logarithms() -> None:
    far = torch.tensor([[-300.0, 0.0, 300.0]])
    for text, wanted in [
        ("safe_log(tf.nn.softmax(x))", far.log_softmax(-1)),
        ("safe_log(tf.reshape(tf.transpose(tf.sigmoid(x)), [-1]))", torch.nn.functional.logsigmoid(far)[0]),
        ("safe_log(tf.identity(tf.exp(x)))", far),
        ("safe_log(tf.gather_nd(tf.nn.softmax(x), [[0, 0]]))", far.log_softmax(-1)[0, :1]),
        ("safe_exp(tf.log(tf.abs(x) * 1e-30))", far.abs() * 1e-30),
        ("safe_exp(tf.nn.log_softmax(x))", far.softmax(-1)),
    ]:
        torch.testing.assert_close(evaluate(text, x=wrap(far)), wanted)
    assert evaluate("safe_log(tf.nn.softmax(x) * 1.)", x=wrap(far))[0, 0].item() == pytest.approx(math.log(1e-20))


def test_wrapping() -> None:
    x = torch.ones(2, 3)
    wrapped = wrap(x)
    assert isinstance(wrapped, TFTensor) and wrap(wrapped) is wrapped
    assert isinstance(wrapped + 1, TFTensor) and isinstance(TF.shape(wrapped), TFTensor)
    assert TF.range(3).get_shape().as_list() == [3] and TF.zeros((2, 4)).get_shape().ndims == 2
    assert isinstance(TF.reduce_sum(x), TFTensor) and isinstance(TF.nn.top_k(x).indices, TFTensor)
    nested = unwrap({"a": [wrapped, 1], "b": (wrapped,)})
    assert type(nested["a"][0]) is torch.Tensor and type(nested["b"][0]) is torch.Tensor and nested["a"][1] == 1


def test_random_numbers_come_from_the_context() -> None:
    def draw(seed: int) -> list[torch.Tensor]:
        tf = eval_names(Context(generator=torch.Generator().manual_seed(seed)))["tf"]
        return [
            tf.random_uniform([500], 2, 5, dtype=tf.int32),
            tf.random.uniform([500], -1.0, 3.0),
            tf.random_normal([500], 1.0, 2.0),
            tf.truncated_normal([500], stddev=0.5),
            tf.random.shuffle(tf.range(50)),
            tf.nn.dropout(tf.ones([500]), rate=0.25),
        ]

    state = torch.get_rng_state()
    first, again, other = draw(1), draw(1), draw(2)
    assert all(torch.equal(a, b) and not torch.equal(a, c) for a, b, c in zip(first, again, other, strict=True))
    assert torch.equal(state, torch.get_rng_state())
    whole, uniform, normal, truncated, shuffled, dropped = first
    assert set(whole.tolist()) == {2, 3, 4}
    assert -1 <= uniform.min() < -0.9 and 2.9 < uniform.max() < 3
    assert normal.mean().item() == pytest.approx(1, abs=0.3) and normal.std().item() == pytest.approx(2, abs=0.2)
    assert 0.8 < truncated.abs().max() <= 1 and truncated.std().item() == pytest.approx(0.44, abs=0.04)
    assert shuffled.sort().values.tolist() == list(range(50))
    assert sorted(set(dropped.tolist())) == pytest.approx([0, 1 / 0.75])
    assert 0.65 < (dropped > 0).float().mean() < 0.85


def test_dropout_helper() -> None:
    context = Context(generator=torch.Generator().manual_seed(1))
    dropout = eval_names(context)["dropout"]
    x = torch.ones(50, 40)
    assert torch.equal(dropout(x, 1), x)
    assert torch.equal(dropout(x, 0.5, cond_on_train=True), x)
    context.train = True
    dropped = dropout(x, 0.5, noise_shape=(None, 1), cond_on_train=True)
    assert set(dropped.flatten().tolist()) == {0.0, 2.0}
    assert (dropped == dropped[:, :1]).all()
    assert set(dropout(x, 0.5, apply_correction_factor=False).flatten().tolist()) == {0.0, 1.0}


def test_feature_masking_as_configs_write_it() -> None:
    """Stripes of the time axis are zeroed, as many as each sequence shall have."""
    tf, where_bc = TF, NAMES["where_bc"]

    def one_stripe(x: Any, num: Any, pos: Any, max_amount: int) -> Any:
        amount = tf.random_uniform(shape=(tf.shape(x)[0],), minval=1, maxval=max_amount + 1, dtype=tf.int32)
        end = tf.minimum(pos + amount, tf.shape(x)[1])
        idxs = tf.expand_dims(tf.range(0, tf.shape(x)[1]), 0)
        cond = tf.logical_and(tf.greater_equal(idxs, tf.expand_dims(pos, 1)), tf.less(idxs, tf.expand_dims(end, 1)))
        return where_bc(tf.expand_dims(cond, 2), 0.0, x)

    x = wrap(torch.ones(3, 20, 4))
    assert x.get_shape().ndims == 3
    num = tf.constant([2, 0, 1])
    z = -tf.log(-tf.log(tf.random_uniform((tf.shape(x)[0], tf.shape(x)[1]), 0, 1)))
    _, indices = tf.nn.top_k(z, tf.reduce_max(num))
    _, masked = tf.while_loop(
        cond=lambda i, _: tf.less(i, tf.reduce_max(num)),
        body=lambda i, y: (i + 1, tf.where(tf.less(i, num), one_stripe(y, num, indices[:, i], 3), y)),
        loop_vars=(0, x),
    )
    zeros = (unwrap(masked) == 0).all(-1).sum(1).tolist()
    assert zeros[1] == 0 and 1 <= zeros[0] <= 6 and 1 <= zeros[2] <= 3
