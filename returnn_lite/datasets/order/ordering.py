"""The order of an epoch's sequences: a pure function of the options, the epoch and the corpus.

Orders are integer arrays of corpus indices. Random orders come from numpy's legacy generator (`RandomState`), because
its streams are the ones that existing set-ups were trained with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from returnn_lite.config_value import ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean

Order = np.ndarray  # int64 [N] corpus indices
Tags = Callable[[], Iterable[str]]
SeqLengths = Callable[[], "np.ndarray | None"]


@dataclass(frozen=True, kw_only=True)
class OrderOptions:
    """What decides the order of an epoch; the names are those of the dataset options."""

    seq_ordering: str | Callable[..., str] = "default"
    fixed_random_seed: int | None = None
    random_seed_offset: int = 0
    partition_epoch: int | None = None
    repeat_epoch: int | None = None
    unique_seq_tags: bool = False
    seq_list_filter: frozenset[str] | None = None
    num_shards: int = 1
    shard_index: int = 0

    def seed(self, epoch: int | None, nth: int = 1) -> int:
        """Seed of the epoch's random order; see `epoch_seed`."""
        if self.fixed_random_seed is not None:
            return self.fixed_random_seed
        return epoch_seed(epoch, self.partition_epoch or 1, self.random_seed_offset, nth)


def epoch_seed(epoch: int | None, partition_epoch: int = 1, offset: int = 0, nth: int = 1) -> int:
    """Seed that stays the same during one full pass (`partition_epoch` epochs), or during `nth` full passes."""
    full_pass = ((epoch or 1) - 1) // max(partition_epoch, 1) + 1
    return (full_pass - 1) // max(nth, 1) + 1 + offset


def seq_order(options: OrderOptions, epoch: int | None, num_seqs: int, lengths: SeqLengths, tags: Tags) -> Order:
    """Corpus indices of the epoch's sequences, in order.

    `lengths` and `tags` give the values of the whole corpus (in corpus order) and are only called if needed.
    Raises ConfigError for an unknown ordering, missing lengths, or a filter that leaves nothing.
    """
    if epoch is None:
        return np.empty(0, np.int64)
    if num_seqs <= 0 or num_seqs != int(num_seqs):
        raise ConfigError("num_seqs", f"must be a positive whole number, but is {num_seqs} instead")
    num_seqs = int(num_seqs)
    name, args = parse_ordering(ordering_name(options.seq_ordering, epoch), num_seqs)
    rng = np.random.RandomState(options.seed(epoch, args.nth))
    if name in NEED_LENGTHS:
        args.lengths = _checked_lengths(name, lengths(), num_seqs)
    order = ORDERINGS[name](num_seqs, args, rng)
    if options.unique_seq_tags:
        order = first_of_each_tag(order, tags())
    order = part_of_epoch(order, options, epoch)
    if (options.repeat_epoch or 1) > 1:
        order = np.tile(order, options.repeat_epoch or 1)
    if options.seq_list_filter is not None:
        order = filter_tags(order, options.seq_list_filter, tags())
    return order


def ordering_name(value: ConfigValue, epoch: int | None) -> str:
    """The `seq_ordering` text; a function is asked with the epoch (and must accept further keywords)."""
    if callable(value):
        value = value(epoch=epoch)
    if not isinstance(value, str):
        raise ConfigError("seq_ordering", f"must be a string or a function that returns one, but is {value!r} instead")
    return value


# --- the orderings ---


@dataclass
class OrderArgs:
    """The numbers behind the colons of a `seq_ordering`, and the lengths to sort by."""

    bins: int = 2
    nth: int = 1
    lengths: np.ndarray = field(default_factory=lambda: np.empty(0))


def parse_ordering(text: str, num_seqs: int) -> tuple[str, OrderArgs]:
    """("laplace", OrderArgs(bins=1000)) for "laplace:1000"; raises ConfigError for anything unknown."""
    name, *parts = text.split(":")
    if name not in ORDERINGS:
        hint = did_you_mean(name, ORDERINGS) or f"; known: {', '.join(ORDERINGS)}"
        raise ConfigError("seq_ordering", f'invalid seq_ordering "{text}"{hint}')
    try:
        return name, _parse_args(name, parts, num_seqs)
    except ValueError:
        raise ConfigError("seq_ordering", f'invalid seq_ordering "{text}": the numbers must be whole') from None


def _parse_args(name: str, parts: list[str], num_seqs: int) -> OrderArgs:
    """Raises ValueError where a part is no number, or there are too many of them."""
    if len(parts) > MAX_PARTS.get(name, 0):
        raise ValueError(parts)
    if name in ("random", "random_sample"):
        return OrderArgs(nth=_positive(parts[0]) if parts else 1)
    if name == "default_every_n":
        return OrderArgs(bins=_positive(parts[0] if parts else ""))
    args = OrderArgs()
    if parts:
        text = parts[0]
        args.bins = max(num_seqs // _positive(text[1:]), 2) if text.startswith(".") else _positive(text)
    if len(parts) > 1:
        args.nth = _positive(parts[1])
    return args


def _positive(text: str) -> int:
    number = int(text)
    if number <= 0:
        raise ValueError(text)
    return number


def _checked_lengths(name: str, lengths: np.ndarray | None, num_seqs: int) -> np.ndarray:
    if lengths is None:
        raise ConfigError("seq_ordering", f'"{name}" needs sequence lengths, which this dataset does not know')
    if len(lengths) != num_seqs:
        raise ConfigError("seq_ordering", f"{num_seqs} sequences, but lengths of {len(lengths)}")
    return np.asarray(lengths, np.int64 if np.asarray(lengths).dtype.kind == "u" else None)  # negated for some orders


def _bins(permuted: Order, bins: int) -> list[Order]:
    """The permutation cut in `bins` consecutive parts of nearly equal size."""
    borders = [i * len(permuted) // bins for i in range(bins + 1)]
    return [permuted[a:b] for a, b in zip(borders[:-1], borders[1:], strict=True)]


def _default(n: int, _args: OrderArgs, _rng: np.random.RandomState) -> Order:
    return np.arange(n)


def _reverse(n: int, _args: OrderArgs, _rng: np.random.RandomState) -> Order:
    return np.arange(n - 1, -1, -1)


def _sorted(_n: int, args: OrderArgs, _rng: np.random.RandomState) -> Order:
    return np.argsort(args.lengths, kind="stable")


def _sorted_reverse(_n: int, args: OrderArgs, _rng: np.random.RandomState) -> Order:
    return np.argsort(-args.lengths, kind="stable")


def _random(n: int, _args: OrderArgs, rng: np.random.RandomState) -> Order:
    return rng.permutation(n)


def _random_sample(n: int, _args: OrderArgs, rng: np.random.RandomState) -> Order:
    return rng.randint(0, n, size=n)


def _default_every_n(n: int, args: OrderArgs, _rng: np.random.RandomState) -> Order:
    """`bins` parallel streams: each batch of that many sequences continues the one before. The rest is dropped."""
    return np.arange(n // args.bins * args.bins).reshape(args.bins, -1).T.ravel()


def _laplace(n: int, args: OrderArgs, rng: np.random.RandomState) -> Order:
    """Random bins, sorted alternately upwards and downwards."""
    parts = []
    for i, part in enumerate(_bins(rng.permutation(n), args.bins)):
        keys = args.lengths[part]
        parts.append(part[np.argsort(-keys if i % 2 else keys, kind="stable")])
    return np.concatenate(parts)


def _sort_bin_shuffle(n: int, args: OrderArgs, rng: np.random.RandomState, shuffle_inside: bool = False) -> Order:
    """All sorted by length, cut into bins, the bins shuffled."""
    permuted = rng.permutation(n)
    parts = _bins(permuted[np.argsort(args.lengths[permuted], kind="stable")], args.bins)
    ids = rng.permutation(args.bins)
    parts = [parts[i].copy() for i in ids]
    if shuffle_inside:
        for part in parts:
            rng.shuffle(part)
    return np.concatenate(parts)


def _sort_bin_shuffle_x2(n: int, args: OrderArgs, rng: np.random.RandomState) -> Order:
    """As sort_bin_shuffle, and each bin shuffled inside."""
    return _sort_bin_shuffle(n, args, rng, shuffle_inside=True)


ORDERINGS: dict[str, Callable[[int, OrderArgs, np.random.RandomState], Order]] = {
    "default": _default,
    "reverse": _reverse,
    "sorted": _sorted,
    "sorted_reverse": _sorted_reverse,
    "random": _random,
    "random_sample": _random_sample,
    "default_every_n": _default_every_n,
    "laplace": _laplace,
    "sort_bin_shuffle": _sort_bin_shuffle,
    "sort_bin_shuffle_x2": _sort_bin_shuffle_x2,
}
NEED_LENGTHS = {"sorted", "sorted_reverse", "laplace", "sort_bin_shuffle", "sort_bin_shuffle_x2"}
NEED_NO_SEED = {"default", "default_every_n", "reverse", "sorted", "sorted_reverse"}
MAX_PARTS = {  # how many numbers may follow the name
    "random": 1,
    "random_sample": 1,
    "default_every_n": 1,
    "laplace": 2,
    "sort_bin_shuffle": 2,
    "sort_bin_shuffle_x2": 2,
}


# --- what happens to an order afterwards ---


def part_of_epoch(order: Order, options: OrderOptions, epoch: int | None) -> Order:
    """This epoch's (and shard's) slice of the full pass; the first ones are longer by one if need be."""
    partitions = options.partition_epoch or 1
    parts = partitions * options.num_shards
    if parts == 1:
        return order
    index = ((epoch or 1) - 1) % partitions * options.num_shards + options.shard_index
    size, rest = divmod(len(order), parts)
    start = index * size + min(index, rest)
    return order[start : start + size + (index < rest)]


def first_of_each_tag(order: Order, tags: Iterable[str]) -> Order:
    """The order without the later occurrences of a tag."""
    ids: dict[str, int] = {}
    tag_ids = np.fromiter((ids.setdefault(tag, len(ids)) for tag in tags), np.int64)
    _, first = np.unique(tag_ids[order], return_index=True)
    return order[np.sort(first)]


def filter_tags(order: Order, wanted: frozenset[str], tags: Iterable[str]) -> Order:
    """The order without the sequences whose tag is not wanted; raises ConfigError if nothing is left."""
    keep = np.fromiter((tag in wanted for tag in tags), bool)
    filtered: Order = order[keep[order]]
    if not len(filtered):
        example = next(iter(tags), None)
        raise ConfigError(
            "seq_list_filter_file",
            f"the epoch is empty after applying seq_list_filter_file: none of {len(order)} sequences"
            f" (the corpus starts with tag {example!r}) is among its {len(wanted)} tags"
            f" (such as {min(wanted, default=None)!r})",
        )
    return filtered


def indices_of_tags(seq_list: Sequence[str], index_of: Callable[[str], int]) -> Order:
    """Corpus indices of a list of tags (which may repeat)."""
    return np.fromiter((index_of(tag) for tag in seq_list), np.int64, len(seq_list))
