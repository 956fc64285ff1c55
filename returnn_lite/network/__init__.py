"""From a dict of layers to a network that runs: construction on demand, parameter names, sub-networks, losses."""

from returnn_lite.network.network import Network, NetworkOutput
from returnn_lite.network.objective import LossValue

__all__ = ["LossValue", "Network", "NetworkOutput"]
