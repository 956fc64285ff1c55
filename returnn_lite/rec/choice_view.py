"""A choice as the function `custom_score_combine` of a config sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from returnn_lite.layers.views.data_view import SourceView
from returnn_lite.layers.views.eval_view import LayerView
from returnn_lite.tensor import Tensor

if TYPE_CHECKING:
    from returnn_lite.rec.choice import Choice


class ChoiceView(LayerView):
    """`name`, `network`, `sources`, `beam_size`, `cheating`, and `explicit_search_sources` (a list, or a dict)."""

    def __init__(
        self, layer: Choice, sources: list[Tensor], explicit: Mapping[str, Tensor], wrap: Callable[..., Any]
    ) -> None:
        super().__init__(layer, tuple(sources))
        self.search_scores_in: Any = None  # set when a step's candidates are scored, as the function gets them
        self.search_scores_base: Any = None
        self.search_scores_combined: Any = None
        self.beam_size = layer.beam_size
        self.cheating = layer.cheating
        views = {k: SourceView(x, layer.explicit[k], wrap) for k, x in explicit.items()}
        self.explicit_search_sources: Any = list(views.values()) if all(k.isdigit() for k in views) else views


def combined_by_function(
    layer: Choice, view: ChoiceView, log_probs: torch.Tensor, base: torch.Tensor, ended: torch.Tensor | None, tick: int
) -> torch.Tensor:
    """The scores of all continuations by the layer's function.

    Shape: (B, K, V), base (B, K), ended bool (B, K) -> (B, K, V)
    """
    names = layer.context.eval_names
    wrap: Callable[[torch.Tensor], Any] = names.get("as_tf_tensor", _unchanged)
    unwrap: Callable[[Any], torch.Tensor] = names.get("as_plain_tensor", _unchanged)
    flags = torch.zeros_like(base, dtype=torch.bool) if ended is None else ended
    function: Any = layer.combine
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


def _unchanged(x: Any, dtype: str | None = None) -> Any:  # noqa: ARG001 - as the wrapper is called
    return x
