"""`Transcribed`: base of the datasets of recordings with texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from returnn_lite.datasets.base import Dataset
from returnn_lite.vocab import Vocabulary


class Transcribed(Dataset):
    """Recordings with texts: changes of the audio (`rng`) and sampled labels (`targets`) follow the epoch's seed."""

    targets: Vocabulary | None
    rng: np.random.RandomState

    def _new_order(
        self, epoch: int | None, seq_list: Sequence[str] | None, given: Sequence[int] | None
    ) -> np.ndarray | None:
        if epoch is None and seq_list is None and given is None:
            return np.empty(0, np.int64)
        seed = self.order_options.seed(epoch)
        self.rng = np.random.RandomState(seed)
        if self.targets is not None:
            self.targets.set_random_seed(seed)
        return super()._new_order(epoch, seq_list, given)
