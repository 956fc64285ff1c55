"""Functions of the config applied to the sequences of a dataset."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from returnn_lite.config_value import ConfigDict, ConfigValue
from returnn_lite.datasets.combined.read_in_order import Item, ReadInOrder
from returnn_lite.datasets.combined.sub import Wrapper, loaded, sub_dataset
from returnn_lite.datasets.options import BaseOptions, DataError, blamed
from returnn_lite.datasets.registry import dataset
from returnn_lite.datasets.seq_tensors import SeqTensors, items_of, raw
from returnn_lite.datasets.typed_keys import dims_of_options, is_sparse, shape_of_options
from returnn_lite.errors import ConfigError
from returnn_lite.log import Log

if TYPE_CHECKING:
    from returnn_lite.frontend.tensor_dict import TensorDict

EXTRA = ("complete_frac", "seq_idx", "seq_tag")  # in every tensor dict beside the data keys


@dataset("PostprocessingDataset")
class PostprocessingDataset(ReadInOrder, Wrapper):
    """Applies `map_seq` to each sequence, or `map_seq_stream` to the iterator over all of them.

    `map_seq(tensor_dict, epoch=, seq_idx=, rng=, …)` gives a tensor dict, `map_seq_stream(iterator, epoch=, rng=, …)`
    an iterator of them. `map_outputs` {key: tensor options} describes what comes out, without it the same as goes in.
    With `num_workers` > 0 the sequences are dealt out to so many streams, each with its own rng. Sequences can be read
    forwards only. `buf_size` has no effect.
    """

    def __init__(
        self,
        base: BaseOptions | None = None,
        *,
        dataset: ConfigValue,
        map_seq: Callable[..., Any] | None = None,
        map_seq_stream: Callable[..., Any] | None = None,
        map_outputs: ConfigDict | None = None,
        map_seq_stream_preserves_num_seqs: bool | None = None,
        buf_size: int = 1,
        num_workers: int = 0,
        log: Log | None = None,
    ):
        super().__init__(base, log=log)
        self.refuse_orders()
        if (map_seq is None) == (map_seq_stream is None):
            raise ConfigError(self.name, "needs exactly one of map_seq and map_seq_stream")
        self.map_seq, self.map_stream = map_seq, map_seq_stream
        self.keeps_number = map_seq is not None or bool(map_seq_stream_preserves_num_seqs)
        self.num_workers = num_workers
        self.describe_as(sub_dataset(self, dataset, "inner"))
        self.types: dict[str, dict[str, Any]] | None = None
        if map_outputs is not None:
            self.types = {key: _options(value) for key, value in map_outputs.items()}
            self.num_outputs = {key: dims_of_options(options) for key, options in self.types.items()}
            self.num_inputs = self.num_outputs.get("data", (0, 0))[0]
            self.labels = {key: labels for key, labels in self.labels.items() if key in self.types}
        self.have_corpus_seq_idx = map_seq is not None and self.inner.have_corpus_seq_idx
        self._start()

    def _start(self) -> None:
        self._begin()
        self._stream: Iterator[Item] = iter(())
        self._last_input = ""  # the tag of the sequence that went into the function last

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_stream": iter(()), "_made": {}}

    def init_seq_order(
        self, epoch: int | None = None, seq_list: Sequence[str] | None = None, seq_order: Sequence[int] | None = None
    ) -> bool:
        """Starts an epoch of the inner dataset and a new stream over it."""
        self.epoch, self._loaded = epoch, {}
        changed = self.inner.init_seq_order(epoch, seq_list=seq_list, seq_order=seq_order)
        self._start()
        if epoch is not None or seq_list is not None or seq_order is not None:
            self._stream = self._outputs()
        return changed

    # --- the stream ---

    def _rngs(self) -> list[np.random.RandomState]:
        seed = self.order_options.seed(self.epoch)
        if not self.num_workers:
            return [np.random.RandomState(seed)]
        n = self.num_workers
        return [np.random.RandomState((seed * 683859 * n + 30411 * i) % (2**32 - 1)) for i in range(n)]

    def _outputs(self) -> Iterator[Item]:
        """The mapped sequences with tag and how much of the epoch is done."""
        rngs = self._rngs()
        streams = deque(self._mapped(self._inputs(i, len(rngs)), rng) for i, rng in enumerate(rngs))
        try:
            while streams:
                for tensors in streams[0]:
                    yield self._output(tensors)
                    streams.rotate(-1)
                    break
                else:
                    streams.popleft()
        except Exception as exc:
            raise blamed(f'{self.name}: sequence "{self._last_input}"', exc) from exc

    def _mapped(self, inputs: Iterator[TensorDict], rng: np.random.RandomState) -> Iterator[Any]:
        if self.map_stream is not None:
            return iter(self.map_stream(inputs, epoch=self.epoch, rng=rng))
        return iter(()) if self.map_seq is None else self._mapped_one_by_one(self.map_seq, inputs, rng)

    def _mapped_one_by_one(
        self, function: Callable[..., Any], inputs: Iterator[TensorDict], rng: np.random.RandomState
    ) -> Iterator[Any]:
        for tensors in inputs:
            extra = {name: tensors[name] for name in EXTRA}
            index = int(raw(extra["seq_idx"]))
            found = items_of(function(tensors, epoch=self.epoch, seq_idx=index, rng=rng))
            yield {**extra, **found}

    def _inputs(self, first: int, step: int) -> Iterator[TensorDict]:
        inner, i, tensors = self.inner, first, SeqTensors(self.inner)
        while inner.is_less_than_num_seqs(i):
            seq = loaded(inner, [i], inner.get_data_keys())[0]
            self._last_input = inner.get_tag(i)
            yield tensors.of(seq, index=i, tag=self._last_input, complete=inner.get_complete_frac(i))
            i += step

    def _output(self, tensors: ConfigValue) -> Item:
        found = items_of(tensors)
        tag = str(raw(found["seq_tag"])) if "seq_tag" in found else f"seq-{self._count}"
        missing = [key for key in self.get_data_keys() if key not in found]
        if missing:
            raise DataError(
                f'{self.name}: sequence "{tag}"',
                f"the function must return {missing}, but returned {sorted(found)} only",
            )
        fraction = float(raw(found["complete_frac"])) if "complete_frac" in found else 0.0
        seq = {key: self._checked(tag, key, raw(found[key])) for key in self.get_data_keys()}
        return Item(tag, seq, fraction)

    def _checked(self, tag: str, key: str, array: np.ndarray) -> np.ndarray:
        ndim = self._dim_ndim(key)[1] if self.types is not None else array.ndim
        if array.ndim != ndim:
            raise DataError(
                f'{self.name}: sequence "{tag}"', f'"{key}" must have {ndim} axes, but has the shape {array.shape}'
            )
        return array

    # --- sequences ---

    def _next(self) -> Item | None:
        return next(self._stream, None)

    def epoch_lengths(self, start: int, end: int) -> None:
        """Not known before the function was applied."""
        return None

    @property
    def num_seqs(self) -> int | float:
        """Sequences of this epoch; raises NotImplementedError where a stream decides that and has not ended."""
        if self._ended:
            return self._count
        if not self.keeps_number:
            raise NotImplementedError(f"{self.name}: the number of sequences is not known before the end")
        return self.inner.num_seqs

    def is_less_than_num_seqs(self, n: int) -> bool:
        """Whether there is a sequence with index n."""
        return self.inner.is_less_than_num_seqs(n) if self.keeps_number and not self._ended else self._pull(n)

    def get_total_num_seqs(self, *, fast: bool = False) -> int | float:
        """As the inner dataset, if the number stays."""
        if not self.keeps_number:
            raise NotImplementedError(f"{self.name}: the number of sequences is not known")
        return self.inner.get_total_num_seqs(fast=fast)

    def get_complete_frac(self, seq_idx: int) -> float:
        """As the function says, else as the inner dataset."""
        fraction = self._made[seq_idx][2] if seq_idx in self._made else 0.0
        return fraction or self.inner.get_complete_frac(seq_idx)

    def get_corpus_seq_idx(self, seq_idx: int) -> int:
        """As the inner dataset, if sequences stay what they are."""
        if not self.have_corpus_seq_idx:
            raise NotImplementedError(f"{self.name}: has no corpus indices")
        return self.inner.get_corpus_seq_idx(seq_idx)

    def get_current_seq_order(self) -> np.ndarray:
        """As the inner dataset, if sequences stay what they are."""
        if not self.have_corpus_seq_idx:
            raise NotImplementedError(f"{self.name}: has no corpus indices")
        return self.inner.get_current_seq_order()

    def limit_keys(self, keys: Sequence[str] | None) -> None:
        """The function may need any key."""

    # --- what the data are ---

    def get_data_keys(self) -> list[str]:
        """By `map_outputs`, else as the inner dataset."""
        return super().get_data_keys() if self.types is None else list(self.types)

    def get_target_list(self) -> list[str]:
        """All keys but "data", or as the inner dataset."""
        return super().get_target_list() if self.types is None else [key for key in self.types if key != "data"]

    def get_data_dim(self, key: str) -> int:
        """By `map_outputs`, else as the inner dataset."""
        return super().get_data_dim(key) if self.types is None else self._dim_ndim(key)[0]

    def get_data_dtype(self, key: str) -> str:
        """By `map_outputs`, else as the inner dataset."""
        if self.types is None:
            return super().get_data_dtype(key)
        self._dim_ndim(key)
        return str(self.types[key].get("dtype") or ("int32" if is_sparse(self.types[key]) else "float32"))

    def is_data_sparse(self, key: str) -> bool:
        """By `map_outputs`, else as the inner dataset."""
        if self.types is None:
            return super().is_data_sparse(key)
        self._dim_ndim(key)
        return is_sparse(self.types[key])

    def get_data_shape(self, key: str) -> list[int | None]:
        """By `map_outputs`, else as the inner dataset."""
        if self.types is None:
            return super().get_data_shape(key)
        self._dim_ndim(key)
        shape = shape_of_options(self.types[key])
        return list(shape[1:]) if shape and shape[0] is None else list(shape)

    def has_time(self, key: str) -> bool:
        """By `map_outputs`, else as the inner dataset."""
        if self.types is None:
            return super().has_time(key)
        shape = shape_of_options(self.types[key])
        return bool(shape) and shape[0] is None


def _options(value: ConfigValue) -> dict[str, Any]:
    """Options of a tensor, from a dict or a tensor-like object."""
    if isinstance(value, Mapping):
        return dict(value)
    names = ("dims", "shape", "dim", "dtype", "sparse", "sparse_dim")
    return {name: getattr(value, name) for name in names if getattr(value, name, None) is not None}


class LaplaceOrdering:
    """For `map_seq_stream`: sorts bins of so many sequences by length, upwards and downwards in turn."""

    def __init__(self, num_seqs_per_bin: int, length_key: str = "data"):
        self.num_seqs_per_bin, self.length_key = num_seqs_per_bin, length_key

    def __call__(self, tensors: Iterator[Any], **_: ConfigValue) -> Iterator[Any]:
        """The sequences in the new order; the values of complete_frac stay where they are."""
        downwards = False
        pending: list[Any] = []
        for one in tensors:
            pending.append(one)
            if len(pending) == self.num_seqs_per_bin:
                yield from self._sorted(pending, downwards)
                pending, downwards = [], not downwards
        yield from self._sorted(pending, downwards)

    def _sorted(self, pending: list[Any], downwards: bool) -> Iterator[Any]:
        fractions = [items_of(one).get("complete_frac") for one in pending]
        pending.sort(key=lambda one: len(raw(items_of(one)[self.length_key])), reverse=downwards)
        for one, fraction in zip(pending, fractions, strict=True):
            if fraction is not None:
                cast(dict[str, Any], items_of(one))["complete_frac"] = fraction
            yield one


class Sequential:
    """Functions for `map_seq` or `map_seq_stream` one after another, the first one first."""

    def __init__(self, *functions: Callable[..., Any]):
        self.functions = functions

    def __call__(self, value: ConfigValue, **options: ConfigValue) -> Any:
        """The result of the last."""
        for function in self.functions:
            value = function(value, **options)
        return value
