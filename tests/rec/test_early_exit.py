"""Sequences that leave the batch of a search: what is found is the same, and the ticks left compute fewer rows."""

import pytest
import torch

from returnn_lite.rec import ticks
from returnn_lite.rec.early_exit import may_leave
from returnn_lite.rec.tick_state import TickState
from tests.nets import network, randomised, valid_part
from tests.rec.decoders import ATTENTION, PLAIN, SEARCH_KEYS, decoder
from tests.rec.nets import batch

SIZES = [5, 2, 4, 1, 3, 5]
SHOWN = {"is_output_layer": True}
CODED = {**PLAIN, "s": {**PLAIN["s"], "from": ["emb", "prev:s", "base:code"]}}  # other hypotheses for each sequence
COUNTER = {"position": {"class": "combine", "kind": "add", "from": [":i", "base:size"], **SHOWN}}
UNITS = {"coded": CODED, "attention": {**ATTENTION, "s": {**ATTENTION["s"], **SHOWN}}, "counter": {**CODED, **COUNTER}}


def net_of(unit, *, optimize=True, **options):
    layers = decoder(unit, max_seq_len=9, **options)
    layers["output"]["optimize_move_layers_out"] = optimize
    layers["code"] = {"class": "reduce", "mode": "mean", "axis": "T", "from": "data"}
    layers["size"] = {"class": "length", "from": "data"}
    return network(layers, SEARCH_KEYS, search=True)


def searched(net, seed):
    """The outputs of a search with random parameters."""
    torch.manual_seed(seed)
    randomised(net, scale=1.3)
    with torch.no_grad():
        for param in net.params.values():
            param.add_(torch.randn(param.shape))
        return net(*batch(SEARCH_KEYS, {"data": SIZES, "classes": SIZES}, size=len(SIZES)))


@pytest.fixture
def rows(monkeypatch):
    """Collects the number of hypotheses of every tick."""
    counts = []
    count = TickState.count

    def counted(self, now, **options):
        counts.append(self.beam.source.numel() if self.beam is not None else 0)
        count(self, now, **options)

    monkeypatch.setattr(TickState, "count", counted)
    return counts


@pytest.mark.parametrize("choice", [{}, {"length_normalization": False}, {"length_normalization_exponent": 0.6}])
@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("unit", UNITS)
def test_the_same_is_found(unit, beam, choice, rows, monkeypatch):
    net, left = net_of(UNITS[unit], beam=beam, optimize=unit != "counter", **choice), 0
    for seed in range(6):
        rows.clear()
        found = searched(net, seed)
        left += rows[0] > rows[-1]
        with monkeypatch.context() as patch:
            patch.setattr(ticks, "may_leave", lambda program: False)
            rows.clear()
            expected = searched(net, seed)
        assert len(set(rows)) == 1
        torch.testing.assert_close(found["output"].beam.scores, expected["output"].beam.scores)
        assert torch.equal(found["output"].beam.source, expected["output"].beam.source)
        for name in ("output", "decision"):
            torch.testing.assert_close(valid_part(found[name]), valid_part(expected[name]))
        for name, x in expected["output"].parts.items():
            torch.testing.assert_close(valid_part(found["output"].parts[name]), valid_part(x))
    assert left >= 3


HIDDEN = {"h": CODED["s"]}
STAYING = {
    "function": {**HIDDEN, "s": {"class": "eval", "from": "h", "eval": lambda source, **_: source(0) * 2}},
    "self": {**HIDDEN, "s": {"class": "eval", "from": "h", "eval": "source(0) * (2 - self.network.train_flag)"}},
    "batch norm": {"s": {**CODED["s"], "batch_norm": {"masked_time": False}}},
    "mean over the batch": {
        **HIDDEN,
        "all": {"class": "reduce", "mode": "mean", "axis": "B", "from": "h"},
        "s": {"class": "combine", "kind": "add", "from": ["h", "all"]},
    },
    "scores": {"scores": {"class": "choice_get_beam_scores", "from": "output", **SHOWN}},
}


@pytest.mark.parametrize("name", STAYING)
def test_layers_that_see_the_batch_keep_it_whole(name, rows):
    net = net_of({**CODED, **STAYING[name]}, beam=2)
    ends = []
    for seed in range(12):
        rows.clear()
        found = searched(net, seed)["output"]
        ends.append(found.length(found.spec.dims[0]).values.unflatten(0, (-1, 2)).amax(1))
        assert set(rows) == {len(SIZES) * 2}
    assert any(len(set(n.tolist())) > 1 for n in ends)  # some could have left


@pytest.mark.parametrize("choice", [{"random_sample_scale": 0.1}, {"base_beam_score_scale": 0.9}])
def test_searches_whose_ended_hypotheses_may_change_places_keep_the_batch_whole(choice, rows):
    net = net_of(CODED, beam=2, **choice)
    for seed in range(3):
        searched(net, seed)
    assert set(rows) == {len(SIZES) * 2}


def test_outputs_without_batch_made_of_sequences_keep_it_whole():
    """What puts sequences together; what reads none may have no batch axis."""
    mean = {"class": "reduce", "mode": "mean", "axis": "B", "from": "s", **SHOWN}
    counted = {"class": "combine", "kind": "add", "from": [":i", ":i"], **SHOWN}
    nets = {n: net_of({**CODED, "all": x}, beam=2, optimize=False) for n, x in (("mean", mean), ("counted", counted))}
    found = {name: may_leave(net.layers["output"].program) for name, net in nets.items()}
    assert found == {"mean": False, "counted": True}


def test_loops_that_do_not_end_by_one_choice_keep_the_batch_whole():
    layers = net_of(CODED, beam=2).origin.description
    unit = layers["output"]["unit"]
    second = {**unit["output"], "from": "prob"}
    two = {**unit, "second": second, "more": {**unit["emb"], "from": "prev:second"}}
    two["s"] = {**unit["s"], "from": ["emb", "more", "prev:s"]}
    endless = {"from": "data", "unit": {name: entry for name, entry in unit.items() if name != "end"}}
    programs = {
        "plain": network(layers, SEARCH_KEYS, search=True),
        "of known length": network({**layers, "output": {**layers["output"], **endless}}, SEARCH_KEYS, search=True),
        "two choices": network({**layers, "output": {**layers["output"], "unit": two}}, SEARCH_KEYS, search=True),
    }
    found = {name: may_leave(net.layers["output"].program) for name, net in programs.items()}
    assert found == {"plain": True, "of known length": False, "two choices": False}


def test_a_search_in_training_mode_keeps_the_batch_whole(rows):
    net = net_of(CODED, beam=2).train()
    for seed in range(3):
        rows.clear()
        searched(net, seed)
        assert set(rows) == {len(SIZES) * 2}


def test_hypotheses_from_outside_stay(rows):
    """A second search goes on from the hypotheses of a first one."""
    layers = net_of(CODED, beam=2).origin.description
    first = layers["output"]
    unit = {**first["unit"], "s": {**first["unit"]["s"], "from": ["emb", "prev:s", "base:last"]}}
    last = {"class": "choice_get_beam_scores", "from": "first"}
    found = {"class": "expand_dims", "axis": "F", "from": "scores"}
    more = {"first": first, "scores": last, "last": found, "output": {**first, "unit": unit}}
    net, ends = network({**layers, **more}, SEARCH_KEYS, search=True), set()
    for seed in range(6):
        rows.clear()
        searched(net, seed)
        begin = max(i for i in range(len(rows)) if i == 0 or rows[i] > rows[i - 1])
        ends |= set(rows[begin:])
    assert ends == {len(SIZES) * 2}
