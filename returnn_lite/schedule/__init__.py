"""Learning rates over the epochs, and the file that records them."""

from returnn_lite.schedule.control import LearningRateControl
from returnn_lite.schedule.last_best import LastBest
from returnn_lite.schedule.lr_file import Record
from returnn_lite.schedule.options import Options

__all__ = ["LastBest", "Learned", "LearningRateControl", "Options", "Record"]
