"""Datasets on their way to processes that stay from epoch to epoch: what never changes is sent once."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from returnn_lite.datasets.base import Dataset


@dataclass(frozen=True)
class Sent:
    """A dataset as bytes, but for its constant parts; these as bytes, too, where they are not there yet."""

    name: str
    content: bytes
    parts: bytes | None


class Sender:
    """Packs datasets for those who got all that it has packed before."""

    def __init__(self) -> None:
        self.parts: dict[str, list[object]] = {}

    def pack(self, dataset: Dataset) -> Sent:
        """The dataset as it is now. Raises what pickle does for one that cannot be sent."""
        parts = list(constant_parts(dataset))
        before = self.parts.get(dataset.name)
        same = before is not None and list(map(id, before)) == list(map(id, parts))
        content, known = io.BytesIO(), None if same else pickle.dumps(parts, pickle.HIGHEST_PROTOCOL)
        _Pickler(content, parts).dump(dataset)
        self.parts[dataset.name] = parts
        return Sent(dataset.name, content.getvalue(), known)


class Receiver:
    """Unpacks them. Of each name, the parts of the last dataset are kept."""

    def __init__(self) -> None:
        self.parts: dict[str, list[object]] = {}

    def unpack(self, sent: Sent) -> Dataset:
        """The dataset."""
        if sent.parts is not None:
            self.parts.pop(sent.name, None)
            self.parts[sent.name] = pickle.loads(sent.parts)
        found: Dataset = _Unpickler(io.BytesIO(sent.content), self.parts[sent.name]).load()
        return found


class _Pickler(pickle.Pickler):
    """Writes the number of each of these parts in place of the part."""

    def __init__(self, file: io.BytesIO, parts: list[object]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.numbers = {id(part): number for number, part in enumerate(parts)}

    def persistent_id(self, obj: object) -> int | None:
        return self.numbers.get(id(obj))


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, parts: list[object]) -> None:
        super().__init__(file)
        self.parts = parts

    def persistent_load(self, number: Any) -> object:
        return self.parts[number]


def each_dataset(dataset: Dataset) -> Iterator[Dataset]:
    """A dataset and all inside it."""
    found, waiting = set[int](), [dataset]
    while waiting:
        one = waiting.pop()
        if id(one) in found:
            continue
        found.add(id(one))
        yield one
        for name, value in vars(one).items():
            if name in one.constant_parts:
                continue
            parts = value.values() if isinstance(value, dict) else value
            inside = list(parts) if isinstance(value, dict | list | tuple) else [value]
            waiting += [part for part in inside if isinstance(part, Dataset)]


def constant_parts(dataset: Dataset) -> Iterator[object]:
    """What no epoch changes of a dataset, and of those inside it."""
    for each in each_dataset(dataset):
        for name in each.constant_parts:
            if name in vars(each):
                yield vars(each)[name]
