"""Rows of the layer table for convolutions, normalisations, signal transforms, random numbers and losses as layers."""

import itertools
import tempfile

from tests.layers.layer_cases import SHARED, row

LETS_PADDING_THROUGH = frozenset(
    {"conv", "transposed_conv", "norm", "istft", "multichannel_multiresolution_stft_layer"}
)

SIGNAL = {"signal": {"shape": (None, 1), **SHARED}, "stereo": {"shape": (None, 2), **SHARED}}
SPECTRUM = {"stft": {"class": "stft", "frame_size": 3, "frame_shift": 1, "fft_size": 4, "from": "data:signal"}}
SCORES = {"scores": {"class": "softmax", "n_out": 5, "from": "data"}}
COMPLEX = {"complex": {"class": "alternating_real_to_complex", "from": "data"}}
ENERGY = {
    "hidden": {"class": "linear", "n_out": 3, "activation": "tanh", "from": "data"},
    "squares": {"class": "eval", "eval": "source(0) ** 2", "from": "hidden"},
    "energy": {"class": "reduce", "mode": "sum", "axes": ["B", "T", "F"], "from": "squares"},
}
BATCH_NORM = {name: (4,) for name in ("v2_mean", "v2_variance", "v2_gamma", "v2_beta")}
FOLDER = tempfile.TemporaryDirectory()
NUMBER = itertools.count()


def new_file(**_):
    """A file name that was not used before."""
    return f"{FOLDER.name}/{next(NUMBER)}.hdf"


def below(prefix, names):
    """Shapes by name, below a prefix."""
    return {f"{prefix}/{name}": shape for name, shape in names.items()}


SIGNAL_CASES = [
    row("conv", {"filter_size": (3,), "padding": "same", "n_out": 2}, params={"W": (3, 4, 2), "bias": (2,)}),
    row(
        "conv",
        {"filter_size": (2,), "padding": "valid", "n_out": 6, "groups": 2, "strides": 2, "with_bias": False},
        params={"W": (2, 2, 6)},
    ),  # fmt: skip
    row(
        "conv",
        {"filter_size": (3, 2), "padding": "same", "n_out": 2, "in_spatial_dims": ["T", "dim:6"], "activation": "relu"},
        "image",
        params={"W": (3, 2, 4, 2), "bias": (2,)},
    ),  # fmt: skip
    row(
        "conv",
        {"filter_size": (3,), "padding": "same_static", "n_out": 2, "in_spatial_dims": "T"},
        "image",
        params={"W": (3, 4, 2), "bias": (2,)},
    ),  # fmt: skip
    row(
        "conv",
        {
            "filter_size": (3, 3),
            "padding": 1,
            "n_out": 2,
            "input_add_feature_dim": True,
            "in_spatial_dims": ["T", "dim:4"],
        },
        params={"W": (3, 3, 1, 2), "bias": (2,)},
    ),  # fmt: skip
    row(
        "conv",
        {"filter_size": (1,), "padding": "valid", "n_out": 4, "filter": "w", "bias": "b"},
        extra={"w": {"class": "variable", "shape": (1, 4, 4)}, "b": {"class": "variable", "shape": (4,)}},
    ),  # fmt: skip
    row(
        "transposed_conv",
        {"filter_size": (3,), "strides": (2,), "n_out": 2},
        params={"W_native_transposed_conv": (3, 1, 2, 4), "bias": (2,)},
    ),  # fmt: skip
    row(
        "transposed_conv",
        {"filter_size": (2, 2), "n_out": 2, "padding": "valid", "in_spatial_dims": ["T", "dim:6"]},
        "image",
        params={"W_native_transposed_conv": (2, 2, 2, 4), "bias": (2,)},
    ),  # fmt: skip
    row("layer_norm", {}, params={"scale": (4,), "bias": (4,)}),
    row("layer_norm", {}, "image", params={"scale": (4,), "bias": (4,)}),
    row("norm", {"axes": "F"}, params={"scale": (4,), "bias": (4,)}),
    row(
        "norm",
        {"axes": ["dim:6", "F"], "param_shape": ["dim:6", "F"], "bias": False},
        "image",
        params={"scale": (6, 4)},
    ),
    row("math_norm", {"axis": "T", "p": 2}),
    row("math_norm", {"axes": "F", "p": 1, "keep_dims": True}),
    row("batch_norm", {"masked_time": True}, params=below("batch_norm", BATCH_NORM)),
    row(
        "batch_norm",
        {"masked_time": True, "param_version": 0, "use_std": False, "use_sample": 0.5},
        "image",
        params=below("batch_norm", {f"it_it_output_{n}": (1, 1, 1, 4) for n in ("mean", "variance", "beta")}),
    ),  # fmt: skip
    row("batch_norm", {"masked_time": True}, "data:source", loop=True, params=below("batch_norm", BATCH_NORM)),
    row(
        "linear",
        {"n_out": 4, "batch_norm": {"masked_time": True}},
        params={"W": (4, 4), "b": (4,), **below("batch_norm", BATCH_NORM)},
    ),  # fmt: skip
    row("gating", {"activation": "identity"}),
    row("gating", {"activation": "tanh", "gate_activation": "relu"}, ["data", "more"]),
    row("dct"),
    row("dct", {"type": 3, "norm": "ortho"}, "image"),
    row("stft", {"frame_size": 2, "frame_shift": 1}, "signal", extern=SIGNAL),
    row("stft", {"frame_size": 4, "frame_shift": 2, "fft_size": 6}, "scalar"),
    row("istft", {"frame_size": 3, "frame_shift": 1, "fft_size": 4}, "stft", extra=SPECTRUM, extern=SIGNAL),
    row(
        "multichannel_stft_layer",
        {"frame_size": 3, "frame_shift": 2, "fft_size": 4, "nr_of_channels": 2},
        "stereo",
        extern=SIGNAL,
    ),  # fmt: skip
    row(
        "multichannel_stft_layer",
        {
            "frame_size": 2,
            "frame_shift": 2,
            "fft_size": 4,
            "window": "blackman",
            "use_rfft": False,
            "pad_last_frame": True,
        },
        "signal",
        extern=SIGNAL,
    ),  # fmt: skip
    row(
        "multichannel_multiresolution_stft_layer",
        {"frame_sizes": [2, 4], "frame_shift": 2, "fft_sizes": [4, 4], "nr_of_channels": 2},
        "stereo",
        extern=SIGNAL,
    ),  # fmt: skip
    row("split_concatenated_multichannel", {"nr_of_channels": 2}),
    row("batch_median_pooling", {"pool_size": 3}, "flat"),
    row(
        "mel_filterbank",
        {"sampling_rate": 8000, "fft_size": 16, "nr_of_filters": 2, "n_out": 2},
        "spectrum",
        extern={"spectrum": {"shape": (None, 9), **SHARED}},
    ),  # fmt: skip
    row("alternating_real_to_complex"),
    row("complex_to_alternating_real", {}, "complex", extra=COMPLEX),
    row("tile_features", {"repetitions": 3}),
    row("accumulate_mean", {"exp_average": 0.1, "is_prob_distribution": True}, params={"mean_1": (4,)}),
    row("framewise_statistics"),
    row("image_summary", {}, "image"),
    row("scaled_grad", {"scale": -0.5, "shift": 0.1, "scale_shift_by_sum_over_axis": "F"}),
    row("scaled_grad", {"scale": 0.0}, "hidden", extra=ENERGY),
    row("gradient", {"y": "energy", "x": "hidden"}, (), extra=ENERGY),
    row("gradient", {"y": "energy", "x": "data:data"}, (), extra=ENERGY),
    row("random", {"shape": (3, 2), "distribution": "normal", "mean": 1.0, "stddev": 0.5}, ()),
    row("random", {"shape": (2,), "distribution": "uniform", "bound": 0.1, "seed": 3, "static": True}, ()),
    row("random", {"shape": (20,), "distribution": "truncated_normal"}, ()),
    row("rand_int", {"shape": (5,), "maxval": 3}, ()),
    row("loss", {"loss_": "ce", "target_": "classes"}, "scores", extra=SCORES),
    row("loss", {"loss_": "mse", "target_": "classes", "use_error": True}, "scores", extra=SCORES, part="error"),
    row(
        "loss",
        {"loss_": "ce", "target_": "classes", "loss_opts_": {"label_smoothing": 0.1}},
        "probs",
        loop=True,
        extra={"probs": {"class": "softmax", "n_out": 5, "from": "data:source"}},
    ),  # fmt: skip
    row("sparse_softmax_cross_entropy_with_logits", {"logits": "scores", "targets": "data:classes"}, (), extra=SCORES),
    row("hdf_dump", {"filename": new_file, "dump_per_run": True, "extra": {"labels": "data:labels"}}),
    row("hdf_dump", {"filename": new_file, "dump_per_run": True}, "classes"),
    row("specaugment", {"max_consecutive_spatial_dims": 2, "max_consecutive_feature_dims": 2}),
    row("specaugment", {"axis": "dim:6", "steps": [0, 0, 5]}, "image"),
]
