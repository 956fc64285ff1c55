"""Convolutions held against sums in plain Python; which options do not fit."""

import math

import pytest
import torch

from returnn_lite.errors import ConfigError
from tests.nets import batch, network, randomised, valid_part

EXTERN = {"data": {"dim": 2}}
LENGTHS = {"data": [7, 4, 2]}


def run(extern=None, lengths=None, **options):
    net = randomised(network({"output": {"from": "data", "n_out": 3, **options}}, extern or EXTERN))
    data, sizes = batch(extern or EXTERN, lengths or LENGTHS, padding="garbage")
    return net, data["data"], net(data, sizes)["output"]


def plain(x, weights, bias, stride, dilation, left, steps):
    """y[o] = sum_k x[o * stride + k * dilation - left] W[k] + bias"""
    rows = []
    for o in range(steps):
        at = [o * stride + k * dilation - left for k in range(weights.shape[0])]
        terms = [x[:, i] @ weights[k] for k, i in enumerate(at) if 0 <= i < x.shape[1]]
        rows.append(sum(terms, torch.zeros(x.shape[0], weights.shape[-1])) + bias)
    return torch.stack(rows, 1)


PADDINGS = ["same", "SAME", "valid", "same_static", 0, 2]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(("size", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (2, 1, 2), (4, 3, 1), (3, 2, 2)])
def test_against_the_sum(padding, size, stride, dilation):
    if padding == "same_static" and dilation > 1:
        return  # the reference does not take dilation into account here
    net, x, out = run(
        **{"class": "conv", "filter_size": (size,), "strides": stride, "dilation_rate": dilation, "padding": padding},
        with_bias=True,
    )
    n, span, mode = x.shape[1], (size - 1) * dilation + 1, str(padding).lower()
    if mode == "same":
        steps = math.ceil(n / stride)
        left = max((steps - 1) * stride + span - n, 0) // 2
    elif mode == "same_static":
        steps, left = math.ceil(n / stride), (size - stride) // 2
    else:
        left = 0 if mode == "valid" else padding
        steps = max(0, math.ceil((n + 2 * left - span + 1) / stride))
    assert out.data.shape[1] == steps
    expected = plain(x, net.params["output/W"], net.params["output/bias"], stride, dilation, left, steps)
    torch.testing.assert_close(out.data, expected)
    extra = 0 if mode == "valid" else 2 * left
    same = mode.startswith("same")
    wanted = [
        math.ceil(k / stride) if same else max(0, math.ceil((k + extra - span + 1) / stride)) for k in LENGTHS["data"]
    ]
    assert out.length(out.spec.dims[1]).values.tolist() == wanted


def test_a_batch_that_is_shorter_than_the_filter_has_no_frames():
    _, _, out = run(lengths={"data": [2, 1, 1]}, **{"class": "conv", "filter_size": (5,), "padding": "valid"})
    assert out.data.shape == (3, 0, 3)
    assert out.length(out.spec.dims[1]).values.tolist() == [0, 0, 0]


@pytest.mark.parametrize("mode", ["max", "avg"])
def test_a_batch_that_is_shorter_than_the_pool_has_no_frames(mode):
    net = network(
        {"output": {"class": "pool", "mode": mode, "pool_size": (5,), "strides": (1,), "from": "data"}}, EXTERN
    )
    data, sizes = batch(EXTERN, {"data": [2, 1, 1]})
    out = net(data, sizes)["output"]
    assert out.data.shape == (3, 0, 2)
    assert out.length(out.spec.dims[1]).values.tolist() == [0, 0, 0]


def test_a_batch_that_is_shorter_than_a_weighted_sum_has_no_frames():
    options = {"class": "weighted_sum", "axes": "T", "size": 5, "padding": "valid", "from": "data"}
    data, sizes = batch(EXTERN, {"data": [2, 1, 1]})
    out = network({"output": options}, EXTERN)(data, sizes)["output"]
    assert out.data.shape[out.spec.time] == 0
    assert out.length(out.spec.dims[out.spec.time]).values.tolist() == [0, 0, 0]


def test_frames_behind_the_end_are_hidden_by_the_time_mask():
    options = {"class": "conv", "filter_size": (3,), "padding": "same", "use_time_mask": True}
    net, x, out = run(**options)
    data, sizes = batch(EXTERN, LENGTHS, padding="nan")
    torch.testing.assert_close(valid_part(net(data, sizes)["output"]), valid_part(out))


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    ("size", "stride", "output_padding", "remove"), [(3, 2, None, 0), (2, 3, None, 0), (4, 2, 1, 0), (3, 1, None, 1)]
)
def test_transposed_convolution_spreads_every_frame(padding, size, stride, output_padding, remove):
    net, x, out = run(
        **{"class": "transposed_conv", "filter_size": [size], "strides": [stride], "padding": padding},
        output_padding=output_padding, remove_padding=remove,
    )  # fmt: skip
    weights = net.params["output/W_native_transposed_conv"]
    n = x.shape[1]
    full = torch.zeros(3, (n - 1) * stride + size, 3)
    for i in range(n):
        for j in range(size):
            full[:, i * stride + j] += x[:, i] @ weights[j, 0].t()
    pad = size // 2 if padding == "same" else 0
    steps = n * stride + (max(size - stride, 0) if padding == "valid" else 0)
    if output_padding is not None:
        steps = n * stride + size - stride - 2 * pad + output_padding
    left = max(full.shape[1] - steps, 0) // 2 if padding == "same" else 0
    whole = torch.cat([full, torch.zeros(3, stride, 3)], 1)[:, left : left + steps]
    expected = whole[:, remove : steps - remove] + net.params["output/bias"]
    torch.testing.assert_close(out.data, expected)
    assert int(out.length(out.spec.dims[1]).values.max()) == steps - 2 * remove


CONV = {"class": "conv", "from": "data", "n_out": 3, "filter_size": (3,), "padding": "same"}


@pytest.mark.parametrize(
    ("layer", "extern", "text"),
    [
        ({**CONV, "padding": "causal"}, EXTERN, "invalid padding 'causal'"),
        ({**CONV, "filter_size": (3, 3)}, EXTERN, "does not match the 1 spatial axes"),
        ({**CONV, "n_out": None}, EXTERN, "the output size is not known"),
        ({k: v for k, v in CONV.items() if k != "padding"}, EXTERN, "needs the option 'padding'"),
        ({**CONV, "groups": 3}, EXTERN, "`groups` must divide"),
        ({**CONV, "input_split_feature_dim": 3}, EXTERN, "`input_split_feature_dim` must divide"),
        ({**CONV, "out_type": {"dim": 3}}, EXTERN, "`out_type` is not allowed"),
        ({**CONV, "filter_size": (3,), "padding": "same_static", "strides": 5}, EXTERN, "at most the window size"),
        (CONV, {"data": {"dim": 5, "sparse": True}}, "needs dense input"),
        ({**CONV, "filter_size": (1, 1, 1, 1)}, EXTERN, "1 to 3 entries"),
        ({"class": "gating", "activation": None, "from": "data"}, {"data": {"dim": 3}}, "even number of features"),
        ({"class": "layer_norm", "from": "data"}, {"data": {"dim": 5, "sparse": True}}, "needs dense input"),
        ({**CONV, "class": "transposed_conv", "padding": "full"}, EXTERN, "invalid padding"),
        ({"class": "stft", "from": "data", "frame_size": 2, "frame_shift": 1}, EXTERN, "must have one channel"),
        ({"class": "mel_filterbank", "from": "data", "fft_size": 32}, EXTERN, r"`fft_size` / 2 \+ 1 must be"),
        ({"class": "accumulate_mean", "from": "data", "exp_average": 0.1, "axes": "t"}, EXTERN, "all axes but"),
        ({"class": "random", "shape": (2,), "distribution": "norml"}, EXTERN, 'did you mean "normal"'),
        ({"class": "reverse_sequence", "from": "data"}, EXTERN, "use `rec` with `direction` -1"),
    ],
)  # fmt: skip
def test_wrong_options(layer, extern, text):
    with pytest.raises(ConfigError, match=text) as caught:
        randomised(network({"output": layer}, extern))(*batch(extern, LENGTHS))
    assert caught.value.path.startswith('network["output"]')
