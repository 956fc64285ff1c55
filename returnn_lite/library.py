"""The package as a library: `load` gives a trained model to call on arrays, `train` runs a training.

    from returnn_lite import load
    model = load("my.config", epoch=12)
    posteriors = model(features)          # (T, D) -> (T, classes), or a batch (B, T, D)
    [best, *others] = model.search(features)

Messages go to the standard module `logging`, under the name "returnn_lite".
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import torch

import returnn_lite.catalog  # noqa: F401 - fills the registries
import returnn_lite.compat.formats  # noqa: F401 - the file formats of other programs
from returnn_lite.compat.config_imports import config_imports
from returnn_lite.config import Config, load_into
from returnn_lite.engine import data as engine_data
from returnn_lite.engine.setup import Loaded, load_network
from returnn_lite.engine.step import forward_batch
from returnn_lite.engine.tasks.frame_labels import ctc_labels, is_ctc
from returnn_lite.engine.tasks.hypotheses import float32_number, unpadded
from returnn_lite.engine.tasks.labels import labels_of_output
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log, LoggingTarget
from returnn_lite.tasks import eval_names, run_task
from returnn_lite.tensor import Tensor
from returnn_lite.vocab import Vocabulary

Array: TypeAlias = "np.ndarray[Any, Any] | torch.Tensor"
OfOne: TypeAlias = "Array | Sequence[int] | None"  # lengths of the sequences of one key
Source: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Mapping[str, Any] | Config"


@dataclass(frozen=True)
class Output:
    """An output of a model. `array`: batch-first (B, T, …), padded, or without the batch axis for one sequence;
    `lengths`: int (B,) of its time axis, None without one."""

    array: Array
    lengths: Array | None


@dataclass(frozen=True)
class Hypothesis:
    """A result of a search: its labels (L,), their text (None without a vocabulary), and its log score."""

    labels: np.ndarray[Any, Any]
    text: str | None
    score: float


@dataclass
class _Batch:
    """What the engine asks of a batch."""

    data: dict[str, Any]
    lengths: dict[str, np.ndarray[Any, Any]]
    tags: list[str]
    complete: float = 1.0

    @property
    def seq_idx(self) -> np.ndarray[Any, Any]:
        """The sequences are counted from 0."""
        return np.arange(len(self.tags))


def read_config(source: Source, **options: Any) -> Config:
    """The config of files (a later one wins), of a dict of options, or as it is; `options` win over it.

    Raises ConfigError for what is wrong with it.
    """
    config = source if isinstance(source, Config) else Config()
    if isinstance(source, Mapping):
        config.update(dict(source))
    elif not isinstance(source, Config):
        files = [source] if isinstance(source, (str, os.PathLike)) else list(source)
        with config_imports(config):
            load_into(config, [os.fspath(file) for file in files], [])
    for key, value in options.items():
        config.set(key, value)
    config.eval_names = config.eval_names or eval_names
    return config


def load(
    source: Source, *, epoch: int | None = None, file: str | os.PathLike[str] | None = None, **options: Any
) -> Model:
    """The trained model of a config, ready to be called.

    epoch: whose checkpoint to load, by the config's option `model`; file: a checkpoint file instead; neither: the last
    epoch there is. options: of the config, e.g. `device="cpu"`, `beam_size=4`. Raises ConfigError if there is no such
    checkpoint, or it does not fit the network.
    """
    chosen: dict[str, Any] = {}
    if epoch is not None:
        chosen["load_epoch"] = epoch
    if file is not None:
        chosen["load"] = os.fspath(file)
    return Model(read_config(source, **chosen, **options))


def train(source: Source, **options: Any) -> dict[int, dict[str, float]]:
    """Trains as the command line does, resuming what is there; the scores of each epoch: {1: {"dev_score": …}, …}.

    options: of the config, e.g. `num_epochs=5`. A config without `model` writes no files, and nothing can be resumed.
    """
    config, log = read_config(source, **options), library_log()
    config.set("task", "train")
    with config_imports(config):
        trainer = run_task(config, log)
    return {epoch: dict(record.error) for epoch, record in trainer.control.epochs.items() if record.error}


def library_log() -> Log:
    """The log whose messages go to the module `logging`."""
    return Log([LoggingTarget()])


class Model:
    """A trained model. `config`, `epoch`; `net`: the network, a torch module."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._log = library_log()
        self._loaded: dict[bool, Loaded] = {}  # by whether it searches
        self._asked: dict[bool, set[str]] = {False: set(), True: set()}  # the layers that these have been built for
        with config_imports(config):
            if not config.typed_value("extern_data") and not config.has("num_inputs"):
                names = ("train", "dev", "eval")
                opened = (engine_data.open_dataset(config, name, self._log) for name in names)
                engine_data.complete_extern_data(config, opened)
        self.net = cast(torch.nn.Module, self._network(search=False, layers=self._marked()).net)  # as all networks are

    def __repr__(self) -> str:
        return f"<Model of epoch {self.epoch}, {sum(p.numel() for p in self.net.parameters())} parameters>"

    @property
    def epoch(self) -> int:
        """The epoch of its checkpoint."""
        return self._loaded[False].epoch

    def __call__(
        self, features: Array, lengths: Array | Sequence[int] | None = None, *, layer: str = "output"
    ) -> Array:
        """The output of a layer for the default input: (T, …) of one sequence, or padded (B, T, …).

        lengths: of the sequences of a batch, (B,); all frames by default. The result is a numpy array or a tensor, as
        `features` are; see `forward` for its lengths.
        """
        key = str(self._extern().default_input)
        return self.forward({key: features}, lengths, layers=(layer,))[layer].array

    def forward(
        self,
        data: Mapping[str, Array],
        lengths: Mapping[str, OfOne] | OfOne = None,
        *,
        layers: Sequence[str] = ("output",),
    ) -> dict[str, Output]:
        """The outputs of `layers` ("encoder", "output/att", or what `forward_step` marks) for arrays by data key.

        lengths: by key, or those of the default input. Raises ConfigError for data that does not fit, and for layers
        that the network does not have.
        """
        single, batch = self._batch(data, lengths)
        out = self._run(self._network(search=False, layers=layers), batch, layers)
        as_numpy = not any(isinstance(value, torch.Tensor) for value in data.values())
        return {name: _output(_find(out, name), single, as_numpy) for name in layers}

    def search(
        self,
        data: Mapping[str, Array] | Array,
        lengths: Mapping[str, OfOne] | OfOne = None,
        *,
        layer: str = "output",
    ) -> list[Any]:
        """Beam search. For one sequence its `Hypothesis` list, best first; for a batch a list of these.

        layer: whose labels they are. Of a layer that decodes CTC there is one hypothesis (or several, with its option
        `keep_beams`), and of one that is trained by CTC that of the best class of each frame. Raises ConfigError for a
        network that gives no labels.
        """
        given = data if isinstance(data, Mapping) else {str(self._extern().default_input): data}
        single, batch = self._batch(given, lengths)
        loaded = self._network(search=True, layers=(layer,))
        out: Tensor = _find(self._run(loaded, batch, (layer,)), layer).batch_major()
        if is_ctc(loaded.net, layer) and not out.spec.sparse:
            out = ctc_labels(loaded.net, layer, out)
        if out.beam is None and not (out.spec.sparse and "scores" in (out.parts or {})):
            text = (
                f"layer {layer!r} must come out of a search (a layer `choice` in a loop, or `ctc_decode`), but does not"
            )
            raise ConfigError("network", text)
        found = self._hypotheses(out, labels_of_output(loaded.net, layer, out), len(batch.tags))
        return found[0] if single else found

    # --- inside -------------------------------------------------------------------------------------------------------

    def _marked(self) -> tuple[str, ...]:
        """What makes a model in torch run its `forward_step`, if it has one."""
        return ("output",) if self.config.typed_value("forward_step") is not None else ()

    def _extern(self) -> Any:
        return self._loaded[False].net.extern_data

    def _network(self, *, search: bool, layers: Sequence[str] = ()) -> Loaded:
        """The network that has these layers, loaded once; with other layers it is built anew around the parameters."""
        known, asked = self._loaded.get(search), self._asked[search]
        if known is not None and (not known.net.layers or set(layers) <= known.net.layers.keys() | asked):
            return known
        wanted = asked | set(layers)
        with config_imports(self.config):
            made = load_network(
                self.config, self._log, task="search" if search else "forward", search=search, eval=False,
                extra_layers=tuple(sorted(wanted)),
            )  # fmt: skip
        self._asked[search] = wanted
        first = self._loaded.setdefault(False, made)
        if first is not made:
            _share_params(first.net, made.net)
        self._loaded[search] = made
        return made

    def _run(self, loaded: Loaded, batch: _Batch, layers: Sequence[str]) -> Any:
        with config_imports(self.config), torch.no_grad():
            return forward_batch(loaded.net, batch, loaded.device, wanted=layers)

    def _batch(self, data: Mapping[str, Array], lengths: Any) -> tuple[bool, _Batch]:
        """Whether one sequence without batch axis was given, and the batch."""
        extern = self._extern()
        for key in data:
            extern.spec(key, "data")  # ConfigError with the nearest name
        given = dict(lengths) if isinstance(lengths, Mapping) else {}
        if lengths is not None and not isinstance(lengths, Mapping):
            given[str(extern.default_input)] = lengths
        single, arrays = False, {}
        for key, value in data.items():
            array = value if isinstance(value, torch.Tensor) else np.asarray(value)
            if array.ndim == extern.spec(key).rank - 1:
                single, array = True, array[None]
            arrays[key] = _typed(array, extern.spec(key).dtype)
        count = len(next(iter(arrays.values()))) if arrays else 0
        known = {key: np.asarray(value, "int32").reshape(-1) for key, value in given.items()}
        for key, array in arrays.items():
            if extern.spec(key).time is not None:
                known.setdefault(key, np.full(count, array.shape[1], "int32"))
        for key, value in known.items():
            if len(value) != count:
                text = f"`lengths` must have one number per sequence ({count}), but has {len(value)} instead"
                raise ConfigError(f"lengths[{key!r}]", text)
        return single, _Batch(arrays, known, [f"seq-{i}" for i in range(count)])

    @staticmethod
    def _hypotheses(out: Tensor, labels: Vocabulary | None, count: int) -> list[list[Hypothesis]]:
        beam = out.beam
        size = 1 if beam is None or beam.decided else beam.size
        log_scores = beam.scores if beam is not None else out.parts["scores"].data if out.parts else None
        scores = log_scores.detach().cpu().numpy().reshape(count, -1) if log_scores is not None else None
        rows, found = unpadded(out), []
        for b in range(count):
            of_seq = []
            for k in range(size):
                row = np.atleast_1d(rows[b * size + k])
                text = labels.get_seq_labels(row.tolist()) if labels is not None else None
                of_seq.append(Hypothesis(row, text, float32_number(scores[b, k]) if scores is not None else 0.0))
            found.append(of_seq)
        return found


def _find(out: Any, name: str) -> Tensor:
    """An output by name; ConfigError if there is none."""
    try:
        found: Tensor = out[name]
    except KeyError:
        known = [str(known) for known in getattr(out, "nodes", {})]
        raise ConfigError("layers", f"unknown layer {name!r}{did_you_mean(name, known)}") from None
    return found


def _output(out: Tensor, single: bool, as_numpy: bool) -> Output:
    """A tensor with named axes as arrays."""
    has_batch = out.spec.batch is not None
    out = out.batch_major() if has_batch else out
    data, lengths = out.data, None
    dim = out.spec.time_dim
    if dim is not None and dim.dynamic:
        lengths = out.length(dim).values
    if single and has_batch:
        data, lengths = data[0], lengths[0] if lengths is not None else None
    if not as_numpy:
        return Output(data, lengths)
    return Output(data.cpu().numpy(), lengths.cpu().numpy() if lengths is not None else None)


def _typed(array: Array, dtype: str) -> Array:
    """The array with the type that the data key has."""
    if isinstance(array, torch.Tensor):
        return array.to(getattr(torch, dtype))
    return array.astype(dtype) if dtype != "string" else array


def _share_params(first: Any, second: Any) -> None:
    """Lets the second network have the very parameters of the first."""
    own = first.params
    with torch.no_grad():
        for name, param in second.params.items():
            if name in own and own[name].shape == param.shape:
                param.data = own[name].data
