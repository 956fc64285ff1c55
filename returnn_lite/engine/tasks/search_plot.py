"""`search_plot` of the task `search`: the attention weights of the best hypotheses as pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter

from returnn_lite.config import Config
from returnn_lite.config_value import ConfigValue
from returnn_lite.datasets import Dataset
from returnn_lite.engine.attention_maps import attention_maps, draw, of_queries, plain, require_matplotlib
from returnn_lite.engine.models.model import Model, ModelOutput
from returnn_lite.engine.tasks.hypotheses import best_hypothesis, unpadded
from returnn_lite.engine.tasks.labels import labels_of_output
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.tensor import Tensor

KEY = "search_plot"
OPTIONS = ("layer", "file", "max_seqs")
FILE = "search_plot/{epoch}/{tag}.{layer}.png"
FIELDS = ("tag", "layer", "epoch")


@dataclass(frozen=True)
class SearchPlot:
    """Draws a picture for each sequence and layer.

    `layers`: with attention weights over encoder frames, those in a loop as "output/att_weights". `file`: the name of
    a picture, with `{tag}`, `{layer}`, `{epoch}`. `max_seqs`: only the first ones of the dataset; None: all.
    """

    layers: tuple[str, ...]
    file: str = FILE
    max_seqs: int | None = None

    @classmethod
    def from_config(cls, config: Config) -> SearchPlot | None:
        """What the option says: layers, or a dict of `OPTIONS`; None if it is not set. ConfigError if it is wrong."""
        value = config.literal(KEY, None)
        if not value:
            return None
        options = value if isinstance(value, Mapping) else {"layer": value}
        for name in options:
            if name not in OPTIONS:
                raise ConfigError(f"{KEY}[{name!r}]", f"unknown option{did_you_mean(str(name), OPTIONS)}")
        layers, max_seqs = _layers(options.get("layer")), options.get("max_seqs")
        if max_seqs is not None and (not isinstance(max_seqs, int) or max_seqs < 1):
            raise ConfigError(f'{KEY}["max_seqs"]', f"must be a number of sequences, but is {max_seqs!r} instead")
        require_matplotlib(KEY)
        return cls(layers, _file(options.get("file", FILE), layers), max_seqs)

    def draw(
        self, net: Model, out: ModelOutput, decision: str, tags: Sequence[str], places: Sequence[int], dataset: Dataset
    ) -> None:
        """Draws the sequences of a batch; `decision`: the layer with what was found, `places`: those in the dataset.

        There is no picture for a hypothesis without labels.
        """
        wanted = [i for i, place in enumerate(places) if self.max_seqs is None or place < self.max_seqs]
        for layer in self.layers if wanted else ():
            maps = attention_maps(best_hypothesis(out[layer], out[decision]), layer, option=KEY)
            texts = list(_label_rows(net, out, layer, decision, dataset))
            for i in wanted:
                if maps[i].size:
                    labels = next((found for row in texts if (found := of_queries(row[i], maps[i].shape[1]))), None)
                    name = self.file.format(tag=plain(tags[i]), layer=plain(layer), epoch=net.epoch)
                    draw(maps[i], f"{tags[i]}  {layer}", labels, name, option=KEY)


def _label_rows(net: Model, out: ModelOutput, layer: str, decision: str, dataset: Dataset) -> Iterator[list[list[str]]]:
    """The labels of each sequence's best hypothesis, by the loops around the layer and then by the decision."""
    parts = layer.split("/")
    around = ("/".join(parts[:count]) for count in range(len(parts) - 1, 0, -1))
    for name in (*(name for name in around if name in net.layers), decision):
        found = best_hypothesis(out[name], out[decision])
        vocab = labels_of_output(net, name, found, dataset) if _is_labels(found) else None
        if vocab is not None:
            yield [[vocab.labels[int(i)] for i in row] for row in unpadded(found.batch_major())]


def _is_labels(output: Tensor) -> bool:
    """Whether it holds a sequence of classes for each sequence.  Shape: (B, T)"""
    return output.spec.sparse and output.spec.batch is not None and output.spec.rank == 2


def _layers(value: ConfigValue) -> tuple[str, ...]:
    """The names of one or several layers."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) and name for name in names):
        text = f"must be the name of a layer, a list of them, or a dict of {OPTIONS}, but is {value!r} instead"
        raise ConfigError(KEY, text)
    return tuple(names)


def _file(pattern: ConfigValue, layers: tuple[str, ...]) -> str:
    """The pattern, whose names differ by sequence and layer."""
    path = f'{KEY}["file"]'
    try:
        fields = [field for _, field, _, _ in Formatter().parse(pattern) if field is not None]
        for field in fields:
            if field not in FIELDS:
                text = f"must have no other fields than {FIELDS}, but has {{{field}}}{did_you_mean(field, FIELDS)}"
                raise ConfigError(path, text)
        pattern.format(tag="", layer="", epoch=1)
    except (TypeError, ValueError) as error:
        raise ConfigError(path, f"must be the pattern of a file's name, but is {pattern!r} instead: {error}") from None
    for field in ("tag", "layer") if len(layers) > 1 else ("tag",):
        if field not in fields:
            raise ConfigError(
                path, f"must have {{{field}}}, so that pictures differ in name, but is {pattern!r} instead"
            )
    if not pattern.endswith((".png", ".svg", ".pdf")):
        raise ConfigError(path, f"must end in .png, .svg or .pdf, but is {pattern!r} instead")
    return str(pattern)
