"""The mini-batches of a dataset's present epoch: lengths -> slices -> batches, and their re-use in later epochs."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.batches.batching import (
    BatchingOptions,
    first_seqs,
    framewise_batches,
    padded_batches,
    select,
    within_limits,
)
from returnn_lite.datasets.batches.buckets import Buckets, ShuffledBatches
from returnn_lite.datasets.batches.changing_limits import ChangingLimits, known_part
from returnn_lite.datasets.batches.chunking import (
    Chunking,
    LengthBlock,
    Slices,
    add_context,
    chunks,
    context_frames,
    custom_chunks,
    describe,
    whole_seqs,
)
from returnn_lite.datasets.batches.slice_batch import SliceBatch
from returnn_lite.datasets.order.ordering import NEED_NO_SEED, parse_ordering
from returnn_lite.errors import ConfigError

BLOCK = 4096  # sequences looked at together where lengths are known


def epoch_batches(dataset: Dataset, options: BatchingOptions) -> Iterator[SliceBatch]:
    """The batches of the epoch that `init_seq_order` started, made as they are asked for.

    A dataset that keeps batches replays those of the epoch before if the order is still the same; only then
    `shuffle_batches` has an effect. Every `seq_drop_freq` epochs, others are dropped.
    """
    if options.shuffled is not None:
        in_order = epoch_batches(dataset, replace(options, shuffled=None))
        yield from shuffled_batches(in_order, options.shuffled, dataset.epoch_seed())
        return
    cache = dataset.batch_cache
    drop_anew = options.seq_drop > 0 and (dataset.epoch or 1) % options.seq_drop_freq == 0
    if cache.batches and cache.options == options and not drop_anew:
        if options.shuffle_batches:
            cache.rng.shuffle(cache.batches)
        for i, batch in enumerate(cache.batches):
            yield replace(batch, complete=(i + 1) / len(cache.batches))
        return
    keep = dataset.reuses_batches and order_stays(dataset) and not options.changes and not options.as_torch
    made, known = [], dataset.known_num_seqs  # not what is known at the end only
    for batch in new_batches(dataset, options):
        last, first = int(batch.slices.seq_idx.max()), int(batch.slices.seq_idx[0])
        done = known_part(known, last) if options.as_torch else dataset.get_complete_frac(first)
        yield replace(batch, complete=done)
        if keep:
            made.append(batch)
    cache.batches, cache.options = made, options


def shuffled_batches(in_order: Iterator[SliceBatch], shuffled: ShuffledBatches, seed: int) -> Iterator[SliceBatch]:
    """The batches in another order; each says which sequences are still needed by those that wait."""
    needed: list[int] = []

    def coming() -> Iterator[SliceBatch]:
        for batch in in_order:
            needed.append(batch.keep_from)
            yield batch

    for batch in shuffled.shuffled(coming(), seed):
        first = min(needed)
        needed.remove(batch.keep_from)
        yield replace(batch, first_needed=first)


def order_stays(dataset: Dataset) -> bool:
    """Whether the next epoch will have the same order."""
    options, epoch = dataset.order_options, dataset.epoch or 1
    if (options.partition_epoch or 1) > 1 or not isinstance(options.seq_ordering, str):
        return False
    name, args = parse_ordering(options.seq_ordering, 1)
    return name in NEED_NO_SEED or options.seed(epoch, args.nth) == options.seed(epoch + 1, args.nth)


def new_batches(dataset: Dataset, options: BatchingOptions) -> Iterator[SliceBatch]:
    """The batches by all rules, from the lengths of the sequences. ConfigError if a function makes them."""
    if options.by_function is not None:
        text = "must not be a function here, because batches are planned before the data are read"
        raise ConfigError("torch_batching", text)
    rng = random.Random(dataset.epoch_seed())
    limits_of = None
    if options.changes:
        limits_of = ChangingLimits(dataset, options.batch_size, options.max_seqs, options.size_option)
    slices, draws = epoch_slices(dataset, options, rng)
    if not options.recurrent_net:
        return framewise_batches(slices, options, limits_of)
    selected = select(slices, options, rng, draws, dataset.log.v4)
    if options.buckets is not None:
        return bucket_batches(selected, options.buckets, dataset)
    return padded_batches(first_seqs(selected, options.max_total_num_seqs), options, limits_of)


def bucket_batches(slices: Iterator[Slices], buckets: Buckets, dataset: Dataset) -> Iterator[SliceBatch]:
    """Batches of similar lengths; the log says in the end which buckets were full how often (verbosity 4)."""
    full: dict[int, int] = {}
    yield from buckets.batches(slices, dataset.epoch_seed(), full)
    dataset.log.v4(f"Batching buckets full: {', '.join(f'{bound}: {full[bound]}' for bound in sorted(full))}")


def epoch_slices(dataset: Dataset, options: BatchingOptions, rng: random.Random) -> tuple[Iterator[Slices], bool]:
    """Slices of all sequences of the epoch, and whether random numbers are drawn for them."""
    all_keys, value = tuple(dataset.get_data_keys()), dataset.options.chunking
    used = tuple(k for k in all_keys if options.used_data_keys is None or k in options.used_data_keys)
    if options.as_torch:
        keys = tuple(key for key in all_keys if dataset.has_axes(key))
        return with_context(torch_slices(dataset, options, keys), dataset, keys), False
    chunking = value if callable(value) else None
    if chunking is None:
        chunking = Chunking.parse(value, dataset.options.min_chunk_size, dataset.options.chunking_variance)
    if chunking is not None and not options.recurrent_net:
        dataset.log.v4(f"Non-recurrent network, chunk size {describe(chunking)} ignored")
        chunking = None
    keys, draws = all_keys if chunking is None else used, False
    if chunking is None:
        slices = whole_seqs(length_blocks(dataset, keys), keys)
    elif isinstance(chunking, Chunking):
        chunking.check_keys(used, all_keys, dataset.log.v1)
        slices, draws = chunks(length_blocks(dataset, keys), keys, chunking, rng), chunking.variance > 0
    else:
        generated = chunking(
            dataset=dataset, seq_idx_start=0, recurrent_net=options.recurrent_net, used_data_keys=options.used_data_keys
        )
        known = dataset.known_num_seqs
        slices = custom_chunks(generated, keys, math.inf if known is None else known)
    return with_context(slices, dataset, keys), draws


def torch_slices(dataset: Dataset, options: BatchingOptions, keys: tuple[str, ...]) -> Iterator[Slices]:
    """Slices for models written in torch: chunks of those sequences that the limits let through."""
    sequences = within_limits(whole_seqs(length_blocks(dataset, keys), keys), options)
    return sequences if options.torch_chunking is None else options.torch_chunking.chunks(sequences)


def with_context(slices: Iterator[Slices], dataset: Dataset, keys: tuple[str, ...]) -> Iterator[Slices]:
    """With the frames of the dataset's `context_window` around them."""
    window = dataset.options.context_window
    return slices if window is None else add_context(slices, *context_frames(window, keys))


def length_blocks(dataset: Dataset, keys: tuple[str, ...]) -> Iterator[LengthBlock]:
    """Lengths of the epoch's sequences, many at once where they are known, else one by one as they are loaded."""
    all_keys, start = dataset.get_data_keys(), 0
    columns = [all_keys.index(key) for key in keys]
    while dataset.is_less_than_num_seqs(start):
        known = dataset.epoch_lengths(start, start + BLOCK)
        if known is None:
            lengths = dataset.get_seq_length(start)
            yield start, np.array([[lengths[key] for key in keys]], np.int64)
            start += 1
        else:
            yield start, known[:, columns]
            start += len(known)
