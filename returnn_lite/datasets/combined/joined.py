"""Datasets one after another or mixed: CombinedDataset, ConcatDataset."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from returnn_lite.config_value import ConfigDict, ConfigValue
from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.combined.sub import Joined, dataset_dict, sub_dataset
from returnn_lite.datasets.corpus import Seq
from returnn_lite.datasets.numbers_dict import NumbersDict
from returnn_lite.datasets.options import BaseOptions
from returnn_lite.datasets.order.ordering import OrderOptions, ordering_name, part_of_epoch, seq_order
from returnn_lite.datasets.registry import dataset
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log


@dataset("CombinedDataset")
class CombinedDataset(Joined):
    """Mixes the sequences of several datasets, each with its own keys: `data_map` {(dataset, its key): own key}.

    A sequence has empty arrays for the keys of the other datasets. Beside the usual orders there are "random_dataset"
    (a random dataset each time, its sequences in its own order) and "interleave" (evenly mixed; at random with
    `interleave_gumbel_scale` > 0). `sampling_sizes`, a number or one per dataset, takes so many sequences of each per
    epoch, going round.
    """

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        datasets: dict[str, Any],
        data_map: Mapping[tuple[str, str], str],
        sampling_sizes: int | dict[str, int] | None = None,
        data_dims: ConfigDict | None = None,
        data_dtypes: Mapping[str, str] | None = None,
        interleave_gumbel_scale: float | str | None = None,
        log: Log | None = None,
    ):
        super().__init__(base, log=log)
        if self.window != 1:
            raise ConfigError(f"{self.name}: window", f"must be 1 for CombinedDataset, but is {self.window} instead")
        self.dtypes, self.gumbel = dict(data_dtypes or {}), interleave_gumbel_scale
        self.names = sorted(dataset_dict(datasets, f"{self.name}: datasets"))
        self.parts = [sub_dataset(self, datasets[name], name) for name in self.names]
        self.key_maps: list[dict[str, str]] = [{} for _ in self.parts]  # own key -> the part's key
        for source, key in _checked_map(data_map, self.names, self.name):
            self._add_key(source, key)
        self.num_inputs = self.get_data_dim("data") if "data" in self.num_outputs else 0
        given = {key: tuple(dims) for key, dims in (data_dims or {}).items()}
        self.num_outputs.update({key: dims for key, dims in given.items() if key in self.num_outputs})
        self.sampling = self._sampling(sampling_sizes)

    def _add_key(self, source: tuple[str, str], key: str) -> None:
        name, sub_key = source
        part = self.parts[self.names.index(name)]
        if sub_key not in part.get_data_keys():
            hint = did_you_mean(sub_key, part.get_data_keys())
            raise ConfigError(
                f"{self.name}: data_map[{source!r}]",
                f'{part.name} has no key "{sub_key}"{hint}; known: {part.get_data_keys()}',
            )
        dims = part.num_outputs[sub_key]
        if self.num_outputs.setdefault(key, dims) != dims:
            raise ConfigError(
                f"{self.name}: data_map[{source!r}]",
                f'"{key}" has the dims {self.num_outputs[key]} in another dataset, but {dims} in this one',
            )
        if part.labels.get(sub_key):
            self.labels.setdefault(key, part.labels[sub_key])
        self.key_maps[self.names.index(name)][key] = sub_key

    def _sampling(self, sizes: int | dict[str, int] | None) -> list[int] | None:
        if sizes is None:
            return None
        if isinstance(sizes, dict) and set(sizes) != set(self.names):
            raise ConfigError(
                f"{self.name}: sampling_sizes", f"must have the datasets {self.names}, but has {sorted(sizes)} instead"
            )
        return [int(sizes[name]) if isinstance(sizes, dict) else int(sizes) for name in self.names]

    # --- order ---

    def init_seq_order(
        self, epoch: int | None = None, seq_list: Sequence[str] | None = None, seq_order: Sequence[int] | None = None
    ) -> bool:
        """Starts an epoch in all datasets and mixes them."""
        self.refuse_lists(seq_list, seq_order)
        self.epoch, self._loaded = epoch, {}
        for part in self.parts:
            part.init_seq_order(epoch)
        self.set_parts_order(*(self._mixed(epoch) if epoch is not None else (np.empty(0), np.empty(0))))
        return True

    def _mixed(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        if self.sampling is not None:
            return self._sampled(epoch, self.sampling)
        sizes = self._sizes()
        which = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        where = np.concatenate([np.arange(size) for size in sizes])
        options, name = self.order_options, ordering_name(self.order_options.seq_ordering, epoch)
        if name == "interleave":
            if (options.partition_epoch or 1) > 1 or (options.repeat_epoch or 1) > 1 or options.num_shards > 1:
                raise ConfigError(
                    f"{self.name}: seq_ordering", '"interleave" is not possible with partitions, repetition or shards'
                )
            which = np.fromiter(interleaved(sizes, self.epoch_seed(), self.gumbel or 0.0), np.int32)
            return which, within_each(which)
        if name == "random_dataset":
            numbers = which.tolist()
            random.Random(self.epoch_seed()).shuffle(numbers)
            which = np.array(numbers, np.int32)
            where = within_each(which)
            chosen = part_of_epoch(np.arange(len(which)), options, epoch)
            chosen = np.tile(chosen, options.repeat_epoch or 1)
        else:
            chosen = self._ordered(options, epoch, which, where)
        return which[chosen], where[chosen]

    def _sizes(self) -> list[int]:
        """Sequences of each dataset's epoch."""
        sizes = []
        for part in self.parts:
            try:
                size = part.num_seqs
            except NotImplementedError:
                size = _counted(part)
            if math.isinf(size):
                raise ConfigError(self.name, f"{part.name} is endless; limit its num_seqs")
            sizes.append(int(size))
        return sizes

    def _ordered(self, options: OrderOptions, epoch: int, which: np.ndarray, where: np.ndarray) -> np.ndarray:
        def lengths() -> np.ndarray | None:
            found = [_epoch_lengths(part) for part in self.parts]
            return None if any(part is None for part in found) else np.concatenate([x for x in found if x is not None])

        def tags() -> Iterator[str]:
            return (self.parts[k].get_tag(i) for k, i in zip(which.tolist(), where.tolist(), strict=True))

        return seq_order(options, epoch, len(which), lengths, tags)

    def _sampled(self, epoch: int, sizes: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """So many of each dataset per epoch, cyclically, then ordered."""
        where = []
        for size, total, name in zip(sizes, self._sizes(), self.names, strict=True):
            if not total and size:
                raise ConfigError(f"{self.name}: sampling_sizes", f"{name} has no sequences to sample from")
            where.append(((epoch - 1) * size + np.arange(size)) % max(total, 1))
        which, joined = np.repeat(np.arange(len(sizes)), sizes), np.concatenate(where)

        def lengths() -> np.ndarray:
            return np.array(
                [self.parts[k].get_estimated_seq_length(int(i)) for k, i in zip(which, joined, strict=True)]
            )

        options = self.order_options
        plain = OrderOptions(
            seq_ordering=options.seq_ordering,
            fixed_random_seed=options.fixed_random_seed,
            random_seed_offset=options.random_seed_offset,
        )
        order = seq_order(plain, epoch, len(which), lengths, tuple)
        return which[order], joined[order]

    # --- sequences ---

    def own_seq(self, part: int, seq: Seq) -> Seq:
        """With empty arrays for the keys that the sequence's dataset does not have."""
        keys = self.key_maps[part]
        return {key: seq[keys[key]] if key in keys else self._empty(key) for key in self.num_outputs}

    def key_of_part(self, part: int, key: str) -> str | None:
        """By the data map."""
        return self.key_maps[part].get(key)

    def _empty(self, key: str) -> np.ndarray:
        dim, ndim = self._dim_ndim(key)
        if self.is_text(key):
            return np.array("")
        return np.zeros([0] * (ndim - 1) + [dim] if ndim > 1 else [0] * ndim, self.get_data_dtype(key))

    def get_seq_length(self, seq_idx: int) -> dict[str, int]:
        """Frames per key."""
        k = int(self.part_of[seq_idx])
        lengths = self.parts[k].get_seq_length(int(self.index_in_part[seq_idx]))
        keys = self.key_maps[k]
        return NumbersDict({key: lengths[keys[key]] if key in keys else 0 for key in self.get_data_keys()})

    def get_estimated_seq_length(self, seq_idx: int) -> float:
        """As the sequence's dataset."""
        part, index = self._place(seq_idx)
        return part.get_estimated_seq_length(index)

    def get_data_keys(self) -> list[str]:
        """ "data" first, the others sorted."""
        return sorted(self.num_outputs, key=lambda key: (key != "data", key))

    def get_data_dtype(self, key: str) -> str:
        """The option, or int32 for classes and float32 for other numbers."""
        if key in self.dtypes:
            return self.dtypes[key]
        for part, keys in zip(self.parts, self.key_maps, strict=True):
            if key in keys:
                if part.is_text(keys[key]):
                    return part.get_data_dtype(keys[key])
                return "int32" if part.is_data_sparse(keys[key]) else "float32"
        return super().get_data_dtype(key)


@dataset("ConcatDataset")
class ConcatDataset(Joined):
    """The sequences of the first dataset, then those of the second, …, each in its own order; the keys are the same."""

    def __init__(self, base: BaseOptions | None = None, *, datasets: Sequence[Any], log: Log | None = None):
        super().__init__(base, log=log)
        if not isinstance(datasets, list | tuple) or not datasets:
            raise ConfigError(f"{self.name}: datasets", f"must be a list of datasets, but is {datasets!r} instead")
        self.refuse_orders()
        self.parts = [sub_dataset(self, value, str(i)) for i, value in enumerate(datasets)]
        first = self.parts[0]
        for part in self.parts[1:]:
            if (part.num_inputs, part.num_outputs) != (first.num_inputs, first.num_outputs):
                raise ConfigError(
                    self.name,
                    f"all datasets must have the same dims, but {first.name} has {first.num_outputs}"
                    f" and {part.name} has {part.num_outputs}",
                )
        self.num_inputs, self.num_outputs, self.labels = first.num_inputs, dict(first.num_outputs), dict(first.labels)

    def init_seq_order(
        self, epoch: int | None = None, seq_list: Sequence[str] | None = None, seq_order: Sequence[int] | None = None
    ) -> bool:
        """Starts an epoch in all datasets; a list of tags is cut by their numbers of sequences."""
        self.refuse_lists(None, seq_order)
        self.epoch, self._loaded = epoch, {}
        rest = None if seq_list is None else list(seq_list)
        for part in self.parts:
            total = 0 if rest is None else int(part.get_total_num_seqs())
            part.init_seq_order(epoch, seq_list=None if rest is None else rest[:total])
            rest = None if rest is None else rest[total:]
        sizes = [int(part.num_seqs) for part in self.parts]
        self.set_parts_order(np.repeat(np.arange(len(sizes)), sizes), np.concatenate([np.arange(n) for n in sizes]))
        return True

    def get_all_tags(self) -> list[str]:
        """Tags of all datasets."""
        return [tag for part in self.parts for tag in part.get_all_tags()]

    def get_seq_length(self, seq_idx: int) -> dict[str, int]:
        """As the sequence's dataset."""
        part, index = self._place(seq_idx)
        return part.get_seq_length(index)

    def get_data_keys(self) -> list[str]:
        """As the first dataset."""
        return self.parts[0].get_data_keys()

    def get_target_list(self) -> list[str]:
        """As the first dataset."""
        return self.parts[0].get_target_list()

    def get_data_dtype(self, key: str) -> str:
        """As the first dataset."""
        return self.parts[0].get_data_dtype(key)

    def is_data_sparse(self, key: str) -> bool:
        """As the first dataset."""
        return self.parts[0].is_data_sparse(key)

    def get_data_shape(self, key: str) -> list[int | None]:
        """As the first dataset."""
        return self.parts[0].get_data_shape(key)


def _checked_map(data_map: ConfigValue, names: Sequence[str], name: str) -> Iterator[tuple[tuple[str, str], str]]:
    """The entries ((dataset, its key), own key)."""
    path = f"{name}: data_map"
    if not isinstance(data_map, Mapping) or not data_map:
        raise ConfigError(path, f"must be a dict from (dataset, its key) to key, but is {data_map!r} instead")
    for source, key in data_map.items():
        if not isinstance(source, tuple) or len(source) != 2 or not isinstance(key, str):
            raise ConfigError(path, f"must have entries (dataset, its key): key, but has {source!r}: {key!r}")
        if source[0] not in names:
            hint = f"{did_you_mean(str(source[0]), names)}; known: {list(names)}"
            raise ConfigError(f"{path}[{source!r}]", f'unknown dataset "{source[0]}"{hint}')
        yield (source[0], source[1]), key


def _counted(part: Dataset) -> int:
    """Number of sequences of an epoch that only shows it at its end; reads the epoch once, then starts it again."""
    n = 0
    while part.is_less_than_num_seqs(n):
        n += 1
    part.init_seq_order(part.epoch)
    return n


def _epoch_lengths(part: Dataset) -> np.ndarray | None:
    """What the sequences of a dataset's epoch are sorted by."""
    known = part.sort_lengths()
    if known is not None:
        try:
            made: np.ndarray | None = known[part.get_current_seq_order()]
            return made
        except NotImplementedError:
            return None
    try:
        return np.array([part.get_estimated_seq_length(i) for i in range(int(part.num_seqs))])
    except NotImplementedError:
        return None


def within_each(which: np.ndarray) -> np.ndarray:
    """How often each number occurred before: [0, 1, 0, 0] -> [0, 0, 1, 2]."""
    where = np.empty(len(which), np.int64)
    by_dataset = np.argsort(which, kind="stable")
    counts = np.bincount(which) if len(which) else np.empty(0, np.int64)
    where[by_dataset] = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    return where


def interleaved(sizes: Sequence[int], seed: int, gumbel_scale: float | str) -> Iterator[int]:
    """Numbers of datasets, each as often as its size, evenly mixed.

    Without noise always the dataset of which the smallest fraction was taken; with noise one drawn in proportion to
    what remains; the scale of the noise may be "remaining": 1 at the beginning, 0 once a dataset is used up.
    """
    used, totals = np.zeros(len(sizes), np.int64), np.array(sizes)
    rng = np.random.RandomState(seed)
    for _ in range(int(totals.sum())):
        remaining = np.flatnonzero(used < totals)
        if gumbel_scale:
            scale = 1 - np.max(used / np.maximum(totals, 1)) if gumbel_scale == "remaining" else float(gumbel_scale)
            noise = rng.gumbel(size=len(remaining)) * scale
            left = np.maximum(totals[remaining] - used[remaining], 1)
            choice = remaining[int(np.argmax(np.log(left) + noise))]
        else:
            choice = remaining[int(np.argmin((used[remaining] + 1) / totals[remaining]))]
        used[choice] += 1
        yield int(choice)
