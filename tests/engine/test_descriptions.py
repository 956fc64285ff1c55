"""Descriptions of nets whose axes are made anew."""

import pytest
import torch

from returnn_lite.compat.config_dims import FeatureDim
from returnn_lite.engine.models.descriptions import description_diff, dims_in, same_description
from returnn_lite.tensor import Dim, batch_dim
from returnn_lite.tensor.dim import FEATURE
from tests.engine.helpers import options, run


def net(*, size=5, name="hidden", other="other", twice=False, kind=FEATURE):
    hidden, time = Dim(size, name, kind=kind), Dim(None, "time")
    last = hidden if twice else Dim(5, other, kind=FEATURE)
    return {
        "h": {"class": "linear", "out_dim": hidden, "from": "data"},
        "g": {"class": "linear", "in_dim": hidden, "out_dim": last, "from": "h"},
        "s": {"out_shape": {batch_dim, time, last}, "dims": {time: 3, hidden: [2 * hidden, time.ceildiv(2)]}},
    }


def test_axes_made_anew_are_no_difference():
    assert same_description(net(), net()) and list(description_diff(net(), net())) == []
    assert same_description(net(other="hidden"), net(other="hidden"))


@pytest.mark.parametrize("changes", [
    {"size": 6}, {"name": "x"}, {"other": "x"}, {"kind": "spatial"}, {"twice": True, "other": "hidden"},
])  # fmt: skip
def test_other_axes_are_one(changes):
    first = net(other=changes.get("other", "other") if "twice" in changes else "other")
    assert not same_description(first, net(**changes)) and not same_description(net(**changes), first)
    if "twice" not in changes:
        assert list(description_diff(first, net(**changes)))


def test_axes_of_the_data_stand_for_themselves():
    time = Dim(None, "time")
    extern = {"data": {"dims": [batch_dim, time]}}
    assert dims_in(extern) == {batch_dim, time}
    assert same_description({"axis": time}, {"axis": time}, dims_in(extern))
    for a, b in ((time, Dim(None, "time")), (Dim(None, "time"), time)):
        assert not same_description({"axis": a}, {"axis": b}, dims_in(extern))
        assert list(description_diff({"axis": a}, {"axis": b}, dims_in(extern)))


def get_network(made):
    static = Dim(5, "hidden", kind=FEATURE)

    def network(epoch, **_):
        hidden = static if made == "once" else Dim(5, "hidden", kind=FEATURE)
        return {
            "h": {"class": "linear", "activation": "tanh", "out_dim": hidden, "from": "data"},
            "output": {"class": "softmax", "from": "h", "in_dim": hidden, "loss": "ce", "target": "classes"},
        }

    return network


def test_the_optimizer_keeps_its_state(tmp_path):
    changes = {"network": None, "num_epochs": 3}
    lines = {made: run(options(tmp_path / made, get_network=get_network(made), **changes)) for made in ("once", "anew")}
    assert not any(line.startswith("reinit") for line in lines["anew"])
    once, anew = (torch.load(tmp_path / made / "model.003.pt", weights_only=True)["model"] for made in lines)
    assert all(torch.equal(once[name], anew[name]) for name in once)


def test_axes_as_configs_make_them():
    def described():
        hidden = FeatureDim("hidden", 5)
        return {"h": {"out_dim": hidden}, "g": {"in_dim": hidden, "out_dims": [2 * hidden]}}

    assert same_description(described(), described())
    assert not same_description(
        described(), {"h": {"out_dim": FeatureDim("hidden", 5)}, "g": {"in_dim": FeatureDim("hidden", 5)}}
    )
    assert len(dims_in(described())) == 2
