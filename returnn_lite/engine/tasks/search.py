"""Task `search`: beam search over a dataset, and its result as text; of a CTC output the labels it says."""

import dataclasses
import gzip
import os
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch

from returnn_lite.config import Config
from returnn_lite.config_value import ConfigValue
from returnn_lite.datasets import Dataset
from returnn_lite.datasets.batches.collate import Batch
from returnn_lite.engine import data, report
from returnn_lite.engine.batch_errors import with_batch_context
from returnn_lite.engine.log_form import Pass
from returnn_lite.engine.models.model import Model, ModelOutput
from returnn_lite.engine.setup import load_network
from returnn_lite.engine.step import forward_batch, run_step
from returnn_lite.engine.step_meter import step_meter
from returnn_lite.engine.tasks.frame_labels import ctc_labels, is_ctc, refuse_frames
from returnn_lite.engine.tasks.hypotheses import Raw, hypotheses
from returnn_lite.engine.tasks.labels import dataset_labels, labels_of_output, numbered_labels
from returnn_lite.engine.tasks.search_plot import SearchPlot
from returnn_lite.engine.tasks.serialize import better_repr
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.files import TEMPORARY, remove_if_there, write_atomically
from returnn_lite.log import Log
from returnn_lite.vocab import Vocabulary

FORMATS = ("txt", "py")
# The same with text in place of arrays where classes have names.
Readable: TypeAlias = str | np.ndarray | list[tuple[float, str | np.ndarray]]
Result: TypeAlias = tuple[str, Readable | dict[str, Readable]]  # tag, and what was found; several layers by name


@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """The options of the task, checked."""

    layers: tuple[str, ...]
    several: bool  # the layers were given as a list
    filename: str
    format: str
    evaluate: bool
    plot: SearchPlot | None

    @property
    def asked(self) -> tuple[str, ...]:
        """All layers whose outputs are read."""
        return (*self.layers, *(self.plot.layers if self.plot else ()))

    @classmethod
    def from_config(cls, config: Config, log: Log) -> "SearchOptions":
        """Raises ConfigError for options that do not go together, and for a file that exists."""
        value: ConfigValue = "output"
        if config.is_typed("search_output_layer"):
            value = config.typed_value("search_output_layer", "output")
        elif config.has("search_output_layer"):
            text = "only counts where the config defines it; the layer is 'output'"
            log.v1(f"WARNING: search_output_layer {config.value('search_output_layer', '')!r} {text}")
        filename, format = config.value("search_output_file", ""), config.value("search_output_file_format", "txt")
        if format not in FORMATS:
            hint = did_you_mean(format, FORMATS)
            raise ConfigError("search_output_file_format", f'must be "txt" or "py", but is {format!r} instead{hint}')
        several = not isinstance(value, str)
        if several and filename and format != "py":
            raise ConfigError("search_output_file_format", 'must be "py" for several search output layers')
        if filename and os.path.exists(filename):
            raise ConfigError("search_output_file", f"file {filename!r} must not exist yet, but does")
        if filename:
            remove_if_there(filename + TEMPORARY)
        layers = tuple(value) if several else (value,)
        evaluate, plot = bool(config.bool("search_do_eval", True)), SearchPlot.from_config(config)
        return cls(layers, several, filename, format, evaluate, plot)


def search_task(config: Config, log: Log) -> None:
    """Searches all sequences of `search_data`; texts go to `search_output_file` in corpus order."""
    options = SearchOptions.from_config(config, log)
    dataset = data.named_dataset(config, "search_data", log)
    data.complete_extern_data(config, [dataset])
    loaded = load_network(config, log, task="search", search=True, eval=options.evaluate, extra_layers=options.asked)
    net, device = loaded.net, loaded.device
    if not options.several and is_ctc(net, options.layers[0]):
        log.v2(f"{options.layers[0]}: the labels of CTC, decoded greedily; a layer `ctc_decode` searches with a beam")
    batching = data.search_batching(config, net)
    if options.filename:
        force_order(dataset, log)
    dataset.init_seq_order(epoch=loaded.epoch)
    loader = data.load_batches(dataset, batching, net, config)
    meter = step_meter(config, loaded.source.form, Pass("search", loaded.epoch, dataset.name), log, net)
    found: dict[int, Result] = {}
    with torch.no_grad(), net.running_over(dataset.name):
        for batch in loader:
            with with_batch_context(batch, config):
                if options.evaluate:
                    result = run_step(net, batch, device, wanted=options.asked)
                    out = result.out
                    meter.add(result, batch)
                else:
                    out = forward_batch(net, batch, device, wanted=options.asked)
            values = _batch_values(net, out, batch, dataset, options, log)
            places = [_corpus_index(dataset, int(i)) for i in batch.seq_idx]
            found |= dict(zip(places, values, strict=True))
            if options.plot:
                options.plot.draw(net, out, options.layers[0], batch.tags, places, dataset)
            meter.end_step()
    means = meter.finish(loader.wait_time)
    if options.filename:
        write_results(options, [found[i] for i in sorted(found)])
    score, error = report.score_text(report.by_kind(means, "cost")), report.score_text(report.by_kind(means, "error"))
    log.v1(f"Search done. Num steps {meter.progress.steps}, Final: score {score} error {error}")


def force_order(dataset: Dataset, log: Log) -> None:
    """Longest sequences first where results can be brought back into corpus order, else the order as stored."""
    known = dataset.have_corpus_seq_idx
    text = "sorted for optimal performance" if known else "not sorted"
    log.v3(f"Dataset have_corpus_seq_idx == {known}, i.e. it will be {text}.")
    dataset.options = dataclasses.replace(dataset.options, seq_ordering="sorted_reverse" if known else "default")
    dataset.__dict__.pop("order_options", None)  # derived from the options, cached


def _corpus_index(dataset: Dataset, seq_idx: int) -> int:
    return dataset.get_corpus_seq_idx(seq_idx) if dataset.have_corpus_seq_idx else seq_idx


# --- hypotheses -------------------------------------------------------------------------------------------------------


def _batch_values(
    net: Model, out: ModelOutput, batch: Batch, dataset: Dataset, options: SearchOptions, log: Log
) -> list[Result]:
    """(tag, value) of each sequence: text or array, a list of (score, text) for a beam, a dict for several layers."""
    rows: list[dict[str, Readable]] = [{} for _ in batch.tags]
    for name in options.layers:
        output = out[name].batch_major()
        if not options.several and is_ctc(net, name) and not output.spec.sparse:
            output = ctc_labels(net, name, output)
        if options.filename and options.format == "txt":
            refuse_frames(name, output)
        labels = labels_of_output(net, name, output, dataset)
        if output.spec.sparse and labels is None and options.filename:
            labels = numbered_labels(output)
        raw = hypotheses(output, len(batch.tags))
        for i, row in enumerate(rows):
            row[name] = _readable(raw[i], labels)
            if log.verbosity >= 4:
                _log_sequence(log, batch, i, name, raw[i], row[name], dataset, net)
    values = rows if options.several else [row[options.layers[0]] for row in rows]
    return list(zip(batch.tags, values, strict=True))


def _readable(value: Raw, labels: Vocabulary | None) -> Readable:
    if isinstance(value, list):
        return [(score, _named(array, labels)) for score, array in value]
    return _named(value, labels)


def _named(array: np.ndarray, labels: Vocabulary | None) -> str | np.ndarray:
    """A sequence as text, where its classes have names."""
    return labels.get_seq_labels(np.atleast_1d(array).tolist()) if labels is not None else array


def _log_sequence(
    log: Log, batch: Batch, i: int, layer: str, raw: Raw, readable: Readable, dataset: Dataset, net: Model
) -> None:
    shown = [array for _, array in raw] if isinstance(raw, list) else raw
    word = "outputs" if isinstance(raw, list) else "output"
    log.v4(f"seq_idx: {int(batch.seq_idx[i])}, seq_tag: {batch.tags[i]!r}, {word} {layer!r}: {shown!r}")
    target = net.extern_data.default_target
    values = batch.data.get(target)
    has_classes = target in batch.lengths and target in dataset.labels
    if has_classes and values is not None and not isinstance(values, list):
        reference = values[i][: int(batch.lengths[target][i])]
        labels = dataset_labels(dataset, target)
        log.v4(f"  ref: {labels.get_seq_labels(reference.tolist()) if labels else reference.tolist()}")
    if isinstance(readable, list):
        for k, (score, text) in enumerate(readable):
            log.v4(f"  hyp {k}, score {score:f}: {text}")
    else:
        log.v4(f"  hyp: {readable}")


# --- file -------------------------------------------------------------------------------------------------------------


def write_results(options: SearchOptions, results: Sequence[Result]) -> None:
    """The whole file at once, in the order of `results`; compressed if its name ends with .gz."""
    if not results:
        raise ConfigError("search_data", "must have sequences to search, but has none")
    text = py_text(results) if options.format == "py" else txt_text(results)
    content = gzip.compress(text.encode()) if options.filename.endswith(".gz") else text.encode()
    write_atomically(options.filename, lambda file: file.write(content))


def txt_text(results: Sequence[Result]) -> str:
    """A line per sequence: the text, or for a beam the list of (score, text)."""
    return "".join(f"{value if isinstance(value, str) else _one_line(value)}\n" for _, value in results)


def _one_line(value: object) -> str:
    return " ".join(repr(value).split("\n"))


def py_text(results: Sequence[Result]) -> str:
    """A Python dict of the tags; numbers are plain, so that `nan` and `inf` are the only names."""
    return "".join(["{\n", *(f"{tag!r}: {_py_value(value)},\n" for tag, value in results), "}\n"])


def _py_value(value: object) -> str:
    """Lists of hypotheses and dicts of layers over several lines."""
    if isinstance(value, Mapping):
        return "".join(["{\n", *(f"{key!r}: {_py_value(item)},\n" for key, item in sorted(value.items())), "}"])
    if isinstance(value, list):
        return "".join(["[\n", *(f"({score!r}, {_py_value(text)}),\n" for score, text in value), "]"])
    return better_repr(value)
