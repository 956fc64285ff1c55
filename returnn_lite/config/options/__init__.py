"""The table of all global options: what checks them, and what the reference is written from."""

from returnn_lite.config.options.files import FILES
from returnn_lite.config.options.model import FRONTEND, MODEL
from returnn_lite.config.options.optimizer import LEARNING_RATE, OPTIMIZER
from returnn_lite.config.options.option import GlobalOption, Group
from returnn_lite.config.options.run import RUN
from returnn_lite.config.options.tasks import TASKS
from returnn_lite.config.options.training import DATA, TRAINING
from returnn_lite.config.options.without_effect import IGNORED_KEYS, REFUSED_KEYS

GROUPS = (RUN, DATA, MODEL, TRAINING, OPTIMIZER, LEARNING_RATE, FILES, TASKS, FRONTEND)
OPTIONS: dict[str, GlobalOption] = {option.name: option for group in GROUPS for option in group.options}
KNOWN_KEYS = frozenset(OPTIONS).union(IGNORED_KEYS, REFUSED_KEYS)

__all__ = ["GROUPS", "IGNORED_KEYS", "KNOWN_KEYS", "OPTIONS", "REFUSED_KEYS", "GlobalOption", "Group"]
