"""Suites over all layer classes: every row of the layer table is held to what all layers promise."""

from collections import Counter

import pytest
import torch

from returnn_lite.config.option_types import option_kinds
from returnn_lite.errors import ConfigError
from returnn_lite.layers.core.registry import layer_class, layer_names, own_options
from returnn_lite.tensor import batch_dim
from returnn_lite.tensor.tensor import DTYPES
from tests.layers import axis_cases, layer_cases, search_cases, signal_cases
from tests.layers.layer_cases import BATCH, KEYS, LENGTHS
from tests.nets import batch, gradients, network, randomised, valid_part

ORDER = [2, 0, 1]
CASES = [*layer_cases.CASES, *axis_cases.AXIS_CASES, *signal_cases.SIGNAL_CASES, *search_cases.SEARCH_CASES]
OTHER_BATCH = axis_cases.OTHER_BATCH
ZERO_TIMES = layer_cases.ZERO_TIMES | axis_cases.ZERO_TIMES
LETS_PADDING_THROUGH = layer_cases.LETS_PADDING_THROUGH | axis_cases.LETS_PADDING_THROUGH
LETS_PADDING_THROUGH |= signal_cases.LETS_PADDING_THROUGH


def ids():
    counts = Counter()
    for case in CASES:
        counts[case.word] += 1
        yield f"{case.word}-{counts[case.word]}"


every_row = pytest.mark.parametrize("case", CASES, ids=ids())


def keys_of(case):
    return {**KEYS, **case.extern}


def description(case):
    """The dict of the tested layer."""
    sources = [case.sources] if isinstance(case.sources, str) else list(case.sources)
    if not case.loop:
        sources = [s if s in case.extra or s not in keys_of(case) else f"data:{s}" for s in sources]
    without = layer_class(case.word, "").sources == "none" and not sources
    return {"class": case.word, **({} if without else {"from": sources}), **case.options}


def layers(case, **more):
    """The net around the tested layer."""
    made = {**case.extra, "it": {**description(case), **more}}
    look = f"it/{case.part}" if case.part else "it"
    if case.loop:
        unit = {**made, "output": {"class": "copy", "from": look}}
        return {"output": {"class": "rec", "from": "data", "unit": unit, "include_eos": case.search}}
    return {**made, "output": {"class": "copy", "from": look}}


def made(case, **more):
    config = {"behavior_version": 21, **case.config}
    return network(layers(case, **more), keys_of(case), search=case.search, **config)


def build(case):
    return randomised(made(case))


def looked_at(case, out):
    return out["output" if case.loop else f"it/{case.part}" if case.part else "it"]


def run(case, net, padding="zeros", train=False, order=None):
    """(output of the layer, gradients by name, loss sums) on the table's batch; `order` re-orders its sequences."""
    data, lengths = batch(keys_of(case), LENGTHS, size=BATCH, padding=padding)
    if order is not None:
        data, lengths = ({k: v[order] for k, v in values.items()} for values in (data, lengths))
    inputs = {f"data:{k}": v.requires_grad_() for k, v in data.items() if v.dtype.is_floating_point}
    net.train(train)
    net.seed(1)
    out = net(data, lengths, [f"seq-{i}" for i in (order or range(BATCH))])
    x = looked_at(case, out)
    objective = out.objective
    if x.data.dtype.is_floating_point:
        weights = torch.randn(x.data.shape, generator=torch.Generator().manual_seed(1))
        objective = objective + (valid_part(x) * weights).sum()
    losses = {n: v.sum.detach() for n, v in out.losses.items() if v.sum is not None}
    return x, gradients(net, objective, inputs), losses


def assert_same(found, expected, what):
    message = lambda text: f"{what}: {text}"  # noqa: E731
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, msg=message)


def test_every_layer_class_has_a_row():
    words = {name for name in layer_names() if "." not in name}
    assert words - {case.word for case in CASES} == set()


@every_row
def test_static_axes_are_those_of_the_output(case):
    net = build(case)
    x, _, _ = run(case, net)
    if not case.part:
        assert x.spec == net.spec("output" if case.loop else "it")
    assert x.data.dim() == x.spec.rank and x.data.dtype == DTYPES[x.spec.dtype]
    rows = BATCH * x.beam.size if x.beam is not None else BATCH
    for axis, dim in enumerate(x.spec.dims):
        size = x.data.shape[axis]
        if dim.is_batch:
            assert size == rows or case.word in OTHER_BATCH
        elif dim.dynamic:
            lengths = x.length(dim)
            assert case.word in OTHER_BATCH or batch_dim not in lengths.dims or lengths.values.shape[-1] == rows
            assert int(lengths.values.max()) <= size
        else:
            assert dim.size == size
    assert x.spec.feature is None or not x.spec.sparse
    if x.spec.sparse and x.spec.dim is not None:
        labels = valid_part(x)
        assert int(labels.min()) >= 0 and int(labels.max()) < x.spec.dim


@every_row
def test_parameters_are_those_of_the_row(case):
    net = build(case)
    prefix = "output/rec/it/" if case.loop else "it/"
    found = {n.removeprefix(prefix): tuple(p.shape) for n, p in net.params.items() if n.startswith(prefix)}
    assert found == dict(case.params)


@every_row
def test_unknown_options_are_refused_with_the_nearest_known_one(case):
    own = [name for name in own_options(layer_class(case.word, "")) if len(name) > 2 and name[0] != "_"]
    for option in (max(own, key=len, default="trainable"), "trainable"):
        with pytest.raises(ConfigError) as caught:
            made(case, **{f"{option}_x": 1})
        assert f'"{option}"?' in str(caught.value) and '["it"]' in caught.value.path


@every_row
def test_values_behind_the_sequence_ends_do_not_matter(case):
    if case.word in LETS_PADDING_THROUGH:
        return
    net = build(case)
    for train in (False, True):
        plain, grads, losses = run(case, net, "zeros", train)
        other, other_grads, other_losses = run(case, build(case), "garbage", train)
        assert_same(valid_part(other), valid_part(plain), "output")
        assert_same(other_losses, losses, "losses")
        for name, grad in grads.items():
            assert_same(other_grads[name], grad, name)


@every_row
def test_nan_behind_the_sequence_ends_does_not_spread(case):
    if case.word in LETS_PADDING_THROUGH | ZERO_TIMES:
        return
    plain, _, losses = run(case, build(case))
    other, _, other_losses = run(case, build(case), "nan")
    assert_same(valid_part(other), valid_part(plain), "output")
    assert_same(other_losses, losses, "losses")


@every_row
def test_sequences_do_not_see_each_other(case):
    if case.word in OTHER_BATCH:
        return
    net = build(case)
    plain, _, _ = run(case, net)
    other, _, _ = run(case, build(case), order=ORDER)
    beam = plain.beam.size if plain.beam is not None else 1
    expected = plain.gather_batch(torch.tensor([b * beam + k for b in ORDER for k in range(beam)]), None)
    assert_same(valid_part(other), valid_part(expected), "output")


@every_row
def test_gradients_in_training_are_finite_and_reach_the_parameters(case):
    x, grads, _ = run(case, build(case), train=True)
    assert bool(torch.isfinite(valid_part(x)).all())
    assert {n: g for n, g in grads.items() if not bool(torch.isfinite(g).all())} == {}
    if x.data.dtype.is_floating_point and x.data.requires_grad and not case.loop:
        assert {n for n, g in grads.items() if n.startswith("it/") and not bool(g.any())} == set()


def test_layers_that_let_padding_through_are_listed():
    marked = {name for name in layer_names() if layer_class(name, "").lets_padding_through}
    assert marked == LETS_PADDING_THROUGH


def test_the_annotations_of_all_options_can_be_read():
    unread = [name for name in layer_names() if own_options(cls := layer_class(name, "")) and not kinds_of(cls)]
    assert unread == []


def kinds_of(cls):
    return option_kinds(cls.__init__)
