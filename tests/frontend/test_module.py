"""Modules, parameters, initial values, containers, dicts of modules, hooks, parametrizations, torch modules."""

import copy

import numpy as np
import pytest
import torch

from returnn_lite import frontend as rf
from returnn_lite.errors import ConfigError
from returnn_lite.frontend import bridge
from returnn_lite.frontend.build_from_dict import _get_cls_name
from tests.frontend.helpers import random, same, values

B, F, G = rf.Dim(3, name="B"), rf.Dim(4, name="F"), rf.Dim(2, name="G")


class Affine(rf.Module):
    """y = x W + b"""

    def __init__(self, in_dim=F, out_dim=G, scale=1.0):
        self.out_dim = out_dim
        self.weight = rf.Parameter([in_dim, out_dim], initial=rf.init.Glorot())
        self.bias = rf.Parameter([out_dim], initial=scale)
        self.in_dim = in_dim

    def __call__(self, x):
        return rf.matmul(x, self.weight, reduce=self.in_dim) + self.bias


class Pair(rf.Module):
    """Two layers that share one of their own."""

    def __init__(self):
        super().__init__()
        self.first = Affine()
        self.inner = rf.ModuleList(Affine(), rf.Sequential(rf.relu, self.first))
        self.count = rf.Parameter([], "int32", auxiliary=True)
        self.none = None


def test_names():
    pair = Pair()
    names = ["", "first", "inner", "inner.0", "inner.1", "inner.1.0"]
    assert [name for name, _ in pair.named_modules()] == names
    found = ["count", "first.weight", "first.bias", "inner.0.weight", "inner.0.bias"]
    assert [name for name, _ in pair.named_parameters()] == found
    assert [name for name, _ in pair.named_children()] == ["first", "inner"] and pair.has_parameters
    assert pair.get_deep("inner.1.1") is pair.first and pair.get_deep("") is pair
    pair.set_deep("inner.0.bias", pair.first.bias)
    assert len(list(pair.parameters())) == 4
    with pytest.raises(AttributeError):
        pair.get_deep("first.weight.x")
    assert Affine().get_default_name() == "affine" and repr(pair) == "<Pair>"
    seen = []
    pair.apply(lambda module: seen.append(type(module).__name__))
    assert seen[0] == "Affine" and seen[-1] == "Pair"


def test_parameters():
    weight = rf.Parameter([F, G])
    assert (values(weight) == 0).all() and weight.raw_tensor.requires_grad and weight.trainable is None
    weight.initial = random([G, F])
    np.testing.assert_array_equal(values(weight), values(random([G, F])).T)
    weight.assign(random([F], 1))
    np.testing.assert_array_equal(values(weight), values(random([F], 1))[:, None].repeat(2, 1))
    weight.assign_add(1.0)
    weight.assign_key(axis=F, key=2, key_dim=None, value=9.0)
    assert (values(weight)[2] == 9).all() and (values(weight)[1] != 9).all()
    part = rf.Dim(2, name="part")
    weight.assign_key(axis=F, key=slice(0, 2), key_dim=part, value=random([part], 2))
    np.testing.assert_array_equal(values(weight)[:2, 0], values(random([part], 2)))
    statistic, index = rf.Parameter([F], auxiliary=True), rf.Parameter([F], sparse_dim=G)
    assert not statistic.raw_tensor.requires_grad and index.dtype == "int32" and not index.raw_tensor.requires_grad
    weight.trainable = False
    assert not weight.raw_tensor.requires_grad
    assert isinstance(weight * 2.0, rf.Tensor) and not isinstance(weight * 2.0, rf.Parameter)


WRONG = {
    "no axes": (lambda: rf.Parameter(), "must be a list of Dims, but are None"),
    "twice given": (lambda: rf.Parameter([F], dims=[F]), "must be given once"),
    "no axis": (lambda: rf.Parameter([3]), "must be axes, but 3"),
    "an axis twice": (lambda: rf.Parameter([F, F]), "dim_match_priority_when_needed"),
    "value twice": (lambda: rf.Parameter(random([F]), initial=1), "must have no `initial`"),
    "other axes": (lambda: rf.Parameter([F]).assign(random([G])), "cannot be assigned"),
    "scale": (lambda: rf.init.VarianceScaling(-1.0), "`scale` must be above 0"),
    "mode": (lambda: rf.init.Glorot(mode="fan"), "`mode` must be"),
    "module": (lambda: rf.ModuleList(3), "made of modules and functions, but got 3"),
    "no class": (lambda: rf.build_from_dict({"x": 1}), 'must have a "class"'),
    "unknown class": (lambda: rf.build_from_dict({"class": "rf.Linaer"}), "'rf.Linaer' does not exist"),
    "unknown module": (lambda: rf.build_from_dict({"class": "no.such.Thing"}), "no module defines the class"),
    "no name": (lambda: rf.build_from_dict({"class": "Thing"}), 'must be named "rf.NAME"'),
    "an instance": (lambda: rf.build_dict(Pair()), "needs a class or a function"),
    "option twice": (lambda: rf.build_from_dict({"class": "rf.State", "x": 1}, x=2), "given in the dict and"),
    "unknown name": (lambda: rf.gahter, r'rf.gahter does not exist; did you mean "gather"'),
    "other backend": (lambda: rf.select_backend_returnn_layers_tf, "TensorFlow backend, which is not supported"),
}


@pytest.mark.parametrize("call, text", WRONG.values(), ids=WRONG)
def test_wrong_use_is_told_in_one_line(call, text):
    with pytest.raises(ConfigError, match=text) as caught:
        call()
    assert str(caught.value).startswith(__file__) and "\n" not in str(caught.value)


def test_copies_are_drawn_again():
    first = Affine()
    again = copy.deepcopy(first)
    assert not np.array_equal(values(first.weight), values(again.weight)) and (values(again.bias) == 1).all()
    assert again.weight.dims == (F, G) and again.in_dim is F
    with rf.set_parameter_copy_behavior_ctx("share"):
        assert copy.deepcopy(first).weight is first.weight


def test_initial_values():
    rows, columns, positions = rf.Dim(200, name="in"), rf.Dim(100, name="out"), rf.Dim(3, name="width")
    drawn = values(rf.init.Glorot()([rows, columns], "float32"))
    assert abs(drawn).max() <= np.sqrt(6 / 300) and drawn.std() == pytest.approx(np.sqrt(2 / 300), rel=0.05)
    drawn = values(rf.init.He()([rows, columns], "float32"))
    assert drawn.std() == pytest.approx(np.sqrt(2 / 200), rel=0.05)
    drawn = values(
        rf.init.VarianceScaling(mode="fan_out", distribution="untruncated_normal")(
            [rows, columns, positions], "float32"
        )
    )
    assert drawn.std() == pytest.approx(np.sqrt(1 / 600), rel=0.05)
    assert abs(values(rf.init.Normal(0.1)([rows], "float32"))).max() <= 0.2


def test_lists_of_modules():
    layers = rf.ModuleList({"a": Affine(), "7": Affine()})
    assert layers.keys() == ["a", "1"] and layers["a"] is layers[0] and layers[-1] is layers["1"]
    layers.append(rf.relu)
    assert layers.keys() == ["a", "1", "2"] and repr(layers[2]) == "Functional(relu)"
    layers[1:2] = [Affine(), Affine(), Affine()]
    assert layers.keys() == ["a", "1", "2", "3", "4"] and len(layers[1:3]) == 2 and layers[1:3].keys() == ["0", "1"]
    del layers[0]
    assert layers.keys() == ["0", "1", "2", "3"] and [type(m).__name__ for m in layers][3] == "Functional"
    collected = {}
    found = rf.Sequential(Affine(), rf.relu)(random([B, F]), collected_outputs=collected)
    assert list(collected) == ["0", "1"] and found is collected["1"]
    params = rf.ParameterList({"mean": rf.Parameter([F])})
    assert params.mean is params["mean"] and len(params) == 1


def test_dicts_of_modules():
    found = rf.build_dict(Affine, scale=3.0)
    assert found == {"class": f"{__name__}.Affine", "scale": 3.0} and rf.build_dict(rf.relu) == {"class": "rf.relu"}
    made = rf.build_from_dict({"class": "rf.RunningMean", "alpha": 0.1}, F)
    assert isinstance(made, rf.RunningMean) and rf.build_from_dict({"class": "rf.relu"}) is rf.relu
    assert rf.build_from_dict({"class": "rf.full", "fill_value": 2})(dims=[F]).dims == (F,)
    assert _get_cls_name(bridge.RFModuleAsPTModule) == "returnn.frontend.bridge.RFModuleAsPTModule"
    assert rf.build_from_dict({"class": "returnn.frontend.state.State"}, x=1).x == 1


def test_hooks():
    net, seen = Affine(), []
    first = net.register_forward_hook(lambda module, args, kwargs, out: seen.append(len(args)) or out + 1.0)
    second = net.register_forward_hook(lambda module, args, kwargs, out: out * 2.0, prepend=True)
    x = random([B, F])
    plain = values(x) @ values(net.weight) + 1
    same(net(x), (B, G), 2 * plain + 1)
    assert seen == [1] and isinstance(net, Affine) and type(Affine()) is Affine
    first.remove()
    second.remove()
    same(net(x), (B, G), plain)


def test_parametrizations():
    net = Affine()
    weight = net.weight
    rf.register_parametrization(net, "weight", lambda param: param * 2.0)
    same(net.weight, (F, G), 2 * values(weight))
    assert dict(net.named_parameters())["weight"] is weight and type(net).__name__ == "ParametrizedAffine"
    assert rf.is_parametrized(net, "weight") and not rf.is_parametrized(net, "bias") and type(Affine()) is Affine
    rf.remove_parametrization(net, "weight")
    assert net.weight is weight and type(net) is Affine
    rf.weight_noise(net, "weight", std=0.1)
    assert not torch.equal(net.weight.raw_tensor, net.weight.raw_tensor)
    with rf.get_run_ctx().train_flag_ctx(False):
        assert net.weight is weight
    with pytest.raises(ValueError, match="parametrized already"):
        rf.weight_noise(net, "weight", std=0.1)
    with pytest.raises(TypeError, match="must be a parameter"):
        rf.weight_noise(net, "out_dim", std=0.1)


def test_dropout():
    many = rf.Dim(500, name="many")
    found = values(rf.dropout(rf.ones([B, many, F]), 0.25, axis=[many]))
    assert (found == found[:1, :, :1]).all() and set(np.unique(found.round(4))) == {0, np.float32(1.3333)}
    assert 0.15 < (found == 0).mean() < 0.35
    x = rf.ones([B])
    assert rf.dropout(x, 0.0) is x
    with rf.get_run_ctx().train_flag_ctx(False, func=rf.dropout):
        assert rf.dropout(x, 0.5) is x
    for options, text in (({"axis": True}, "`axis` must be"), ({"axis": F}, "has no axis")):
        with pytest.raises(ConfigError, match=text):
            rf.dropout(x, 0.5, **options)


def test_running_mean_and_points():
    mean = rf.RunningMean(F, alpha=0.5)
    x = random([B, F])
    same(mean(x), (F,), values(x).mean(0) / 2)
    with rf.get_run_ctx().train_flag_ctx(False):
        same(mean(x), (F,), values(x).mean(0) / 2)
    line = rf.PiecewiseLinear({0: 1.0, 10: 0.5, 20: 2.0})
    same(line(rf.convert_to_tensor(np.array([-1.0, 5, 15, 30], "float32"), dims=[F])), (F,), [1, 0.75, 1.25, 2])
    rf.get_run_ctx().step = 15
    assert float(values(rf.PiecewiseLinearStepwiseScheduler({0: 1.0, 10: 0.5, 20: 2.0})(3, x=4))) == 1.25


def test_as_torch_modules():
    pair = Pair()
    pair.tied = pair.first.bias
    module = bridge.rf_module_to_pt_module(pair)
    state = module.state_dict()
    assert {"count", "first.weight", "inner.0.weight", "inner.1.1.bias", "tied"} <= set(state)
    assert [name for name, _ in module.named_buffers()] == ["count"] and module.rf_module is pair
    module.to(torch.float64)
    assert pair.first.weight.dtype == "float64" and pair.first.weight.raw_tensor is module.first.weight
    assert bridge.wrapped_pt_module_to_rf_module(module) is pair
    linear = torch.nn.Linear(4, 2)
    wrapped = bridge.pt_module_to_rf_module(linear)
    assert wrapped.weight.raw_tensor is linear.weight and bridge.rf_module_to_pt_module(wrapped) is linear
