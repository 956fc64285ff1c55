"""Plans: which layers of a loop run before, inside and after it, and why."""

import pytest

from returnn_lite.rec.plan import Item, make_plan
from tests.rec.nets import ATTENTION, LANGUAGE_MODEL, SIMPLE, decoder, linear, make, softmax


def items(graph):
    """ "a: b prev:c !why ?why" -> layer a reads b and the last c; ! must stay inside, ? must not run before."""
    made = []
    for line in graph.strip().splitlines():
        name, _, rest = line.strip().partition(":")
        words = rest.split()
        stays = " ".join(w[1:] for w in words if w.startswith("!"))
        not_before = " ".join(w[1:] for w in words if w.startswith("?"))
        reads = [w for w in words if w[0] not in "!?"]
        previous = frozenset(w.removeprefix("prev:") for w in reads if w.startswith("prev:"))
        current = frozenset(w for w in reads if not w.startswith("prev:"))
        made.append(Item(name, current, previous, stays, not_before))
    return made


GRAPHS = {
    "nothing is read of the last tick": ("a:\n b: a\n output: b", "", "", "a b output"),
    "only the labels of the last tick": ("output:\n emb: prev:output\n s: emb\n prob: s", "", "", "output emb s prob"),
    "a layer reads itself": ("emb:\n s: emb prev:s\n prob: s", "emb", "s", "prob"),
    "two layers read each other": (
        "in:\n a: in prev:b\n b: a\n out: a b\n loss: out",
        "in", "a b", "out loss",
    ),
    "a layer that is read by both inside and outside": ("in:\n s: in prev:s\n out: in s", "in", "s", "out"),
    "what must stay keeps what it reads": ("emb:\n s: emb\n output: s !choice", "emb s", "output", ""),
    "what must stay keeps what reads its past": (
        "emb: prev:output\n s: emb\n prob: s\n output: prob !choice\n extra: s",
        "", "emb s prob output", "extra",
    ),
    "what cannot run before": ("a: ?new\n s: a prev:s\n out: s", "", "a s", "out"),
    "after only, though it must not run before": ("s: prev:s\n a: s ?new", "", "s", "a"),
    "a chain of previous references without a circle": ("a:\n b: prev:a\n c: prev:b\n d: prev:c", "", "", "a b c d"),
    "a circle over three ticks": ("a: prev:c\n b: prev:a\n c: prev:b\n d: c", "", "a b c", "d"),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_places(name):
    graph, before, inside, after = GRAPHS[name]
    plan = make_plan(items(graph))
    assert (plan.before, plan.inside, plan.after) == (*map(tuple, map(str.split, (before, inside, after))),)


def test_every_layer_inside_has_a_reason():
    plan = make_plan(items("in:\n a: in prev:b\n b: a\n x: prev:x !choice\n new: ?new\n y: new prev:y\n z: y"))
    assert plan.reasons == {
        "a": "reads b of the previous tick",
        "b": "reads a, which runs inside",
        "x": "choice",
        "new": "new",
        "y": "reads y of the previous tick and reads new, which runs inside",
    }


def test_switched_off_all_stay_inside():
    plan = make_plan(items("a:\n b: a"), optimize=False)
    assert plan.inside == ("a", "b") and set(plan.reasons.values()) == {"optimize_move_layers_out is off"}


def test_the_order_of_layers_is_kept_in_each_place():
    plan = make_plan(items("c:\n a:\n b: a c\n s: b prev:s\n z: s\n y: s z"))
    assert plan.before == ("c", "a", "b") and plan.after == ("z", "y")


def test_text_for_the_log():
    text = make_plan(items("in:\n s: in prev:s\n out: s")).text()
    assert text == "  before the loop: in\n  inside: s (reads s of the previous tick)\n  after the loop: out"
    assert "inside: nothing" in make_plan(items("a:")).text() and "before the loop: nothing" in make_plan([]).text()


# --- plans of nets -------------------------------------------------------------------------------------------------


def places(net, **flags):
    plan = make(net, **flags).program.names["output"].layer.program.plan
    return set(plan.before), set(plan.inside), set(plan.after), plan.reasons


def test_attention_decoder_in_training():
    before, inside, after, reasons = places(decoder(ATTENTION))
    assert before == {"output", "emb"} and after == {"readout", "prob"}
    assert inside == {"s", "energy_in", "energy_tanh", "energy", "weights", "att"}
    assert reasons["s"] == "reads att of the previous tick" and reasons["att"] == "reads weights, which runs inside"


def test_attention_decoder_in_search():
    before, inside, after, reasons = places(decoder(ATTENTION), search=True)
    assert before == set() and after == set() and "end" in inside
    assert reasons["output"] == "makes a search choice" and reasons["end"] == "the end of the loop"


def test_a_language_model_needs_no_loop():
    before, inside, after, _ = places(decoder(LANGUAGE_MODEL))
    assert inside == set() and before | after == {"output", "emb", "s", "prob"}


def test_the_end_layer_runs_only_where_the_length_depends_on_it():
    for places_of_end in places(decoder(SIMPLE))[:3]:
        assert "end" not in places_of_end


def test_sub_networks_are_planned_layer_by_layer():
    inner = {"in": linear("data"), "output": linear(["in", "prev:output"])}
    sub = {"class": "subnetwork", "from": "prev:output", "subnetwork": inner}
    before, inside, after, _ = places(decoder({"s": sub}))
    assert "s/in" in before and "s/output" in inside and "prob" in after


def test_readers_of_the_counter_run_before_a_loop_of_known_length():
    as_float = {"eval": "tf.cast(source(0), tf.float32)", "out_type": {"dtype": "float32"}}
    counter = {"class": "eval", "from": ":i", **as_float}
    unit = {**SIMPLE, "i": counter, "x": {"class": "combine", "kind": "add", "from": ["s", "i"]}, "prob": softmax("x")}
    before, inside, after, _ = places(decoder(unit))
    assert inside == {"s"} and "i" in before | after and {"x", "prob"} <= after
    _, inside, _, reasons = places(decoder(unit), search=True)
    assert "i" in inside and reasons["i"] == "the number of ticks is known only at the end of the loop"


def test_switched_off_by_the_config_or_the_layer():
    for net, config in (
        (decoder(LANGUAGE_MODEL), {"optimize_move_layers_out": False}),
        (decoder(LANGUAGE_MODEL, optimize_move_layers_out=False), {}),
    ):
        before, inside, after, _ = places(net, **config)
        assert before == after == set() and inside == {"output", "emb", "s", "prob"}
    net = decoder(LANGUAGE_MODEL, optimize_move_layers_out=True)
    assert places(net, optimize_move_layers_out=False)[1] == set()
