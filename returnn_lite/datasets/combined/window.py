"""Neighbouring frames as one."""

from __future__ import annotations

import numpy as np


def stack_window(frames: np.ndarray, window: int) -> np.ndarray:
    """Each frame with its neighbours, oldest first, zeros outside: (T, D) -> (T, D * window), for an odd window."""
    if window == 1:
        return frames
    side = window // 2
    padded = np.pad(frames, ((side, side), (0, 0)))
    return np.concatenate([padded[i : i + len(frames)] for i in range(window)], 1)
