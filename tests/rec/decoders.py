"""Two tiny decoders as nets, and the same step by step in plain torch: the yardstick of the search tests."""

import torch

from tests.nets import network
from tests.rec.nets import END, KEYS, LENGTHS, batch, labels, linear, loop, randomised

V = 3  # labels; 0 ends a sequence
SEARCH_KEYS = {**KEYS, "classes": {"dim": V, "sparse": True}}
PLAIN = {
    "emb": linear("prev:output"),
    "s": linear(["emb", "prev:s"]),
    "prob": {"class": "softmax", "from": "s", "target": "classes", "loss": "ce"},
}
ATTENTION = {
    "emb": linear("prev:output"),
    "s": linear(["emb", "prev:s", "prev:att"]),
    "energy_in": {"class": "combine", "kind": "add", "from": ["base:encoder", "s"]},
    "energy_tanh": {"class": "activation", "activation": "tanh", "from": "energy_in"},
    "energy": {"class": "linear", "activation": None, "with_bias": False, "n_out": 1, "from": "energy_tanh"},
    "weights": {"class": "softmax_over_spatial", "from": "energy"},
    "att": {"class": "generic_attention", "weights": "weights", "base": "base:encoder"},
    "prob": {"class": "softmax", "from": ["s", "att"], "target": "classes", "loss": "ce"},
}


def decoder(unit, *, beam, max_seq_len=3, include_eos=False, **choice):
    """The net with one of the units above; `choice`: further options of the label decision."""
    whole = {"end": END, "output": labels(beam=beam, **choice), **unit}
    return {
        "encoder": linear("data", is_output_layer=True),
        "output": loop(whole, max_seq_len=max_seq_len, include_eos=include_eos),
        "decision": {"class": "decide", "from": "output", "loss": "edit_distance", "target": "classes"},
    }


def make(net):
    """The network for search, with random parameters that make labels differ."""
    return randomised(network(net, SEARCH_KEYS, search=True), scale=1.3)


def run(net):
    with torch.no_grad():
        return net(*batch(SEARCH_KEYS, {**LENGTHS, "classes": [3, 2, 3]}))


class Steps:
    """Label by label what the decoder computes for sequence `index`: log probabilities of the next label."""

    def __init__(self, net, out, index):
        self.p = {n.removeprefix("output/rec/"): v.detach() for n, v in net.params.items()}
        frames = out["encoder"].batch_major()
        self.encoder = frames.data[index, : LENGTHS["data"][index]]
        self.attends = "energy/W" in self.p

    def layer(self, name, x):
        return torch.tanh(x @ self.p[f"{name}/W"] + self.p[f"{name}/b"])

    def start(self):
        """Label and state before the first step."""
        return torch.zeros(3), torch.zeros(3)

    def step(self, label, state):
        """(log probabilities [V], new state) after `label`."""
        s, att = state
        emb = torch.tanh(self.p["emb/W"][label] + self.p["emb/b"])
        s = self.layer("s", torch.cat([emb, s, att] if self.attends else [emb, s]))
        if self.attends:
            energy = torch.tanh(self.encoder + s) @ self.p["energy/W"]
            att = (torch.softmax(energy[:, 0], 0).unsqueeze(1) * self.encoder).sum(0)
        last = torch.cat([s, att]) if self.attends else s
        return torch.log_softmax(last @ self.p["prob/W"] + self.p["prob/b"], -1).tolist(), (s, att)
