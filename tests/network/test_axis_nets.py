"""The nets of `axis_nets.py` and `module_nets.py`: constructed, run, compared with numpy, trained a step; and what is
refused."""

import dataclasses

import numpy as np
import pytest
import torch

from returnn_lite.errors import ConfigError
from returnn_lite.tensor import Dim
from returnn_lite.tensor.masked import mask_all
from tests.nets import gradients, network, random_values, randomised
from tests.network.axis_nets import ROWS, TAGGED, M, N, fresh, of
from tests.network.module_nets import DECODER, MODULE_ROWS, SPOKEN, loop


def made_batch(net):
    """Random data for all keys, 0 after the sequence ends, and the lengths: those of the axis "other" are `M`."""
    data, lengths = {}, {}
    for number, (key, spec) in enumerate(net.extern_data.specs.items()):
        known = {d: M if d.name == "other" else N for d in spec.dims if d.dynamic}
        order = [d for d in spec.dims if not d.is_batch]
        front = [len(N)] if spec.batch is not None else []
        shape = (*front, *(max(known[d]) if d.dynamic else d.size for d in order))
        x = random_values(spec, shape, number)
        for dim, n in known.items():
            at = order.index(dim) + 1
            inside = torch.arange(shape[at]) < torch.tensor(n).unsqueeze(1)
            x = x * inside.reshape([len(n) if i == 0 else shape[at] if i == at else 1 for i in range(len(shape))])
            lengths[key] = torch.tensor(n, dtype=torch.int32)
        data[key] = x.to(random_values(spec, shape, number).dtype)
    return data, lengths


def values(x):
    """The output in numpy, batch-major, 0 after the sequence ends."""
    x = x.batch_major()
    valid = mask_all(x)
    data = x.data if valid is None else torch.where(valid, x.data, torch.zeros((), dtype=x.data.dtype))
    return data.detach().numpy()


ALL = [*ROWS, *(dataclasses.replace(row, name=f"module: {row.name}") for row in MODULE_ROWS)]


@pytest.mark.parametrize("case", ALL, ids=[case.name for case in ALL])
def test_net(case):
    net = network(case.layers, case.data, **case.config)
    if case.value is None:
        randomised(net)
    data, lengths = made_batch(net)
    out = net(data, lengths, ["a", "b", "c"])["output"]
    assert [d.size or n for d, n in zip(out.spec.dims, out.data.shape, strict=True)] == list(out.data.shape)
    assert case.shape in (None, tuple(out.data.shape))
    if case.value is not None:
        expected = case.value({key: x.numpy() for key, x in data.items()})
        np.testing.assert_allclose(values(out), expected, rtol=1e-5, atol=1e-6)
    trained_step(net, data, lengths)


def trained_step(net, data, lengths):
    """One step against the gradient of the losses, or of the squares of the output: all numbers stay finite."""
    net.train()
    out = net(data, lengths, ["a", "b", "c"])
    objective = out.objective if out.losses else out["output"].data.double().square().sum()
    grads = gradients(net, objective)
    for name, grad in grads.items():
        assert torch.isfinite(grad).all(), name
        with torch.no_grad():
            net.params[name].sub_(0.01 * grad)
    assert torch.isfinite(net(data, lengths, ["a", "b", "c"])["output"].data.double()).all()


def refused(layers, *words):
    with pytest.raises(ConfigError) as caught:
        network(layers, TAGGED)
    for word in (*words, 'network["'):
        assert word in str(caught.value), str(caught.value)


def test_given_dims_that_do_not_fit_are_refused():
    conv = {"filter_size": [3], "padding": "same", "n_out": 3}
    refused(
        {"output": of("conv", out_spatial_dims=[fresh("a"), fresh("b")], **conv)}, "out_spatial_dims", "per spatial"
    )
    refused({"output": of("conv", out_spatial_dims=[fresh("seven", 7)], **conv)}, "seven", "size")
    refused({"output": of("gating", activation=None, out_dim=fresh("three", 3))}, "three", "size")
    refused({"output": of("pad", axes="T", padding=1, out_dims=[fresh("a"), fresh("b")])}, "out_dims", "per axis")
    refused({"output": of("split", out_dims=[Dim(None, "a"), Dim(None, "b")])}, "at most one")
    refused({"output": of("top_k", axis="F", k=0)}, "positive")


def test_a_search_that_looks_labels_up_in_a_variable():
    """What has no batch axis is read by all hypotheses."""
    layers = {"output": {"class": "decide", "from": "dec"}, "dec": loop(DECODER, max_seq_len=4)}
    net = randomised(network(layers, SPOKEN, search=True, behavior_version=20))
    data, lengths = made_batch(net)
    out = net(data, lengths, ["a", "b", "c"])["output"]
    assert out.spec.sparse and out.data.shape[0] == 3 and out.data.shape[1] <= 4


def test_a_dim_stands_for_the_axis_of_the_net_that_is_alive():
    """The same config makes several nets (training, search): the lengths are those of each."""
    given = fresh("given")
    layers = {
        "down": of("pool", mode="max", pool_size=[2], padding="same", out_spatial_dims=[given]),
        "output": of("reduce", "down", mode="sum", axis=given),
    }
    plain = {"data": {"dim": 4}}
    first, second = network(layers, plain), network(layers, plain)
    for net in (first, second, first):
        data, lengths = made_batch(net)
        down = net(data, lengths)["down"]
        assert down.length(given.core).values.tolist() == [3, 2, 2]
