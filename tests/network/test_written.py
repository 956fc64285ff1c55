"""Nets as people write them: constructed, run, trained a step, and with known numbers where these can be said.

With layers moved out of loops and with all of them inside the numbers are the same.
"""

import pytest
import torch

from tests.nets import batch, gradients, network, randomised, valid_part
from tests.network.written import attention, axes, cells, subnets, transducers

FAMILIES = (cells, axes, subnets, transducers, attention)
CASES = {name: case for family in FAMILIES for name, case in family.CASES.items()}
SEARCHES = {name: case for name, case in CASES.items() if case.search}
MOVES = {name: case for name, case in CASES.items() if case.moves}
all_nets = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def made(case, **config):
    """The network with random parameters, and its batch."""
    return randomised(network(case.layers, case.keys, **case.config, **config)), batch(case.keys, case.lengths)


def test_there_are_no_two_of_a_name():
    assert len(CASES) == sum(len(family.CASES) for family in FAMILIES)


@all_nets
def test_runs(case):
    net, data = made(case)
    out = net(*data)["output"].batch_major()
    assert out.data.numel() and torch.isfinite(valid_part(out).to(torch.float64)).all()
    if case.expected is not None:
        values = {**data[0], **{n: p.detach() for n, p in net.params.items()}}
        expected = out.with_data(case.expected(values))
        torch.testing.assert_close(valid_part(out), valid_part(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", [c for c in CASES.values() if c.trains], ids=[n for n, c in CASES.items() if c.trains])
def test_a_step_lowers_the_objective(case):
    net, data = made(case)
    objective = net(*data).objective
    grads = gradients(net, objective)
    size = sum(float(g.square().sum()) for g in grads.values())
    assert size > 0 and torch.isfinite(torch.tensor(size)) and all(g.abs().sum() > 0 for g in grads.values()), grads
    with torch.no_grad():
        for name, grad in grads.items():
            net.params[name] -= 1e-3 * grad / size**0.5
    assert float(net(*data).objective.detach()) < float(objective.detach())
    assert torch.isfinite(net.train()(*data).objective)


@pytest.mark.parametrize("case", MOVES.values(), ids=MOVES)
def test_moved_out_or_not(case):
    results = []
    for moved in (True, False):
        net, data = made(case, optimize_move_layers_out=moved)
        out = net(*data)
        shown = valid_part(out["output"].batch_major()).to(torch.float64)
        results.append((shown, gradients(net, out.objective) if case.trains else {}))
    (first, grads), (second, others) = results
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
    assert grads.keys() == others.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, others[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("case", SEARCHES.values(), ids=SEARCHES)
def test_searches(case):
    results = []
    for moved in (True, False):
        net = randomised(network(case.layers, case.keys, search=True, optimize_move_layers_out=moved, **case.config))
        with torch.no_grad():
            out = net(*batch(case.keys, case.lengths))["output"].batch_major()
        results.append(out)
    first, second = results
    assert first.data.shape == second.data.shape and torch.equal(first.data, second.data)
    assert first.spec.sparse and int(first.data.max()) < (first.spec.dim or 0)


IN_LATER_VERSIONS = (
    *("an LSTM of four linear layers", "a loop over the axis of the data", "a sub-network of cells"),
    *("additive attention", "location aware attention", "attention over the frames of the loop itself"),
    "the sum over all alignments in the loop",
)


@pytest.mark.parametrize("name", IN_LATER_VERSIONS)
def test_later_versions_give_the_same(name):
    case = CASES[name]
    first, second = (made(case, behavior_version=version) for version in (0, 22))
    outputs = [valid_part(net(*data)["output"].batch_major()) for net, data in (first, second)]
    torch.testing.assert_close(*outputs)


DECODERS = {name: case for name, case in CASES.items() if "classes" in case.lengths and case.search}


@pytest.mark.parametrize("case", DECODERS.values(), ids=DECODERS)
def test_only_empty_targets(case):
    for moved in (True, False):
        net = randomised(network(case.layers, case.keys, optimize_move_layers_out=moved, **case.config))
        out = net(*batch(case.keys, {**case.lengths, "classes": [0, 0, 0]}))
        assert out["output"].batch_major().data.shape == (3, 0)
        assert float(out.objective.detach()) == 0
        grads = gradients(net, out.objective)
        assert all(torch.isfinite(g).all() for g in grads.values())
