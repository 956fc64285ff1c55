"""Learning rates over the epochs, and the file that records them."""

from .control import LearningRateControl
from .last_best import LastBest
from .lr_file import Record
from .options import Options

__all__ = ["LastBest", "LearningRateControl", "Options", "Record"]
