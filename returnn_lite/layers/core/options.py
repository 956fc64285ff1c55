"""The options that every layer has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from returnn_lite.config.option_types import NaturalFloat, NaturalInt, PositiveInt, Rate
from returnn_lite.tensor import Dim
from returnn_lite.tensor.axes import AxisText

Off = Literal[False]
Importer = Literal["reset", "ifpossible", "subset"]


@dataclass(kw_only=True)
class CommonOptions:
    """Options of every layer class, taken off its dict before the class sees the rest.

    Sources and shape: `from_` (config word `from`), `n_out`, `out_dim`, `in_dim`, `out_type`, `out_shape`, `target`,
    `size_target`. Loss: `loss`, `loss_scale`, `loss_opts`, `loss_only_on_non_search`, `only_on_eval`,
    `only_on_search`, `is_output_layer`. Constraints: `L2`, `darc1`, `spatial_smoothing`. Input noise: `dropout`
    (rate), `dropout_noise_shape`, `dropout_axis`, `dropout_on_forward`. Parameters: `trainable`, `reuse_params`,
    `name_scope`, `param_variational_noise`, `param_dropout`, `param_dropout_min_ndim`, `updater_opts`,
    `custom_param_importer`. Loops: `initial_output`, `need_last`, `collocate_with`. The others are accepted because
    configs have them and have no effect on the numbers here.
    """

    from_: Any = None
    n_out: PositiveInt | None = None
    out_dim: Dim | None = None
    in_dim: Dim | None = None
    out_type: Mapping[str, Any] | Callable[..., Any] | None = None
    out_shape: Sequence[Any] | Mapping[Any, Any] | None = None
    target: str | Sequence[str] | None = None
    size_target: str | None = None
    loss: Any = None
    loss_scale: float | None = None
    loss_opts: Mapping[str, Any] | None = None
    loss_only_on_non_search: bool | None = None
    only_on_eval: bool = False
    only_on_search: bool = False
    is_output_layer: bool | None = None
    L2: NaturalFloat | None = None  # noqa: N815 - the config word
    darc1: NaturalFloat | None = None
    spatial_smoothing: NaturalFloat | None = 0.0
    dropout: Rate | Off | None = 0
    dropout_noise_shape: Mapping[Any, Any] | Sequence[Any] | None = None
    dropout_axis: AxisText = None
    dropout_on_forward: bool = False
    mask: Literal["dropout", "unity"] | None = None
    batch_norm: bool | Mapping[str, Any] | None = False
    trainable: bool = True
    reuse_params: str | Mapping[str, Any] | None = None
    name_scope: str | None = None
    param_variational_noise: NaturalFloat | None = None
    param_dropout: Rate | None = None
    param_dropout_min_ndim: NaturalInt | None = None
    updater_opts: Mapping[str, Any] | None = None
    custom_param_importer: Importer | Callable[..., Any] | None = None
    register_as_extern_data: str | None = None
    initial_output: Any = None
    need_last: bool = False
    copy_output_loss_from_source_idx: NaturalInt | None = None
    control_dependencies_on_output: Callable[..., Any] | None = None
    debug_print_layer_output: Any = None
    debug_print_layer_output_template: Any = None
    param_device: Any = None
    rec_previous_layer: Any = None
    collocate_with: str | Sequence[str] | None = None
    encapsulate: Any = None
    state: Any = None
