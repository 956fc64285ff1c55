"""Small networks for tests: made from a dict of layers, run on random batches with padding of any kind."""

import zlib

import torch

import returnn_lite.catalog  # noqa: F401 - fills the registers
from returnn_lite.compat.tf import eval_names
from returnn_lite.config import Config
from returnn_lite.network import Network
from returnn_lite.tensor.build import data_spec
from returnn_lite.tensor.masked import mask_all

DENSE = {"data": {"dim": 4}, "classes": {"dim": 5, "sparse": True}}


def network(net, extern_data=None, *, search=False, evaluate=True, **config):
    """The network of a dict of layers; further keywords are global settings of the config."""
    settings = dict(config)
    if "num_outputs" not in config:
        settings["extern_data"] = DENSE if extern_data is None else extern_data
    return Network(Config(settings), net, search=search, eval=evaluate, eval_names=eval_names).eval()


def randomised(net, scale=0.7):
    """The network with random values in all parameters, the same for the same names."""
    with torch.no_grad():
        for name, p in net.params.items():
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            if p.dtype.is_floating_point and p.requires_grad:  # others are statistics
                values = torch.randn(p.shape, generator=generator) * scale
                p.copy_(values.abs() if name.endswith("variance") else values)
    return net


def random_values(spec, shape, seed):
    """Random data: normal numbers, classes, or for other ints 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    if spec.dtype.startswith(("int", "uint")) or spec.dtype == "bool":
        values = torch.randint(0, spec.dim if spec.sparse else 2, shape, generator=generator)
        return values.to(getattr(torch, spec.dtype))
    return torch.randn(shape, generator=generator)


def batch(extern_data, lengths, *, size=3, padding="zeros"):
    """Random data for all keys, and their lengths [B].

    `lengths`: by key (or by the name of a shared time axis) a list; others are full. `padding`: what stands behind the
    sequence ends: "zeros", "garbage" (large numbers, other labels), "nan" (ints: other labels).
    """
    data, found = {}, {}
    for key, entry in extern_data.items():
        spec = data_spec(key, entry)
        dims = [d for d in spec.dims if not d.is_batch]
        known = {d: lengths.get(key, lengths.get(d.name, [4] * size)) for d in dims if d.dynamic}
        shape = (size, *(d.size if d.size is not None else max(known[d]) for d in dims))
        seed = zlib.crc32(key.encode())
        values = random_values(spec, shape, seed)
        valid = torch.ones(shape, dtype=torch.bool)
        for dim, ends in known.items():
            at = dims.index(dim) + 1
            inside = torch.arange(shape[at]) < torch.tensor(ends).unsqueeze(-1)
            valid = valid & inside.reshape(size, *[shape[at] if i == at else 1 for i in range(1, len(shape))])
            role = key if spec.dims.index(dim) == spec.time else f"{key}:{spec.dims.index(dim)}"
            found[role] = torch.tensor(ends, dtype=torch.int32)
        data[key] = torch.where(valid, values, filling(spec, shape, seed, padding))
    return data, found


def filling(spec, shape, seed, padding):
    """What stands after the sequence ends."""
    if padding == "zeros":
        return torch.zeros((), dtype=getattr(torch, spec.dtype))
    others = random_values(spec, shape, seed + 1)
    if not others.dtype.is_floating_point:
        return others
    return torch.full_like(others, float("nan")) if padding == "nan" else others.sign() * 30.0


def valid_part(x):
    """The data of a tensor with 0 behind all sequence ends."""
    valid = mask_all(x)
    return x.data if valid is None else torch.where(valid, x.data, torch.zeros((), dtype=x.data.dtype))


def gradients(net, objective, more=()):
    """Gradients of all trainable parameters and of `more`, by name; 0 where a parameter is not used."""
    wanted = {n: p for n, p in net.params.items() if p.requires_grad} | dict(more)
    if not wanted or not objective.requires_grad:
        return {}
    grads = torch.autograd.grad(objective, list(wanted.values()), allow_unused=True)
    dense = [torch.zeros(()) if g is None else g.to_dense() if g.is_sparse else g for g in grads]
    return dict(zip(wanted, dense, strict=True))
