"""Options of every layer: constraints on outputs, checks of axes, losses handed on, dropout shapes."""

import pytest
import torch

from returnn_lite.errors import ConfigError
from returnn_lite.tensor import Dim, batch_dim
from tests.nets import batch, network, randomised, valid_part

TIME = Dim(None, "time")
EXTERN = {
    "data": {"shape": (None, 12), "same_dim_tags_as": {"T": TIME}},
    "classes": {"shape": (None,), "dim": 5, "sparse": True, "same_dim_tags_as": {"T": TIME}},
    "other": {"shape": (None,), "dim": 5, "sparse": True},
}
LENGTHS = {"time": [5, 3, 4], "other": [5, 2, 1]}
ALIGN = {"class": "fast_bw", "align_target": "ctc", "align_target_key": "other", "input_type": "prob"}


def run(layers, train=True, **config):
    net = randomised(network(layers, EXTERN, **config)).train(train)
    data, lengths = batch(EXTERN, LENGTHS, padding="garbage")
    return net, data, net(data, lengths)


def test_darc1_looks_at_the_largest_activation_before_the_activation_function():
    layers = {"output": {"class": "linear", "n_out": 3, "activation": "tanh", "from": "data", "darc1": 0.5}}
    net, data, out = run(layers)
    before = data["data"] @ net.params["output/W"] + net.params["output/b"]
    total = valid_part(out["output"].with_data(before)).abs().sum((0, 1)).max()
    torch.testing.assert_close(out.objective, 0.5 * total)


def test_spatial_smoothing_sees_features_as_an_image():
    layers = {"output": {"class": "copy", "from": "data", "spatial_smoothing": 0.5}}
    _, data, out = run(layers)
    total = 0.0
    for b, n in enumerate([5, 3, 4]):
        for image in data["data"][b, :n].reshape(n, 4, 3):
            for row in range(4):
                for col in range(3):
                    ring = sum(
                        image[(row + i) % 4, (col + j) % 3] for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)
                    )
                    total += float(image[row, col] - ring / 8) ** 2
    torch.testing.assert_close(out.objective, torch.tensor(0.5 * total))


def test_too_few_features_for_an_image():
    with pytest.raises(ConfigError, match="5 x 1, which is too small"):
        network({"output": {"class": "linear", "n_out": 5, "from": "data", "spatial_smoothing": 1.0}}, EXTERN)


def test_constraints_on_a_layer_in_a_loop():
    inner = {
        "class": "linear",
        "n_out": 3,
        "activation": "tanh",
        "from": ["data:source", "prev:output"],
        "is_output_layer": True,
    }
    layers = {"output": {"class": "rec", "from": "data", "unit": {"output": {**inner, "darc1": 2.0}}}}
    _, _, out = run(layers)
    total = valid_part(out["output"]).abs().sum((0, 1)).max()
    torch.testing.assert_close(out.objective, 2.0 * total)


@pytest.mark.parametrize(
    "shape", [{batch_dim, TIME, "feature"}, {batch_dim, TIME}, {batch_dim, TIME, "feature", Dim(3, "more")}]
)
def test_out_shape_is_checked(shape):
    feature = Dim(3, "feature")
    dims = {feature if d == "feature" else d for d in shape}
    layers = {"output": {"class": "linear", "out_dim": feature, "from": "data", "out_shape": dims}}
    if dims == {batch_dim, TIME, feature}:
        network(layers, EXTERN)
        return
    with pytest.raises(ConfigError, match="`out_shape` must be the axes of the output"):
        network(layers, EXTERN)


def test_undefined_axes_are_those_of_the_size_target():
    layers = {
        "output": {
            "class": "eval", "from": "data:flat", "size_target": "other", "out_type": {"shape": (None, 2)},
            "eval": "tf.tile(tf.expand_dims(source(0, auto_convert=False), 1), [1, 5, 1])",
        },
        "sum": {"class": "reduce", "mode": "sum", "axis": "T", "from": "output", "is_output_layer": True},
    }  # fmt: skip
    extern = {**EXTERN, "flat": {"shape": (2,), "time_dim_axis": None}}
    net = network(layers, extern)
    data, lengths = batch(extern, LENGTHS)
    out = net(data, lengths)
    assert net.spec("output").dims[1].name == "time:var:extern_data:other"
    torch.testing.assert_close(out["sum"].data, data["flat"] * torch.tensor([[5.0], [2.0], [1.0]]))


def test_the_loss_of_an_alignment_is_handed_on():
    layers = {
        "probs": {"class": "softmax", "n_out": 6, "from": "data"},
        "align": {**ALIGN, "from": "probs"},
        "scaled": {"class": "eval", "eval": "source(0) * 1.0", "from": "align", "copy_output_loss_from_source_idx": 0},
        "output": {"class": "copy", "from": "probs", "loss": "via_layer", "loss_opts": {"align_layer": "scaled"}},
    }  # fmt: skip
    net, _, out = run(layers)
    y, posteriors = out["probs"], out["align"].batch_major()
    torch.testing.assert_close(out.losses["output"].sum, out["align"].sequence_loss.sum())
    (grad,) = torch.autograd.grad(out.losses["output"].sum, y.data)
    expected = valid_part(y.with_data(y.data - posteriors.data))
    torch.testing.assert_close(grad, expected)
    layers["scaled"].pop("copy_output_loss_from_source_idx")
    with pytest.raises(ConfigError, match="a loss per sequence"):
        run(layers)


def test_via_layer_checks_the_activation():
    layers = {
        "align": {**ALIGN, "from": "output"},
        "output": {"class": "softmax", "n_out": 6, "from": "data", "loss": "via_layer",
                   "loss_opts": {"align_layer": "align", "loss_wrt_to_act_in": "sigmoid"}},
    }  # fmt: skip
    with pytest.raises(ConfigError, match="must be the activation of the layer, 'softmax'"):
        run(layers)


def distinct_masks(**options):
    """Along which axes (B, T, F) the dropout mask of a copy varies."""
    layers = {"output": {"class": "copy", "from": "ones", "dropout": 0.5, **options},
              "ones": {"class": "eval", "eval": "source(0) * 0.0 + 1.0", "from": "data"}}  # fmt: skip
    data = torch.zeros(16, 32, 12)
    net = network(layers, EXTERN).train()
    mask = net({"data": data}, {"data": torch.full((16,), 32, dtype=torch.int32)})["output"].data
    assert set(mask.unique().tolist()) == {0.0, 2.0}
    return tuple(axis for axis in range(3) if bool((mask != mask.narrow(axis, 0, 1)).any()))


@pytest.mark.parametrize(
    ("options", "axes"),
    [
        ({}, (2,)),
        ({"dropout_noise_shape": {}}, (2,)),
        ({"dropout_noise_shape": {"*": None}}, (0, 1, 2)),
        ({"dropout_noise_shape": {"*": None, "T": 1}}, (0, 2)),
        ({"dropout_noise_shape": {"B": -1, "F": "x"}}, (0,)),
        ({"dropout_noise_shape": {"T": None}}, (1, 2)),
        ({"dropout_noise_shape": (None, 1, None)}, (0, 2)),
        ({"dropout_axis": "T"}, (1,)),
    ],
)
def test_the_dropout_mask_varies_along_the_named_axes(options, axes):
    assert distinct_masks(**options) == axes


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"loss_scale": 0.5}, "need the option `loss`"),
        ({"loss_opts": {"scale": 0.5}, "loss": None}, "need the option `loss`"),
        ({"mask": "random"}, "`mask` must be one of"),
        ({"copy_output_loss_from_source_idx": 1}, "must be below 1"),
        ({"reuse_params": ["a"]}, "must be a str, a dict or None"),
        ({"dropout_axis": "T", "dropout_noise_shape": {"T": 1}, "dropout": 0.1}, "cannot be used together"),
    ],
)
def test_wrong_options(options, text):
    layers = {"output": {"class": "copy", "from": "data", **options}}
    with pytest.raises(ConfigError, match=text):
        run(layers)
