"""A choice as the function `custom_score_combine` of a config sees it, and the scores that this function gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from returnn_lite.config_value import ConfigFunction
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.views.data_view import SourceView
from returnn_lite.layers.views.eval_view import LayerView
from returnn_lite.layers.views.network_view import wrapper
from returnn_lite.tensor import Tensor


class ChoiceView(LayerView):
    """`name`, `network`, `sources`, `beam_size`, `cheating`, and `explicit_search_sources` (a list, or a dict).

    `explicit`: names and values of these layers by key.
    """

    def __init__(
        self,
        layer: Layer,
        sources: list[Tensor],
        explicit: Mapping[str, tuple[str, Tensor]],
        *,
        beam_size: int,
        cheating: Any,
    ) -> None:
        super().__init__(layer, tuple(sources))
        self.search_scores_in: Any = None  # set when a step's candidates are scored, as the function gets them
        self.search_scores_base: Any = None
        self.search_scores_combined: Any = None
        self.beam_size = beam_size
        self.cheating = cheating
        wrap = wrapper(layer)
        views = {k: SourceView(x, name, wrap) for k, (name, x) in explicit.items()}
        self.explicit_search_sources: Any = list(views.values()) if all(k.isdigit() for k in views) else views


def custom_scores(
    function: ConfigFunction,
    view: ChoiceView,
    log_probs: torch.Tensor,
    base: torch.Tensor,
    ended: torch.Tensor | None,
    tick: int,
) -> torch.Tensor:
    """The scores of all continuations by a function of the config.

    Shape: (B, K, V), base (B, K), ended bool (B, K) -> (B, K, V)
    """
    layer = view._layer
    wrap = wrapper(layer)
    unwrap: Callable[[Any], torch.Tensor] = layer.context.eval_names.get("as_plain_tensor", _unchanged)
    flags = torch.zeros_like(base, dtype=torch.bool) if ended is None else ended
    view.search_scores_in, view.search_scores_base = wrap(log_probs), wrap(base.unsqueeze(-1))
    found = unwrap(
        function(
            layer=view, scores_in=view.search_scores_in, scores_base=view.search_scores_base, t=tick,
            end_flags=wrap(flags), batch_dim=base.shape[0], scores_beam_in=log_probs.shape[1],
            base_beam_in=base.shape[1],
        )
    )  # fmt: skip
    if found.shape != log_probs.shape:
        want, got = tuple(log_probs.shape), tuple(found.shape)
        raise layer.error(f"`custom_score_combine` must return scores {want}, but returned {got} instead")
    return found


def _unchanged(x: Any) -> Any:
    return x
