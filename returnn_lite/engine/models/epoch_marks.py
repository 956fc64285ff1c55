"""What the description of an epoch's network says beside the layers, and whether there is something to train by."""

from dataclasses import dataclass

from returnn_lite.config_value import NetDict
from returnn_lite.engine.models.model import Model
from returnn_lite.errors import ConfigError

MARKS = ("#trainable", "#finish_all_data")  # entries that are about the epoch, not about the network


@dataclass(frozen=True)
class EpochMarks:
    """What the description of an epoch's network says beside the layers.

    trains: without, the epoch goes through the training data as in evaluation. finish_all_data: of several processes
    each goes on to the end of its own data (where nothing is trained).
    """

    trains: bool = True
    finish_all_data: bool = False

    @classmethod
    def split(cls, description: NetDict, *, per_epoch: bool) -> tuple["EpochMarks", NetDict]:
        """(the marks, the network). ConfigError if no epoch at all would train."""
        trains = description.get("#trainable", True) is not False
        if not trains and not per_epoch:
            text = "must not be False in a `network` for all epochs: nothing would be trained"
            raise ConfigError('network["#trainable"]', f"{text} (get_network(epoch=…) gives each epoch its own)")
        made = cls(trains, bool(description.get("#finish_all_data", False)))
        return made, {key: value for key, value in description.items() if key not in MARKS}


def require_loss(net: Model) -> None:
    """ConfigError for a net of layers without any loss (models written in torch are asked in each step)."""
    if not getattr(net, "loss_nodes", True):
        example = '{"class": "softmax", "loss": "ce", "target": …}'
        raise ConfigError("network", f'must have a layer with a "loss" to train by, such as {example}, but has none')
