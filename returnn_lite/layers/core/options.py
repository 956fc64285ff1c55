"""The options that every layer has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(kw_only=True)
class CommonOptions:
    """Options of every layer class, taken off its dict before the class sees the rest.

    Sources and shape: `from_` (config word `from`), `n_out`, `out_dim`, `in_dim`, `out_type`, `out_shape`, `target`,
    `size_target`. Loss: `loss`, `loss_scale`, `loss_opts`, `loss_only_on_non_search`, `only_on_eval`,
    `only_on_search`, `is_output_layer`. Constraints: `L2`, `darc1`, `spatial_smoothing`. Input noise: `dropout`
    (rate), `dropout_noise_shape`, `dropout_axis`, `dropout_on_forward`. Parameters: `trainable`, `reuse_params`,
    `name_scope`, `param_variational_noise`, `param_dropout`, `param_dropout_min_ndim`, `updater_opts`,
    `custom_param_importer`. Loops: `initial_output`, `need_last`. The others are accepted because configs have them
    and have no effect on the numbers here.
    """

    from_: Any = None
    n_out: int | None = None
    out_dim: Any = None
    in_dim: Any = None
    out_type: Any = None
    out_shape: Any = None
    target: Any = None
    size_target: str | None = None
    loss: Any = None
    loss_scale: float | None = None
    loss_opts: dict[str, Any] | None = None
    loss_only_on_non_search: bool | None = None
    only_on_eval: bool = False
    only_on_search: bool = False
    is_output_layer: bool | None = None
    L2: float | None = None  # noqa: N815 - the config word
    darc1: float | None = None
    spatial_smoothing: float = 0.0
    dropout: Any = 0
    dropout_noise_shape: Any = None
    dropout_axis: Any = None
    dropout_on_forward: bool = False
    mask: str | None = None
    batch_norm: Any = False
    trainable: bool = True
    reuse_params: Any = None
    name_scope: str | None = None
    param_variational_noise: float | None = None
    param_dropout: float | None = None
    param_dropout_min_ndim: int | None = None
    updater_opts: dict[str, Any] | None = None
    custom_param_importer: Any = None
    register_as_extern_data: str | None = None
    initial_output: Any = None
    need_last: bool = False
    copy_output_loss_from_source_idx: int | None = None
    control_dependencies_on_output: Any = None
    debug_print_layer_output: Any = None
    debug_print_layer_output_template: Any = None
    param_device: Any = None
    rec_previous_layer: Any = None
    collocate_with: Any = None
    encapsulate: Any = None
    state: Any = None
