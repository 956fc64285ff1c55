"""What `dump-dataset.py` does with each sequence, by `--type`."""

from __future__ import annotations

import code
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import TextIO

import numpy as np

from returnn_lite.datasets.base import Dataset
from returnn_lite.datasets.batches.collate import text
from returnn_lite.errors import ConfigError
from returnn_lite.tools.common import output_file


class Output:
    """Does nothing (`--type null`). `key`: the data that are shown; files are `prefix`…`postfix`."""

    def __init__(self, dataset: Dataset, key: str, prefix: str, postfix: str, *, limit: int, as_bytes: bool):
        self.dataset, self.key, self.prefix, self.postfix = dataset, key, prefix, postfix
        self.limit, self.as_bytes = limit, as_bytes

    def seq(self, i: int) -> None:
        """Shows sequence `i` of the epoch, which is loaded."""

    def begin(self, files: ExitStack) -> None:
        """Opens what stays open until the end."""

    def keys(self) -> list[str]:
        """The key, then the targets."""
        return list(dict.fromkeys([self.key, *self.dataset.get_target_list()]))


class Stdout(Output):
    """Tag and arrays, arrays of labels with their labels."""

    def seq(self, i: int) -> None:
        print(f"seq {i} tag: {self.dataset.get_tag(i)}")
        for key in self.keys():
            print(f"seq {i} {key!r}: {self._shown(key, self.dataset.get_data(i, key))}")

    def _shown(self, key: str, array: np.ndarray) -> str:
        if self.as_bytes and array.dtype.kind in "iu" or array.dtype.kind in "SUO":
            return repr(text(array))
        shown = np.array2string(array, threshold=self.limit)
        labels = self.dataset.labels.get(key) if array.ndim <= 1 and array.dtype.kind in "iu" else None
        if labels and array.size and 0 <= array.min() <= array.max() < len(labels):
            some = [labels[k] for k in array.ravel()[: self.limit]]
            shown += f" {' '.join(some)}{' …' * (len(some) < array.size)}"
        return shown


class NumpyText(Output):
    """Files `prefix`<i>.data`postfix` and `prefix`<i>.targets`postfix` (of the key "classes"), for NumpyDumpDataset."""

    def seq(self, i: int) -> None:
        for name, key in (("data", self.key), ("targets", "classes")):
            if key in self.dataset.get_data_keys():
                with output_file(f"{self.prefix}{i}.{name}{self.postfix}") as file:
                    np.savetxt(file, np.atleast_1d(self.dataset.get_data(i, key)))


class PrintTag(Output):
    """Tags, one a line."""

    def seq(self, i: int) -> None:
        print(self.dataset.get_tag(i))


class DumpTag(Output):
    """A file `prefix`seq-tags`postfix` of tags, one a line: a sequence list."""

    file: TextIO

    def begin(self, files: ExitStack) -> None:
        self.file = files.enter_context(output_file(f"{self.prefix}seq-tags{self.postfix}"))

    def seq(self, i: int) -> None:
        self.file.write(f"{self.dataset.get_tag(i)}\n")


class DumpSeqLen(Output):
    """A file `prefix`seq-lens`postfix` with a Python dict {tag: length of the key}, for seq_order_seq_lens_file."""

    file: TextIO

    def begin(self, files: ExitStack) -> None:
        self.file = files.enter_context(output_file(f"{self.prefix}seq-lens{self.postfix}"))
        self.file.write("{\n")
        files.callback(self.file.write, "}\n")

    def seq(self, i: int) -> None:
        self.file.write(f"{self.dataset.get_tag(i)!r}: {self.dataset.get_seq_length(i)[self.key]},\n")


class PrintShape(Output):
    """Tag and shapes."""

    def seq(self, i: int) -> None:
        shapes = ", ".join(f"{key} {self.dataset.get_data(i, key).shape}" for key in self.keys())
        print(f"{self.dataset.get_tag(i)}: {shapes}")


class Plot(Output):
    """Pictures `prefix`<i>.png of the key's frames."""

    def begin(self, files: ExitStack) -> None:
        try:
            import matplotlib.pyplot as pyplot
        except ImportError:
            raise ConfigError("--type", 'plot needs matplotlib: pip install "returnn-lite[plot]"') from None
        pyplot.switch_backend("agg")
        self.pyplot = pyplot

    def seq(self, i: int) -> None:
        array = self.dataset.get_data(i, self.key)
        figure, axes = self.pyplot.subplots(figsize=(10, 4))
        if array.ndim == 2 and array.shape[1] > 1:
            axes.imshow(array.T, aspect="auto", origin="lower", interpolation="nearest")
        else:
            axes.plot(array)
        axes.set(title=self.dataset.get_tag(i), xlabel="frame", ylabel=self.key)
        figure.savefig(f"{self.prefix}{i}.png")
        self.pyplot.close(figure)


class Interactive(Output):
    """A Python prompt at each sequence, with its index `i`, the `dataset`, and its `data` by key."""

    def seq(self, i: int) -> None:
        data = {key: self.dataset.get_data(i, key) for key in self.dataset.get_data_keys()}
        names = {"i": i, "dataset": self.dataset, "data": data, "np": np}
        banner = f"seq {i} {self.dataset.get_tag(i)!r}; names: {', '.join(names)}; Ctrl-D goes on, exit() ends"
        code.interact(banner, local=names, exitmsg="")


OUTPUTS: dict[str, Callable[..., Output]] = {
    "stdout": Stdout,
    "numpy": NumpyText,
    "null": Output,
    "print_tag": PrintTag,
    "dump_tag": DumpTag,
    "dump_seq_len": DumpSeqLen,
    "print_shape": PrintShape,
    "plot": Plot,
    "interactive": Interactive,
}
NO_LIMIT = sys.maxsize
