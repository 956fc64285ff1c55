"""Training with layers moved out of the loop, and with all inside: the same losses step by step."""

import pytest
import torch

from tests.nets import batch
from tests.rec.nets import ATTENTION, KEYS, LANGUAGE_MODEL, LENGTHS, decoder, linear, make

STEPS = 20
DEEP = {
    "emb": linear("prev:output"),
    "lstm": {"class": "rec", "unit": "nativelstm2", "n_out": 3, "from": ["emb", "prev:lstm"]},
    "s": {"class": "rnn_cell", "unit": "gru", "n_out": 3, "from": ["lstm", "prev:s", "base:last"]},
}
LAST = {"last": {"class": "reduce", "mode": "max", "axes": "T", "from": "encoder"}}
NETS = {
    "attention": decoder(ATTENTION),
    "language model": decoder(LANGUAGE_MODEL),
    "several cells": decoder(DEEP) | LAST,
}


def losses(net, optimize):
    """The losses per frame of 20 steps of SGD on one batch."""
    made = make(net, optimize_move_layers_out=optimize).train()
    plan = made.layers["output"].program.plan
    assert bool(plan.before or plan.after) == optimize
    optimizer = torch.optim.SGD([p for p in made.params.values() if p.requires_grad], lr=0.05, momentum=0.5)
    found = []
    for _ in range(STEPS):
        out = made(*batch(KEYS, LENGTHS))
        optimizer.zero_grad()
        out.objective.backward()
        optimizer.step()
        (loss,) = out.losses.values()
        found.append(loss.sum.item() / loss.inv_norm.item())
    return found


@pytest.mark.parametrize("name", NETS)
def test_twenty_steps_of_training(name):
    moved, inside = losses(NETS[name], True), losses(NETS[name], False)
    assert moved == pytest.approx(inside, rel=0, abs=1e-5)
    assert moved[-1] < 0.9 * moved[0]
