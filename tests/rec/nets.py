"""Loops over sub-networks for tests: an attention decoder, a language model, nested sub-networks."""

from returnn_lite.tensor import Dim
from tests.nets import batch, network, randomised

TIME = Dim(None, "time")
SHARED = {"same_dim_tags_as": {"T": TIME}}
KEYS = {
    "data": {"dim": 4},  # what attention reads
    "classes": {"dim": 5, "sparse": True, **SHARED},
    "frames": {"dim": 3, **SHARED},  # runs along with the labels
}
LENGTHS = {"data": [4, 2, 3], "time": [3, 4, 2]}


def linear(source, n_out=3, **more):
    return {"class": "linear", "from": source, "n_out": n_out, "activation": "tanh", **more}


def softmax(source, **more):
    return {"class": "softmax", "from": source, "target": "classes", "loss": "ce", **more}


def labels(source="prob", beam=3, **more):
    """The label decision; 0 is also the begin of a sequence."""
    return {"class": "choice", "from": source, "target": "classes", "beam_size": beam, "initial_output": 0, **more}


END = {"class": "compare", "from": "output", "value": 0}


def loop(unit, source=(), **more):
    return {"class": "rec", "from": list(source), "unit": unit, "target": "classes", **more}


def decoder(unit, **more):
    """A net that reads "data" with an encoder and writes "classes" with the loop `unit`."""
    return {
        "encoder": linear("data", is_output_layer=True),
        "output": loop({"end": END, "output": labels(), "prob": softmax("s"), **unit}, max_seq_len=3, **more),
    }


ATTENTION = {
    "emb": linear("prev:output"),
    "s": {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": 3, "from": ["emb", "prev:att"]},
    "energy_in": {"class": "combine", "kind": "add", "from": ["base:encoder", "s"]},
    "energy_tanh": {"class": "activation", "activation": "tanh", "from": "energy_in"},
    "energy": {"class": "linear", "activation": None, "with_bias": False, "n_out": 1, "from": "energy_tanh"},
    "weights": {"class": "softmax_over_spatial", "from": "energy"},
    "att": {"class": "generic_attention", "weights": "weights", "base": "base:encoder"},
    "readout": linear(["s", "att"]),
    "prob": softmax("readout"),
}
LANGUAGE_MODEL = {
    "emb": linear("prev:output"),
    "s": {"class": "rnn_cell", "unit": "LSTMBlock", "n_out": 3, "from": "emb"},
}
SIMPLE = {"emb": linear("prev:output"), "s": linear(["emb", "prev:s"])}


def make(net, *, search=False, **config):
    """The network with random parameters."""
    return randomised(network(net, KEYS, search=search, **config))


def run(net):
    """The network's output on the tests' batch."""
    return net(*batch(KEYS, LENGTHS))
