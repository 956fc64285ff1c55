"""Which way of training together the options ask for."""

import importlib

import torch

from returnn_lite.engine.distributed.ddp import OverlappedMean
from returnn_lite.engine.distributed.options import DistributedOptions
from returnn_lite.engine.distributed.parallel import MeanGradients, MeanParameters, Parallel
from returnn_lite.engine.distributed.world import World

SHARDED = "returnn_lite.engine.distributed.sharded"  # brings much of torch that others do without


def parallel_training(world: World, options: DistributedOptions) -> Parallel:
    """The way of training by the options."""
    if world.size == 1:
        return Parallel(world)
    if options.reduce_type == "param":
        return MeanParameters(world, options.sync_step, torch.device("cpu") if options.sync_on_cpu else None)
    if options.reduce_type == "grad_explicit":
        return MeanGradients(world)
    if not options.sharded:
        return OverlappedMean(world, options.wrapper)
    made: Parallel = importlib.import_module(SHARDED).Sharded(world, options.wrapper)
    return made
