"""What common options do to the output of a layer, whatever its class.

`batch_norm`, `copy_output_loss_from_source_idx`; and what options forbid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from returnn_lite.errors import ConfigError
from returnn_lite.layers.batch_statistics import from_option
from returnn_lite.layers.core.base import Layer
from returnn_lite.layers.core.registry import own_options
from returnn_lite.tensor import Dim, Spec, Tensor
from returnn_lite.tensor.axes import describe

Step = Callable[[Tensor, list[Tensor]], Tensor]  # output and sources of a layer -> its changed output

FIXED_TYPE = ("conv", "pool", "stft")
MASKS = (None, "dropout", "unity")


def steps_after(layer: Layer, spec: Spec) -> list[Step]:
    """The changes to the output that the options of a built layer ask for; makes their parameters."""
    steps: list[Step] = []
    statistics = from_option(layer.options.batch_norm, layer.behavior, layer.path)
    if statistics is not None:
        statistics.build(layer, spec)
        layer.output_statistics = statistics  # where others look for what is inside
        steps.append(
            lambda x, _: x.with_data(statistics.normalised(x, layer.training), pre=x.pre, parts=x.parts, state=x.state)
        )
    index = layer.options.copy_output_loss_from_source_idx
    if index is not None:
        steps.append(lambda x, sources: _with_loss_of(layer, index, x, sources))
    return steps


def _with_loss_of(layer: Layer, index: int, x: Tensor, sources: list[Tensor]) -> Tensor:
    """`x` with the loss per sequence of the source number `index`."""
    if not 0 <= index < len(sources):
        text = f"`copy_output_loss_from_source_idx` must be below {len(sources)}, the number of sources, but is {index}"
        raise ConfigError(layer.path, text)
    x = x.copy()
    x.sequence_loss = sources[index].sequence_loss
    return x


# --- axes -------------------------------------------------------------------------------------------------------------


def check_output(layer: Layer, spec: Spec) -> None:
    """Raises ConfigError for options that contradict the output, or one another."""
    options = layer.options
    if not options.loss and (options.loss_scale is not None or options.loss_opts is not None):
        raise ConfigError(layer.path, "`loss_scale` and `loss_opts` need the option `loss`, but it is missing")
    if options.out_type is not None and layer.class_name in FIXED_TYPE:
        text = f"`out_type` is not allowed for layer class {layer.class_name!r}, whose output is {spec}"
        raise ConfigError(layer.path, text)
    if options.mask not in MASKS and "mask" not in own_options(type(layer)):
        raise ConfigError(layer.path, f"`mask` must be one of {MASKS} and has no effect, but is {options.mask!r}")
    if options.out_shape is not None:
        _check_shape(layer, spec, options.out_shape)


def _check_shape(layer: Layer, spec: Spec, wanted: Any) -> None:
    """`out_shape`: a set of Dims; those wrapped as optional or implicit may be missing."""
    known = [_bare(d, layer.path) for d in wanted]
    missing = [d for d, given in zip(known, wanted, strict=True) if isinstance(given, Dim) and not _has(spec, d)]
    extra = [
        d
        for d in spec.dims
        if d not in spec.loop and d not in known and not (d.is_batch and any(k.is_batch for k in known))
    ]
    if missing or extra:
        difference = f"it has also {missing}" if missing else f"it lacks {extra}"
        raise ConfigError(layer.path, f"`out_shape` must be the axes of the output {describe(spec)}, but {difference}")


def _bare(dim: Any, path: str) -> Dim:
    """The Dim in a wrapper that marks it as optional or implicit."""
    inner = dim if isinstance(dim, Dim) else getattr(dim, "tag", getattr(dim, "dim", None))
    if not isinstance(inner, Dim):
        raise ConfigError(path, f"`out_shape` must be a set of Dims, but holds {dim!r}")
    return inner


def _has(spec: Spec, dim: Dim) -> bool:
    return dim in spec.dims or dim == spec.sparse_dim or (dim.is_batch and spec.batch is not None)
