"""What a layer costs beside its torch calls: time of the layer minus time of the bare calls, on a warmed network.

    python benchmarks/layer_overhead.py [--rounds 300] [--threads N]

Small inputs, so that the calls themselves take little. Both are timed in turn, some calls each; the least time of all
rounds counts. Prints microseconds (goal: below 15 for each layer).
"""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from common import CPU, arguments

from returnn_lite.config import Config
from returnn_lite.engine.models.network_source import build_network
from returnn_lite.log import Log
from returnn_lite.network import Network
from returnn_lite.network.building import compute

BATCH, FRAMES, FEATURES, HEADS, CALLS = 4, 20, 32, 4, 50
Call = Callable[[], object]

SPLIT = {"class": "split_dims", "axis": "F", "dims": (HEADS, FEATURES // HEADS)}
NETWORK = {
    "linear": {"class": "linear", "activation": "relu", "n_out": FEATURES, "from": "data"},
    "combine": {"class": "combine", "kind": "add", "from": ["data", "linear"]},
    "layer_norm": {"class": "layer_norm", "from": "data"},
    "conv": {"class": "conv", "filter_size": 3, "padding": "same", "n_out": FEATURES, "from": "data"},
    "keys": {**SPLIT, "from": "data"},
    "queries": {**SPLIT, "from": "data:other"},
    "dot": {"class": "dot", "red1": "F", "red2": "F", "var1": "T", "var2": "T", "from": ["queries", "keys"]},
}
MEASURED = ("linear", "combine", "layer_norm", "conv", "dot")


def warmed_net(data: torch.Tensor) -> tuple[Network, dict]:
    """The network after a run on `data` (B, T, F), and the values of all its layers."""
    network = {name: {**layer, "is_output_layer": True} for name, layer in NETWORK.items()}
    extern_data = {key: {"dim": FEATURES} for key in ("data", "other")}
    options = {"behavior_version": 10, "extern_data": extern_data, "network": network}
    net = build_network(Config(options), network, epoch=1, device=CPU, log=Log.silent()).eval()
    lengths = torch.full((BATCH,), FRAMES, dtype=torch.int32)
    out = net({"data": data, "other": data}, {"data": lengths, "other": lengths})
    return net, out.values


def bare_calls(net: Network, x: torch.Tensor, linear: torch.Tensor) -> dict[str, Call]:
    """The torch calls of each layer as one would write them by hand."""
    p = net.params
    heads = x.unflatten(2, (HEADS, -1))
    return {
        "linear": lambda: F.linear(x, p["linear/W"].t(), p["linear/b"]).relu(),
        "combine": lambda: x + linear,
        "layer_norm": lambda: F.layer_norm(x, (FEATURES,), p["layer_norm/scale"], p["layer_norm/bias"], 1e-6),
        "conv": lambda: F.conv1d(
            x.transpose(1, 2), p["conv/W"].permute(2, 1, 0), p["conv/bias"], padding=1
        ).transpose(1, 2),
        "dot": lambda: heads.transpose(1, 2) @ heads.permute(0, 2, 3, 1),
    }  # fmt: skip


def microseconds(call: Call) -> float:
    """Time of one call, the mean of some."""
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - start) / CALLS * 1e6


def main() -> None:
    """Measures and prints."""
    args = arguments("Overhead of single layers.", rounds=300)
    x = torch.randn(BATCH, FRAMES, FEATURES)
    with torch.no_grad():
        net, values = warmed_net(x)
        bare = bare_calls(net, x, values[net.program.names["linear"]].data)
        for name in MEASURED:
            node = net.program.names[name]
            if not torch.allclose(compute(node, values).data, bare[name](), atol=1e-5):
                raise SystemExit(f"{name}: layer and bare calls must give the same")
            calls: tuple[Call, Call] = (lambda node=node: compute(node, values), bare[name])
            rounds = [[microseconds(call) for call in calls] for _ in range(args.rounds)]
            mine, theirs = (min(times) for times in zip(*rounds, strict=True))
            print(f"{name:<12} layer {mine:5.1f}, bare {theirs:5.1f}, overhead {mine - theirs:5.1f} µs (goal: < 15)")


if __name__ == "__main__":
    main()
