"""Kind "network": layer outputs, losses, objective, gradients and beams of a net for one batch."""

import contextlib
import importlib
import json
import os

import numpy as np
import torch

import returnn_lite.catalog  # noqa: F401 - fills the registers
from returnn_lite.config import Config
from returnn_lite.engine.graphs.repeated import unchanged
from returnn_lite.network import Network
from returnn_lite.ops import kernels
from returnn_lite.optim.gradients import own_part

SETTINGS = json.loads(os.environ.get("CONFORMANCE_CONFIG", "{}"))  # such as {"network_fusion": false}
DEVICE = os.environ.get("CONFORMANCE_DEVICE", "cpu")
SPLIT = bool(os.environ.get("CONFORMANCE_SPLIT"))  # parameters that are gathered before the layers that read them run
REPEATED = bool(os.environ.get("CONFORMANCE_REPEATED"))  # losses and gradients of trainings by a padded, repeated step

if os.environ.get("CONFORMANCE_AS_GPU"):  # the forms that computations have on a GPU, also on the CPU
    kernels.on_gpu.__code__ = (lambda x: True).__code__
    kernels.own_form.__code__ = (lambda x: False).__code__


def config_imports():
    """The module names that users' configs import, while one is executed."""
    names = importlib.util.find_spec("returnn_lite.compat.config_imports")
    return importlib.import_module(names.name).config_imports() if names else contextlib.nullcontext()


def eval_names(context):
    """The names that eval strings may use."""
    return importlib.import_module("returnn_lite.compat.tf").eval_names(context)


def network(config, params, batch, seq_lens, mode, layers):
    """Runs the net of `config` on one batch, with the given parameters."""
    torch.set_num_threads(1)
    net = Network(
        Config({**config, **SETTINGS}),
        config["network"],
        search=mode == "search",
        eval_names=eval_names,
        extra_layers=tuple(layers),
    )
    _set_params(net, params)
    if DEVICE != "cpu":
        torch.backends.cudnn.allow_tf32 = False
        net.to(DEVICE)
    if SPLIT:
        _split(net)
    net.train(mode == "train")
    data = {
        k: torch.from_numpy(np.ascontiguousarray(v)).to(DEVICE) if v.dtype.kind not in "SU" else list(v)
        for k, v in batch.items()
    }
    lengths = {k: torch.from_numpy(v).to(DEVICE) for k, v in seq_lens.items()}
    repeated = _repeated(net, data, lengths) if REPEATED and mode == "train" else {}
    with torch.set_grad_enabled(mode == "train"):
        out = net(data, lengths)
        outputs = {name: _output(out[name]) for name in layers}
        losses = {name: _loss(value) for name, value in out.losses.items()}
        answer = {
            "outputs": outputs,
            "losses": losses,
            "objective": float(out.objective.detach()),
            "scores": _scores(out, layers),
        }
        answer["grads"] = _gradients(net, out) if mode == "train" else {}
    return answer | repeated


def _split(net):
    """As fsdp does, in a single process."""
    from torch.distributed import HashStore, init_process_group, is_initialized
    from torch.distributed.device_mesh import init_device_mesh

    from returnn_lite.engine.distributed.layer_units import split_network

    if not is_initialized():
        init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    split_network(net, init_device_mesh("cpu", (1,)), again=True, parts=None)


def _repeated(net, data, lengths):
    """Losses, objective and gradients of the step that `torch_cuda_graph` would record, padded in all axes it may; the
    outputs of layers go as soon as they can."""
    from unittest.mock import patch

    from tests.engine.run_again import steps

    net.wanted = frozenset()
    forward = steps()
    forward.checked = True  # the recorded numbers say what is right
    with patch("returnn_lite.engine.graphs.shapes.padded_size", lambda n: n + 3):
        for _ in range(2):
            with unchanged(net):
                out = forward(net, data, lengths, [])
    net.wanted = None
    if out.gradients is None:
        raise ValueError("this step is not recorded")
    return {
        "losses": {name: _loss(value) for name, value in out.losses.items()},
        "objective": float(out.objective),
        "grads": {n: (g.to_dense() if g.is_sparse else g).numpy() for n, g in out.gradients.items() if g is not None},
    }


def _set_params(net, params):
    if set(params) != set(net.params):
        unknown, missing = sorted(set(params) - set(net.params)), sorted(set(net.params) - set(params))
        raise ValueError(f"parameters: given but not in the net {unknown[:5]}, in the net but not given {missing[:5]}")
    with torch.no_grad():
        for name, value in params.items():
            net.params[name].copy_(torch.from_numpy(value))


def _output(x):
    x = x.batch_major()
    lens = {i: x.length(d).values.cpu().numpy() for i, d in enumerate(x.spec.dims) if d.dynamic}
    return {"data": x.data.detach().cpu().numpy(), "lens": lens}


def _loss(value):
    number = lambda x: None if x is None else float(x.detach())  # noqa: E731
    inv_norm = float(value.inv_norm)
    normalized = None if value.sum is None else float(value.sum.detach()) / inv_norm
    return {
        "sum": number(value.sum),
        "normalized": normalized,
        "error": None if value.error is None else float(value.error.detach()) / inv_norm,
    }


def _gradients(net, out):
    trainable = {n: p for n, p in net.params.items() if p.requires_grad}
    if not out.objective.requires_grad:
        return {}
    grads = torch.autograd.grad(out.objective, list(trainable.values()), allow_unused=True)
    found = {n: own_part(g) for n, g in zip(trainable, grads, strict=True) if g is not None}
    return {n: (g.to_dense() if g.is_sparse else g).cpu().numpy() for n, g in found.items()}


def _scores(out, layers):
    return {n: out[n].beam.scores.detach().cpu().numpy() for n in layers if out[n].beam is not None}
