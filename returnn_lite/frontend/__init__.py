"""What a model written in torch talks to: data by key, the run context that takes losses and outputs, callbacks."""

from returnn_lite.frontend.callback import ForwardCallback
from returnn_lite.frontend.context import RunContext, get_run_ctx
from returnn_lite.frontend.values import Dim, Tensor, TensorDict
from returnn_lite.tensor import batch_dim

__all__ = ["Dim", "ForwardCallback", "RunContext", "Tensor", "TensorDict", "batch_dim", "get_run_ctx"]
