"""Rows of the layer table for layers around loops and their searches, and for layers on chosen frames."""

from tests.layers.layer_cases import Case, row

LINEAR = {"class": "linear", "n_out": 3, "from": ["data:source", "prev:h"]}
SHOWN = {"class": "rec", "from": "data", "unit": {"h": {**LINEAR, "is_output_layer": True}, "output": LINEAR}}
LAST = {"class": "rec", "from": "data", "unit": {"h": {**LINEAR, "need_last": True}, "output": LINEAR}}

PROB = {"prob": {"class": "softmax", "from": "data:source", "target": "classes"}}
CHOICE = {"class": "choice", "from": "prob", "target": "classes", "beam_size": 2, "initial_output": 0}
# Without `include_eos` a hypothesis goes on for one frame behind the end of its sequence, as in the reference.
SEARCHED = {"searched": {"class": "rec", "from": "data", "include_eos": True, "unit": {**PROB, "output": CHOICE}}}
OPTIONS = {k: v for k, v in CHOICE.items() if k not in ("class", "from")}
IN_LOOP = {**PROB, "choice": CHOICE}

CHOSEN = {"unit": {"class": "linear", "n_out": 3, "from": "data"}, "mask": "data:flags"}
MASKED = {
    "chosen": {"class": "masked_computation", "from": "data", **CHOSEN},
    "masked": {"class": "copy", "from": "chosen"},
}

SEARCH_CASES: list[Case] = [
    row("get_rec_accumulated", {"sub_layer": "h"}, "loop", extra={"loop": SHOWN}),
    row("rec_last_output", {"rec_layer": "loop", "sub_layer_name": "h"}, (), extra={"loop": LAST}),
    row("choice", OPTIONS, "prob", extra=PROB, loop=True, search=True),
    row("decide", {}, "searched", extra=SEARCHED, search=True),
    row("decide_keep_beam", {}, "searched", extra=SEARCHED, search=True),
    row("decide_keep_beam", {}, "choice", extra=IN_LOOP, loop=True, search=True),
    row("choice_get_beam_scores", {}, "searched", extra=SEARCHED, search=True),
    row("choice_get_beam_scores", {}, "choice", extra=IN_LOOP, loop=True, search=True),
    row("choice_get_src_beams", {}, "choice", extra=IN_LOOP, loop=True, search=True),
    row("split_batch_beam", {}, "searched", extra=SEARCHED, search=True),
    row("masked_computation", CHOSEN, params={"W": (4, 3), "b": (3,)}),
    row("masked_computation", CHOSEN, "data:source", loop=True, params={"W": (4, 3), "b": (3,)}),
    row("unmask", {"mask": "data:flags"}, "masked", extra=MASKED),
    row("unmask", {"mask": "data:flags"}, "base:data:memory", loop=True),
]
