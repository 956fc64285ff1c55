"""Signal transforms, random numbers, gradients and losses as layers, held against plain computations."""

import math

import numpy as np
import pytest
import torch

from returnn_lite.errors import ConfigError
from tests.nets import batch, network, randomised, valid_part

LENGTHS = {"data": [13, 9, 4], "classes": [13, 9, 4]}
SIGNAL = {"data": {"dim": 1}}
FRAMES = {"data": {"dim": 4}, "classes": {"dim": 4, "sparse": True}}


def run(layers, extern, train=False, lengths=LENGTHS, **how):
    net = randomised(network(layers, extern)).train(train)
    data, sizes = batch(extern, lengths, **how)
    return net, data, net(data, sizes, ["a", "b", "c"])


def hann(size):
    return torch.tensor([0.5 - 0.5 * math.cos(2 * math.pi * n / size) for n in range(size)])


def test_stft_frame_by_frame():
    layers = {"output": {"class": "stft", "frame_size": 5, "frame_shift": 2, "fft_size": 8, "from": "data"}}
    _, data, out = run(layers, SIGNAL)
    x = out["output"]
    assert x.data.shape == (3, 5, 5)
    assert x.length(x.spec.dims[1]).values.tolist() == [5, 3, 0]
    for i in range(5):
        frame = data["data"][0, 2 * i : 2 * i + 5, 0] * hann(5)
        expected = [sum(frame[n] * np.exp(-2j * np.pi * k * n / 8) for n in range(5)) for k in range(5)]
        torch.testing.assert_close(x.data[0, i], torch.tensor(expected, dtype=torch.complex64), rtol=1e-4, atol=1e-4)


def test_signals_shorter_than_a_frame_have_no_spectrum():
    layers = {
        "a": {"class": "stft", "frame_size": 5, "frame_shift": 2, "from": "data", "is_output_layer": True},
        "output": {"class": "istft", "frame_size": 5, "frame_shift": 2, "from": "a"},
    }
    _, _, out = run(layers, SIGNAL, lengths={"data": [4, 3, 1]})
    assert out["a"].data.shape == (3, 0, 3) and out["a"].data.dtype == torch.complex64
    assert out["a"].length(out["a"].spec.dims[1]).values.tolist() == [0, 0, 0]


@pytest.mark.parametrize(("size", "shift"), [(4, 1), (6, 2), (8, 2)])
def test_istft_gives_the_signal_back_where_frames_overlap(size, shift):
    layers = {
        "stft": {"class": "stft", "frame_size": size, "frame_shift": shift, "from": "data"},
        "output": {"class": "istft", "frame_size": size, "frame_shift": shift, "from": "stft"},
    }
    _, data, out = run(layers, SIGNAL, lengths={"data": [16, 16, 16]})
    found = out["output"].data
    assert found.shape == (3, 16, 1)
    torch.testing.assert_close(found[:, size:-size], data["data"][:, size:-size], rtol=1e-4, atol=1e-4)


def test_every_channel_is_transformed_by_itself():
    extern = {"data": {"dim": 2}}
    options = {"frame_size": 4, "frame_shift": 3, "fft_size": 4, "nr_of_channels": 2}
    _, data, out = run({"output": {"class": "multichannel_stft_layer", "from": "data", **options}}, extern)
    _, _, padded = run(
        {"output": {"class": "multichannel_stft_layer", "from": "data", "pad_last_frame": True, **options}}, extern
    )
    assert out["output"].length(out["output"].spec.dims[1]).values.tolist() == [4, 2, 1]
    assert padded["output"].length(padded["output"].spec.dims[1]).values.tolist() == [4, 3, 1]
    for channel in range(2):
        expected = torch.fft.rfft(data["data"][0, 3:7, channel] * hann(4))
        torch.testing.assert_close(out["output"].data[0, 1, 3 * channel : 3 * channel + 3], expected)


def test_several_resolutions_have_the_frames_of_the_first():
    extern = {"data": {"dim": 2}}
    options = {"frame_sizes": [4, 6], "frame_shift": 3, "fft_sizes": [4, 8], "nr_of_channels": 2}
    coarse = {"frame_size": 4, "frame_shift": 3, "fft_size": 4, "nr_of_channels": 2}
    layers = {
        "coarse": {"class": "multichannel_stft_layer", "from": "data", **coarse},
        "output": {"class": "multichannel_multiresolution_stft_layer", "from": ["data"], **options},
        "both": {"class": "copy", "from": "coarse", "is_output_layer": True},
    }
    _, data, out = run(layers, extern)
    both, alone = out["output"].data, out["coarse"].data
    assert both.shape == (*alone.shape[:2], 2 * 3 + 2 * 5)
    torch.testing.assert_close(both[..., :6], alone)
    torch.testing.assert_close(both[0, 1, 6:11], torch.fft.rfft(data["data"][0, 3:9, 0] * hann(6), 8))
    wrong = {"output": {**layers["output"], "fft_sizes": [4]}}
    with pytest.raises(ConfigError, match="per resolution"):
        network(wrong, extern)


def test_channels_in_the_batch_and_their_median():
    layers = {
        "split": {"class": "split_concatenated_multichannel", "nr_of_channels": 4, "from": "data"},
        "output": {"class": "batch_median_pooling", "pool_size": 4, "from": "split"},
    }
    _, data, out = run(layers, FRAMES)
    split, x = out["split"], data["data"]
    assert split.data.shape == (4 * x.shape[0], x.shape[1], 1) and split.length(split.spec.dims[1]).values.numel() == 12
    torch.testing.assert_close(split.data[5, :, 0], x[1, :, 1])
    expected = torch.from_numpy(np.median(x.numpy(), -1))
    torch.testing.assert_close(out["output"].data[..., 0], expected)
    assert torch.equal(out["output"].length(split.spec.dims[1]).values, torch.tensor(LENGTHS["data"]))


@pytest.mark.parametrize("norm", [None, "ortho"])
def test_dct_and_back(norm):
    layers = {
        "dct": {"class": "dct", "norm": norm, "from": "data"},
        "output": {"class": "dct", "type": 3, "norm": norm, "from": "dct"},
    }
    _, data, out = run(layers, FRAMES)
    x = data["data"][0, 0].tolist()
    scale = [1.0] * 4 if norm is None else [math.sqrt(1 / 16), *[math.sqrt(1 / 8)] * 3]
    expected = [scale[k] * 2 * sum(x[n] * math.cos(math.pi * k * (2 * n + 1) / 8) for n in range(4)) for k in range(4)]
    torch.testing.assert_close(out["dct"].data[0, 0], torch.tensor(expected))
    factor = 1.0 if norm else 8.0
    torch.testing.assert_close(out["output"].data, data["data"] * factor, rtol=1e-4, atol=1e-4)


def test_complex_numbers_and_back():
    layers = {
        "complex": {"class": "alternating_real_to_complex", "from": "data"},
        "output": {"class": "complex_to_alternating_real", "from": "complex"},
    }
    _, data, out = run(layers, FRAMES)
    torch.testing.assert_close(out["complex"].data[..., 1].imag, data["data"][..., 3])
    torch.testing.assert_close(out["output"].data, data["data"])


def test_the_mean_over_training():
    layers = {"output": {"class": "accumulate_mean", "exp_average": 0.25, "initial_value": 2.0, "from": "data"}}
    net = network(layers, FRAMES)
    data, sizes = batch(FRAMES, LENGTHS, padding="garbage")
    mean = torch.cat([row[:n] for row, n in zip(data["data"], LENGTHS["data"], strict=True)]).mean(0)
    assert not net.params["output/mean_1"].requires_grad
    torch.testing.assert_close(net.eval()(data, sizes)["output"].data, torch.full((4,), 2.0))
    torch.testing.assert_close(net.train()(data, sizes)["output"].data, torch.full((4,), 2.0))
    torch.testing.assert_close(net.eval()(data, sizes)["output"].data, 2.0 + 0.25 * (mean - 2.0))


def test_gradients_are_scaled_and_shifted():
    layers = {
        "h": {"class": "linear", "n_out": 3, "with_bias": False, "from": "data"},
        "output": {"class": "scaled_grad", "scale": -0.5, "shift": 0.25, "from": "h", "loss": "as_is"},
    }
    layers["output"]["scale_shift_by_sum_over_axis"] = "F"
    net, data, out = run(layers, FRAMES, train=True)
    (grad,) = torch.autograd.grad(out.objective, [net.params["h/W"]])
    of_frame = -0.5 + 0.25 * 3  # the gradient of every valid entry is 1
    frames = valid_part(out["h"].with_data(data["data"], net.spec("data:data"))).sum((0, 1)) * of_frame
    torch.testing.assert_close(grad, frames.unsqueeze(-1).expand(4, 3))


@pytest.mark.parametrize("train", [False, True])
def test_the_gradient_of_a_layer_also_where_nothing_is_trained(train):
    layers = {
        "squares": {"class": "eval", "eval": "source(0) ** 2", "from": "data"},
        "y": {"class": "reduce", "mode": "sum", "axes": ["B", "T", "F"], "from": "squares"},
        "output": {"class": "gradient", "y": "y", "x": "data"},
    }
    net = network(layers, FRAMES).train(train)
    data, sizes = batch(FRAMES, LENGTHS)
    with torch.no_grad():
        torch.testing.assert_close(net(data, sizes)["output"].data, 2.0 * data["data"])


def test_random_numbers_are_new_at_every_call_unless_static():
    layers = {
        "uniform": {"class": "random", "shape": (1000,), "distribution": "uniform", "minval": 2, "maxval": 3},
        "normal": {"class": "random", "shape": (1000,), "distribution": "normal", "mean": 5.0, "stddev": 0.1},
        "cut": {"class": "random", "shape": (1000,), "distribution": "truncated_normal", "stddev": 2.0},
        "static": {"class": "random", "shape": (1000,), "distribution": "uniform", "static": True},
        "ints": {"class": "rand_int", "shape": (1000,), "minval": -2, "maxval": 2, "seed": 3},
        "output": {"class": "copy", "from": "data"},
    }
    for name in ("uniform", "normal", "cut", "static", "ints"):
        layers[name]["is_output_layer"] = True
    net, data, first = run(layers, FRAMES)
    second = net(*batch(FRAMES, LENGTHS))
    changed = {n for n in layers if not torch.equal(first[n].data, second[n].data)}
    assert changed == {"uniform", "normal", "cut", "ints"}
    u, n, c, i = (first[name].data for name in ("uniform", "normal", "cut", "ints"))
    assert 2 <= float(u.min()) and float(u.max()) < 3 and float(u.max() - u.min()) > 0.9
    assert abs(float(n.mean()) - 5.0) < 0.05 and 0.05 < float(n.std()) < 0.2
    assert 2.0 < float(c.abs().max()) <= 4.0
    assert set(i.tolist()) == {-2, -1, 0, 1} and i.dtype == torch.int32


def test_losses_as_layers_are_those_of_the_sum():
    layers = {
        "p": {"class": "softmax", "n_out": 4, "from": "data", "loss": "ce", "target": "classes"},
        "frames": {"class": "loss", "loss_": "ce", "target_": "classes", "from": "p"},
        "errors": {"class": "copy", "from": "frames/error", "loss": "as_is"},
        "output": {"class": "copy", "from": "frames", "loss": "as_is"},
    }
    _, _, out = run(layers, FRAMES)
    torch.testing.assert_close(out.losses["output"].sum, out.losses["p"].sum)
    torch.testing.assert_close(out.losses["errors"].sum, out.losses["p"].error)
