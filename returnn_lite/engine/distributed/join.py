"""Joining the processes that torchrun started, and leaving them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from returnn_lite.config import Config
from returnn_lite.engine.distributed.failure import Failures
from returnn_lite.engine.distributed.launch import env_int, processes
from returnn_lite.engine.distributed.options import KEY, DistributedOptions
from returnn_lite.engine.distributed.world import World
from returnn_lite.errors import ConfigError

HOST = torch.device("cpu")


@contextmanager
def joined_world(config: Config, options: DistributedOptions) -> Iterator[World]:
    """Joins the processes of torchrun. All but the first run dry: they write nothing.

    On GPUs, each takes the one of its local rank. Where one fails, the others end, and say which one.
    """
    rank, size = processes(os.environ)
    if size == 1:
        yield World()
        return
    if config.is_true("use_last_best_model"):
        raise ConfigError("use_last_best_model", "is not supported for a training in several processes")
    device = own_device(config, os.environ)
    backend = backend_for(device, options)
    if device.type == "cuda":
        config.set("device", str(device))
    if rank:
        config.set("dry_run", True)
    failures = Failures(_meet(backend, options), rank, size)
    host = HOST if "gloo" in backend else device
    try:
        yield World(rank, size, host, device)
    except Exception as exc:
        # The group stays: the others learn of it when this process has ended, after it has said why.
        explained = failures.explained(exc)
        if explained is exc:
            raise
        raise explained from None
    failures.part()
    torch.distributed.destroy_process_group()


def own_device(config: Config, environ: Mapping[str, str]) -> torch.device:
    """The CPU, or the GPU of the local rank. ConfigError if there is none for it."""
    wanted = (config.value("device", None) or "").partition(":")[0]
    if wanted == "cpu" or not (torch.cuda.is_available() or wanted):
        return HOST
    count, local = torch.cuda.device_count(), env_int(environ, "LOCAL_RANK", 0)
    if local >= count:
        there = "no GPU" if not count else f"only {count} GPUs"
        text = f'{there} for local rank {local}; start fewer processes on this machine, or set device = "cpu"'
        raise ConfigError("device", text)
    device = torch.device("cuda", local)
    torch.cuda.set_device(device)
    return device


def backend_for(device: torch.device, options: DistributedOptions) -> str:
    """The backend; by default gloo for numbers of the program and CPUs, NCCL between GPUs."""
    if options.backend is None:
        return "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    if device.type == "cpu" and "gloo" not in options.backend and "mpi" not in options.backend:
        text = f'must be "gloo" on CPUs, but is "{options.backend}" instead, which needs GPUs'
        raise ConfigError(f'{KEY}["backend"]', text)
    return options.backend


def _meet(backend: str, options: DistributedOptions) -> Store:
    """Waits for all processes; the store that they have met at. ConfigError where they do not come together."""
    address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    try:
        store: Store
        store, rank, size = next(rendezvous("env://", timeout=options.timeout))
        store.set_timeout(options.timeout)
        torch.distributed.init_process_group(
            backend,
            store=PrefixStore("group", store),
            rank=rank,
            world_size=size,
            timeout=options.timeout,
        )
    except torch.distributed.DistNetworkError as exc:
        raise ConfigError("", _not_met(address, str(exc), options)) from None
    except torch.distributed.DistStoreError as exc:
        text = f"not all {os.environ['WORLD_SIZE']} processes reached {address} within {options.timeout}"
        raise ConfigError("", f"{text} ({str(exc).splitlines()[0]})") from None
    return store


def _not_met(address: str, reason: str, options: DistributedOptions) -> str:
    if "EADDRINUSE" in reason or "in use" in reason:
        return f"port {address.rpartition(':')[2]} is used by another program; set MASTER_PORT to a free port"
    first = reason.splitlines()[0]
    return f"cannot reach rank 0 at {address} within {options.timeout}; check that it runs, and the address ({first})"
