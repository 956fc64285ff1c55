"""Modules about tensors: `tensorflow`, `TFUtil` = `returnn.tf.util.basic`, `returnn.tf.util.data`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from returnn_lite.compat import config_dims
from returnn_lite.compat.config_data import Data
from returnn_lite.compat.refusals import Refusal, refused
from returnn_lite.compat.running import RUNNING
from returnn_lite.compat.tf import eval_names
from returnn_lite.compat.tf.namespace import Namespace
from returnn_lite.compat.tf.values import as_tensor
from returnn_lite.errors import user_line
from returnn_lite.ops.transducer import transducer_loss

_WARP = "image warping needs a torch module of your own"


def helpers() -> dict[str, Any]:
    """`TFUtil`."""
    refusals = {name: refused(name, _WARP) for name in ("create_random_warp_flow_2d", "dense_image_warp")}
    return {
        **eval_names(RUNNING),  # type: ignore[arg-type]
        **data_names(),
        **refusals,
        "OpCodeCompiler": OpCodeCompiler,
        "tf_version_tuple": tf_version_tuple,
        "is_gpu_available": torch.cuda.is_available,
        "get_shared_vocab": as_tensor,
    }


def tf_version_tuple() -> tuple[int, ...]:
    """The version of TensorFlow that `tensorflow.__version__` names."""
    return tuple(int(part) for part in tf().__version__.split("."))


def data_names() -> dict[str, Any]:
    """`returnn.tf.util.data`."""
    return {**config_dims.NAMES, "Data": Data}


def tf() -> Namespace:
    """`tensorflow`."""
    found: Namespace = eval_names(RUNNING)["tf"]  # type: ignore[arg-type]
    return found


def tf_compat() -> dict[str, Any]:
    """`returnn.tf.compat`: v1 and v2."""
    both = tf()
    return {"v1": both, "v2": both}


def get_filtered_score(prev_str: Any, scores: torch.Tensor, labels: Any) -> torch.Tensor:
    """Of hypotheses with equal strings the best gets the logsumexp of all their scores, the others -inf.

    Shape: prev_str (B, K) of strings, scores (B, K) -> (B, K)
    """
    numbers = as_tensor(prev_str).to(scores.device)
    same = numbers.unsqueeze(2) == numbers.unsqueeze(1)
    grouped = scores.unsqueeze(1).expand(same.size()).masked_fill(~same, -torch.inf)
    best = grouped.argmax(dim=2) == torch.arange(scores.size(1), device=scores.device)
    return torch.where(best, grouped.logsumexp(dim=2), -torch.inf)


class OpCodeCompiler:
    """Compiles C++ in the original; here the one operation that published configs search with is known."""

    known: dict[str, tuple[str, Callable[..., Any]]] = {
        "GetFilteredScore": ("get_filtered_score", get_filtered_score),
    }

    def __init__(self, base_name: str = "", code_version: Any = None, code: str = "", **options: Any) -> None:
        self.base_name = base_name

    def load_tf_module(self) -> Namespace:
        """The module with the operation as function. Refusal for any other than the known one."""
        if self.base_name not in self.known:
            raise Refusal(user_line(), f"OpCodeCompiler: C++ code ({self.base_name!r}) is not compiled")
        name, function = self.known[self.base_name]
        return Namespace(self.base_name, {name: function})


def rnnt_loss(
    acts: torch.Tensor,
    labels: torch.Tensor,
    input_lengths: torch.Tensor,
    label_lengths: torch.Tensor,
    blank_label: int = 0,
) -> torch.Tensor:
    """-log of the sum over all paths of blanks (to the next frame) and labels (within the frame).

    Shape: acts (B, T, U+1, V), labels (B, U), lengths (B,) -> (B,)
    """
    scores = acts.log_softmax(-1)
    return transducer_loss(scores, labels, input_lengths, label_lengths, blank=blank_label)


def transducer_names() -> dict[str, Any]:
    """`returnn.extern.HawkAaronWarpTransducer`."""
    return {"rnnt_loss": rnnt_loss}
