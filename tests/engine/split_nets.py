"""What each of several processes sees of networks whose parameters are in parts. As a script: prints it as JSON.

The blocks' numbers are counted while they are whole: by storages, which autograd keeps, too.
"""

import json
import os
from unittest.mock import patch

import torch
import torch.distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.multiprocessing.reductions import StorageWeakRef

from returnn_lite.engine.distributed.layer_units import split_network
from returnn_lite.engine.distributed.shards import Shards
from returnn_lite.network import Network
from tests.nets import batch, network, randomised

KEYS = {"data": {"dim": 8}, "classes": {"dim": 5, "sparse": True}}
BLOCKS = 12


def block(source: str) -> dict:
    """Half a conformer block: a feed-forward module, self-attention, a convolution."""
    inside = {
        "norm": {"class": "layer_norm", "from": "data"},
        "up": {"class": "linear", "n_out": 32, "activation": "relu", "from": "norm"},
        "down": {"class": "linear", "n_out": 8, "activation": None, "from": "up"},
        "first": {"class": "combine", "kind": "add", "from": ["data", "down"]},
        "att": {"class": "self_attention", "num_heads": 2, "total_key_dim": 8, "n_out": 8, "from": "first"},
        "second": {"class": "combine", "kind": "add", "from": ["first", "att"]},
        "conv": {"class": "conv", "filter_size": (3,), "padding": "same", "n_out": 8, "from": "second"},
        "output": {"class": "combine", "kind": "add", "from": ["second", "conv"]},
    }
    return {"class": "subnetwork", "from": source, "subnetwork": inside}


def blocks() -> dict:
    """Many blocks."""
    net = {f"block{i}": block(f"block{i - 1}" if i else "data") for i in range(BLOCKS)}
    return {**net, "output": {"class": "softmax", "from": f"block{BLOCKS - 1}", "loss": "ce", "target": "classes"}}


def loop() -> dict:
    """A language model as a recurrent sub-network, of which only one layer depends on the tick before."""
    wide = {"class": "linear", "n_out": 32, "activation": "relu"}
    unit = {}
    for i in range(BLOCKS):
        unit[f"up{i}"] = {**wide, "from": f"down{i - 1}" if i else "data:source"}
        unit[f"down{i}"] = {**wide, "n_out": 8, "from": f"up{i}"}
    for i in (5, BLOCKS - 1):
        unit[f"down{i}"]["initial_output"] = "var"
        unit[f"before{i}"] = {"class": "copy", "from": f"prev:down{i}"}
    unit["s"] = {"class": "linear", "n_out": 8, "activation": "tanh", "from": ["up5", "before5", "prev:s"]}
    unit["down6"] = {**unit["down6"], "from": ["up6", "s"]}
    unit["output"] = {"class": "copy", "from": [f"down{BLOCKS - 1}", f"before{BLOCKS - 1}"]}
    output = {"class": "softmax", "from": "loop", "loss": "ce", "target": "classes"}
    return {"loop": {"class": "rec", "from": "data", "unit": unit}, "output": output}


def one_layer() -> dict:
    """A network that draws random numbers for parameters only, and in one order."""
    wide = {"class": "copy", "from": ["data"] * 20}
    return {"wide": wide, "output": {"class": "softmax", "from": "wide", "loss": "ce", "target": "classes"}}


def branches() -> dict:
    """A network in which data decide between layers."""
    linear = {"class": "linear", "n_out": 5, "activation": "tanh", "from": "h"}
    return {
        "h": {"class": "linear", "n_out": 6, "activation": "tanh", "from": "data"},
        "mean": {"class": "reduce", "mode": "mean", "axes": "except_batch", "from": "data"},
        "all": {"class": "reduce", "mode": "mean", "axis": "B", "from": "mean"},
        "above": {"class": "compare", "kind": "greater", "value": 0.0, "from": "all"},
        "way": {
            "class": "cond", "condition": "above",
            "true_layer": {"class": "subnetwork", "from": "h", "subnetwork": {"output": {**linear, "from": "data"}}},
            "false_layer": {"class": "copy", "from": "other"},
        },
        "other": {**linear, "L2": 0.1},
        "output": {"class": "softmax", "from": "way", "loss": "ce", "target": "classes"},
    }  # fmt: skip


def forward(net: Network, shift: float = 0.0) -> torch.Tensor:
    """The objective of a batch."""
    data, lengths = batch(KEYS, {"data": [6, 4, 5], "classes": [6, 4, 5]})
    net.train()
    net.wanted = frozenset()
    out = net({**data, "data": data["data"] + shift}, lengths)
    out.forget_layers()
    return out.objective


class Alive:
    """The numbers of parameters that are whole."""

    def __init__(self) -> None:
        self.storages: list[tuple[StorageWeakRef, int]] = []
        self.peak = 0
        self.gather = Shards.gather

    def now(self) -> int:
        """Their number."""
        self.storages = [found for found in self.storages if not found[0].expired()]
        return sum(size for _, size in self.storages)

    def counting(self, shards: Shards) -> list[torch.Tensor]:
        """As `Shards.gather`, and counts."""
        made = self.gather(shards)
        self.now()
        self.storages += [(StorageWeakRef(tensor.untyped_storage()), tensor.numel()) for tensor in made]
        self.peak = max(self.peak, self.now())
        return made


def numbers(
    mesh: DeviceMesh, made: dict, *, again: bool = True, parts: list[str] | None = None, **config: object
) -> dict:
    """How many there are in a network, in this process, and whole at most: going forward, after that, and back."""
    net = randomised(network(made, KEYS, **config))
    whole = sum(param.numel() for param in net.params.values())
    one = sum(param.numel() for name, param in net.params.items() if name.startswith("block1/"))
    split_network(net, mesh, again=again, parts=parts)
    alive = Alive()
    with patch.object(Shards, "gather", lambda shards: alive.counting(shards)):
        objective = forward(net)
        forth, kept, alive.peak = alive.peak, alive.now(), 0
        objective.backward()
    own = sum(param.to_local().numel() for param in net.params.values())
    gradients = sum(param.grad.to_local().numel() for param in net.params.values())
    found = {"whole": whole, "block": one, "own": own, "gradients": gradients}
    return {**found, "forth": forth, "kept": kept, "back": alive.peak, "left": alive.now()}


def difference(mesh: DeviceMesh, made: dict, shift: float, **config: object) -> float:
    """The largest of all between gradients that are averaged as they arise, and those averaged afterwards."""
    plain, split = (randomised(network(made, KEYS, **config)) for _ in range(2))
    forward(plain, shift).backward()
    split_network(split, mesh, again=True, parts=None)
    forward(split, shift).backward()
    worst = 0.0
    for name, param in plain.params.items():
        mean = torch.zeros_like(param) if param.grad is None else param.grad.clone()
        torch.distributed.all_reduce(mean)
        found = split.params[name].grad.full_tensor()
        worst = max(worst, float((found - mean / mesh.size()).abs().max()))
    return worst


def main() -> None:
    """Prints all of it."""
    torch.distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    by_block = [f"block{i}" for i in range(BLOCKS)]
    rank = int(os.environ["RANK"])
    found = {
        "runs": numbers(mesh, blocks()),
        "blocks": numbers(mesh, blocks(), parts=by_block),
        "recomputed": numbers(mesh, blocks(), grad_checkpoint=by_block),
        "kept": numbers(mesh, blocks(), again=False),
        "loop": numbers(mesh, loop()),
        "noisy": numbers(mesh, blocks(), param_variational_noise=0.5, param_dropout=0.5),
        "same ways": difference(mesh, branches(), 1.0),
        "other ways": difference(mesh, branches(), 1.0 if rank else -1.0),
        "blocks differ": difference(mesh, blocks(), float(rank)),
        "loops differ": difference(mesh, loop(), float(rank)),
        "noise": difference(mesh, one_layer(), float(rank), param_variational_noise=0.5, param_dropout=0.5),
    }
    print(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
