"""`rf.audio`: features of sounds, and masks for training on them."""

from __future__ import annotations

from returnn_lite.frontend.audio.mel import log_mel_filterbank_from_raw, mel_filterbank
from returnn_lite.frontend.audio.specaugment import mask, random_mask, specaugment
from returnn_lite.frontend.errors import missing_name

__all__ = ["log_mel_filterbank_from_raw", "mask", "mel_filterbank", "random_mask", "specaugment"]

__getattr__ = missing_name("rf.audio", globals())
