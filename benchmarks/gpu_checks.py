"""Small nets on a GPU: the numbers of the CPU, of eager and of recorded steps. `gpu.py` and tests/cuda run these."""

import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

import train_attention  # noqa: E402
import train_transformer  # noqa: E402
from common import CPU, Batch, Ours, make_batches, padded  # noqa: E402

from returnn_lite.config import Config  # noqa: E402
from returnn_lite.engine.graphs.repeated import RepeatedSteps, repeated_steps  # noqa: E402
from returnn_lite.engine.step import by_itself  # noqa: E402
from returnn_lite.log import Log  # noqa: E402
from returnn_lite.ops.attention import attention  # noqa: E402

GPU = torch.device("cuda")
EXTERN = {"data": {"dim": 12}, "classes": {"dim": 7, "sparse": True}}


def linear(source: str, size: int = 16, **more: object) -> dict:
    """A product, with tanh."""
    return {"class": "linear", "activation": "tanh", "n_out": size, "from": source, **more}


def lstm(source: str | list[str], direction: int) -> dict:
    """One direction."""
    return {"class": "rec", "unit": "nativelstm2", "n_out": 8, "direction": direction, "from": source}


OUTPUT = {"class": "softmax", "loss": "ce", "from": "x"}
ATTENTION = {"class": "self_attention", "num_heads": 2, "total_key_dim": 16, "n_out": 16}
FREE = {"dropout_noise_shape": {"*": None}}
NETS: dict[str, dict] = {
    "linear": {"x": linear("data"), "output": OUTPUT},
    "blstm": {"f": lstm("data", 1), "b": lstm("data", -1), "x": linear(["f", "b"]), "output": OUTPUT},
    "self-attention": {"y": linear("data"), "x": {**ATTENTION, "from": "y"}, "output": OUTPUT},
    "conv": {
        "x": {"class": "conv", "filter_size": (3,), "padding": "same", "n_out": 16, "from": "data"},
        "output": OUTPUT,
    },
    "dropout": {"y": linear("data"), "x": linear("y", dropout=0.3, **FREE), "output": OUTPUT},
}


def batch(longest: int = 30, count: int = 4) -> Batch:
    """Noise."""
    rng = np.random.RandomState(longest)
    lengths = [max(longest - 3 * i, 2) for i in range(count)]
    return padded(
        [
            {"data": rng.normal(size=(n, 12)).astype("float32"), "classes": rng.randint(0, 7, n).astype("int32")}
            for n in lengths
        ]
    )


def config(network: dict) -> dict:
    """A training."""
    adam = {"class": "adam", "epsilon": 1e-8}
    return {"extern_data": EXTERN, "network": network, "optimizer": adam, "learning_rate": 0.01}


def recorder(log: list[str]) -> RepeatedSteps:
    """A `Forward` that records steps."""
    quiet = Log.silent()
    quiet.v3 = quiet.v4 = log.append  # type: ignore[method-assign, assignment]
    made = repeated_steps(Config({"torch_cuda_graph": True}), quiet, GPU)
    assert isinstance(made, RepeatedSteps)  # noqa: S101
    return made


def losses(ours: Ours, count: int = 6) -> list[float]:
    """The losses of the first steps, on batches of two lengths."""
    return [ours.step(batch(30 if i % 2 else 24)) for i in range(count)]


def check_numbers() -> None:
    """The first steps on CPU and GPU, eager and recorded, give equal losses."""
    for name, network in NETS.items():
        if name == "dropout":
            continue
        log: list[str] = []
        want = losses(Ours(config(network), CPU))
        eager = losses(Ours(config(network), GPU))
        forward = recorder(log)
        recorded = losses(Ours(config(network), GPU, forward))
        np.testing.assert_allclose(eager, want, rtol=2e-4, err_msg=f"{name}: CPU and GPU")
        np.testing.assert_allclose(recorded, eager, rtol=2e-4, err_msg=f"{name}: recorded and eager; {log}")
        if len(forward.steps) != 2:
            raise AssertionError(f"{name}: {len(forward.steps)} recorded steps: {log}")


def check_padded() -> None:
    """Steps that batches of several shapes share have the numbers of usual ones."""
    for name in ("linear", "blstm", "self-attention"):
        forward = recorder([])
        forward.exact = 0
        sizes = [(30, 17), (30, 18), (29, 17), (30, 17), (29, 18), (30, 18)]
        usual, shared = Ours(config(NETS[name]), GPU), Ours(config(NETS[name]), GPU, forward)
        found = [[ours.step(batch(*size)) for size in sizes] for ours in (shared, usual)]
        np.testing.assert_allclose(*found, rtol=2e-4, err_msg=name)
        if len(forward.steps) != 1:
            raise AssertionError(f"{name}: {len(forward.steps)} recorded steps")


def check_decoders() -> None:
    """An attention model and a transformer, whose decoders are loops."""
    for key, value in {"SIZE": 32, "HEADS": 4, "HEAD": 8, "INNER": 64}.items():
        setattr(train_transformer, key, value)
    for module in (train_attention, train_transformer):
        log: list[str] = []
        batches = make_batches(module.sequences(12), 600)[:2]
        forward = recorder(log)
        usual, recorded = Ours(module.config(), GPU), Ours(module.config(), GPU, forward)
        found = [[ours.step(b) for b in batches * 3] for ours in (recorded, usual)]
        np.testing.assert_allclose(*found, rtol=5e-4, err_msg=f"{module.__name__}: {log}")
        if len(forward.steps) != len(batches):
            raise AssertionError(f"{module.__name__}: {len(forward.steps)} recorded steps: {log}")


def check_dropout() -> None:
    """Repeated steps draw new numbers, the same ones after the same seed: those of usual steps."""
    found = []
    for forward in (recorder([]), recorder([]), by_itself):
        ours = Ours({**config(NETS["dropout"]), "learning_rate": 0.0}, GPU, forward)
        ours.net.seed(7)
        found.append([ours.step(batch()) for _ in range(8)])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
    np.testing.assert_allclose(found[0], found[2], rtol=1e-4, err_msg="recorded and usual steps")
    if len(set(found[0])) < 8:
        raise AssertionError(f"each step must draw other numbers, but the losses are {found[0]}")


def check_refusal() -> None:
    """A step that waits is not recorded; the log names the layer; the training goes on, random numbers too."""
    network = {
        "n": {"class": "reduce", "mode": "max", "axes": "T", "from": "data"},
        "y": {"class": "eval", "from": "data", "eval": "source(0) * float(tf.reduce_max(source(0)) > -1e9)"},
        "x": linear("y", dropout=0.3),
        "output": OUTPUT,
    }
    log: list[str] = []
    ours = Ours(config(network), GPU, recorder(log))
    values = [ours.step(batch()) for _ in range(4)]
    if not all(np.isfinite(values)) or not any('"y"' in line for line in log):
        raise AssertionError(f"the log must name the layer, but is {log}; losses {values}")


def check_failed_recording() -> None:
    """After a recording that fails random numbers can be drawn and other steps be recorded."""
    forward = recorder([])
    forward.probing = nullcontext
    network = {
        "y": {"class": "eval", "from": "data", "eval": "source(0) * float(tf.reduce_max(source(0)) > -1e9)"},
        "x": linear("y", dropout=0.3),
        "output": OUTPUT,
    }
    ours = Ours(config(network), GPU, forward)
    values = [ours.step(batch()) for _ in range(4)]
    torch.rand(3, device=GPU)
    if not forward.refused or not all(np.isfinite(values)):
        raise AssertionError(f"the recording must fail and the training go on, but the losses are {values}")
    check_dropout()


def check_attention_dropout() -> None:
    """Dropout inside of attention draws from the network's own generator."""
    q, k, v = (torch.randn(2, 2, 9, 8, device=GPU) for _ in range(3))
    made = []
    for seed in (3, 3, 4):
        generator = torch.Generator(GPU).manual_seed(seed)
        before = torch.cuda.get_rng_state()
        made.append(attention(q, k, v, dropout=0.5, generator=generator))
        if not torch.equal(before, torch.cuda.get_rng_state()):
            raise AssertionError("the default generator must not have moved")
    if not torch.equal(made[0], made[1]) or torch.equal(made[0], made[2]):
        raise AssertionError("the mask must follow the generator")


CHECKS: list[Callable[[], None]] = [
    check_numbers, check_padded, check_decoders, check_dropout, check_attention_dropout, check_refusal,
    check_failed_recording,
]  # fmt: skip


def run_all() -> None:
    """Runs all, and says what went wrong."""
    for check in CHECKS:
        try:
            check()
            print(f"ok: {check.__name__}", flush=True)
        except Exception:  # the others count
            print(f"FAILED: {check.__name__}\n{traceback.format_exc()[-2500:]}", flush=True)


if __name__ == "__main__":
    torch.backends.cudnn.allow_tf32 = False
    run_all()
