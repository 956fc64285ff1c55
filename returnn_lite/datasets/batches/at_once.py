"""The batches of an epoch, all made as soon as the first one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from returnn_lite.datasets.batches.collate import Batch
from returnn_lite.datasets.batches.epoch_batches import epoch_batches
from returnn_lite.datasets.batches.frame_table import FrameTable
from returnn_lite.datasets.batches.loader import Loader

Tables = dict[Any, FrameTable | None]  # by the keys, dtypes and window that were asked for; None: there can be none


class AtOnce:
    """The batches of a loader, as it makes them; when the first is there, its dataset is free for something else.

    `tables`: kept from epoch to epoch of one dataset, whose frames they hold. `change`: what is done to each batch.
    """

    wait_time = 0.0

    def __init__(self, loader: Loader, tables: Tables, change: Callable[[Batch], Batch] = lambda batch: batch) -> None:
        self.loader, self.tables, self.change = loader, tables, change

    def __iter__(self) -> Iterator[Batch]:
        loader, table = self.loader, self._table()
        if table is None:
            batches = list(loader)
        else:
            plans = list(epoch_batches(loader.dataset, loader.options))
            batches = [table.batch(loader.dataset, plan) for plan in plans]
        yield from [self.change(batch) for batch in batches]

    def _table(self) -> FrameTable | None:
        """The table of the dataset, if it can have one; made once."""
        loader, window = self.loader, self.loader.dataset.options.context_window
        collating = loader.collating
        key = (*sorted(collating.dtypes.items()), window)
        if key not in self.tables:
            usable = not collating.static_keys and window is None and loader.transform is None
            self.tables[key] = FrameTable.of(loader.dataset, collating.dtypes, collating.classes) if usable else None
        return self.tables[key]
