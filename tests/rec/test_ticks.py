"""What the ticks of a loop carry on, and what they give up."""

import torch

from returnn_lite.tensor import Dim
from tests.nets import batch, network, randomised, valid_part
from tests.rec.nets import ATTENTION, KEYS, LENGTHS, decoder, make

HISTORY = Dim(None, "history")
GROWING = {
    "all": {"class": "cum_concat", "from": "data:source", "out_spatial_dim": HISTORY},
    "mixed": {"class": "combine", "kind": "add", "from": ["prev:it", "all"]},
    "energy": {"class": "linear", "n_out": 1, "activation": "tanh", "with_bias": False, "from": "mixed"},
    "weights": {"class": "softmax_over_spatial", "from": "energy", "axis": HISTORY},
    "it": {"class": "generic_attention", "weights": "weights", "base": "all"},
    "output": {"class": "copy", "from": "it"},
}


def test_what_was_made_of_fewer_frames_does_not_hide_the_new_ones():
    """ "prev:it" knows the history of the last tick, which is shorter by one than that of the present one."""
    net = randomised(network({"output": {"class": "rec", "from": "data:frames", "unit": GROWING}}, KEYS))
    data, lengths = batch(KEYS, LENGTHS)
    out = net(data, lengths)["output"].batch_major()
    frames, weight = data["frames"], net.params["output/rec/energy/W"]
    found, before = [], torch.zeros_like(frames[:, 0])
    for tick in range(frames.shape[1]):
        history = frames[:, : tick + 1]
        energy = torch.tanh((before.unsqueeze(1) + history) @ weight)
        before = (energy.softmax(1) * history).sum(1)
        found.append(before)
    torch.testing.assert_close(valid_part(out), valid_part(out.with_data(torch.stack(found, 1))))


def test_values_that_nothing_reads_again_are_given_up():
    program = make(decoder(ATTENTION)).layers["output"].program
    done = {turn.node.name: [node.name for node in turn.done] for turn in program.turns}
    assert done == {
        "s": [], "energy_in": [], "energy_tanh": ["energy_in"], "energy": ["energy_tanh"], "weights": ["energy"],
        "att": ["weights"],
    }  # fmt: skip
    assert {node.name for node in program.collect} == {"s", "att"}  # "readout" behind the loop reads them
    assert [node.name for node in program.previous] == ["prev:att"]
