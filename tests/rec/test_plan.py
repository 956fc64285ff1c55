"""The plan of a loop: a pure function of who reads whom."""

from returnn_lite.rec.plan import Item, make_plan


def item(name, current="", previous="", **more):
    return Item(name, frozenset(current.split()), frozenset(previous.split()), **more)


def places(items, **how):
    plan = make_plan(items, **how)
    return list(plan.before), list(plan.inside), list(plan.after)


def test_without_feedback_nothing_stays():
    items = [item("a"), item("b", "a", "a"), item("output", "b")]
    before, inside, after = places(items)
    assert inside == [] and sorted(before + after) == ["a", "b", "output"]


def test_feedback_stays():
    items = [
        item("emb"),
        item("s", "emb", "att"),
        item("att", "s", "att"),
        item("readout", "s att", "emb"),
        item("output", "readout"),
    ]
    assert places(items) == (["emb"], ["s", "att"], ["readout", "output"])


def test_order_is_kept_among_moved_layers():
    """A layer before the loop that reads another one's previous frame comes after it."""
    items = [item("reader", previous="source_"), item("source_"), item("s", "reader", "s"), item("output", "s")]
    assert places(items)[0] == ["source_", "reader"]


def test_choices_stay():
    decided = item("output", "prob", stays="makes a search choice")
    items = [item("prob", previous="output"), decided, item("x", "output")]
    assert places(items) == ([], ["prob", "output"], ["x"])


def test_not_before():
    items = [item("a", not_before="unknown length"), item("s", "a", "s"), item("output", "s")]
    plan = make_plan(items)
    assert plan.inside == ("a", "s") and plan.reasons["a"] == "unknown length"
    assert places([item("a", not_before="unknown length"), item("output", "a")])[2] == ["a", "output"]


def test_layers_that_stand_together_stay_together():
    items = [item("a", together=frozenset("s")), item("s", "a", "s"), item("b", "s", together=frozenset("a"))]
    plan = make_plan([*items, item("output", "b")])
    assert (plan.before, plan.inside, plan.after) == ((), ("a", "s", "b"), ("output",))
    assert plan.reasons["a"] == "stands with s" and plan.reasons["b"] == "stands with a"
    outside = [item("a", together=frozenset("b")), item("b", "a", together=frozenset("a")), item("output", "b")]
    assert make_plan(outside).inside == ()


def test_switched_off():
    items = [item("a"), item("output", "a")]
    plan = make_plan(items, optimize=False)
    assert plan.inside == ("a", "output") and plan.reasons["a"] == "optimize_move_layers_out is off"


def test_text_names_the_reasons():
    text = make_plan([item("s", previous="s"), item("t", "s", "t"), item("output", "t")]).text()
    assert "inside: s (reads s of the previous tick)" in text
    assert "inside: t (reads t of the previous tick and reads s, which runs inside)" in text
    assert text.endswith("after the loop: output")


def test_parts_stand_behind_their_layer():
    plan = make_plan([item("s", previous="s"), item("output", "s")])
    plan = plan.with_parts({"s": ["s/1"]})
    assert plan.inside == ("s", "s/1") and plan.reasons["s/1"] == "part of s"
