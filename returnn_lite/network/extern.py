"""The data keys of a network: their Specs, and the tensors of one batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from returnn_lite.config import Config
from returnn_lite.config_value import ConfigOptions, ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.tensor import Dim, Lengths, Spec, Tensor, batch_dim
from returnn_lite.tensor.build import data_spec

ALWAYS = {"seq_tag": "string", "seq_idx": "int32"}


class ExternData:
    """Specs of all data keys, by `extern_data` or the legacy `num_inputs` / `num_outputs`."""

    def __init__(self, config: Config) -> None:
        self.options = extern_options(config)
        self.specs: dict[str, Spec] = {k: _spec(k, v) for k, v in self.options.items()}
        self.default_input = str(config.value("default_input", "data"))
        self.default_target = str(config.value("target", "classes"))

    def spec(self, key: str, path: str = "extern_data") -> Spec:
        """The Spec of a key. Raises ConfigError with the path of who asks, listing the known keys."""
        if key in ALWAYS:
            return Spec((batch_dim,), ALWAYS[key], time=None, feature=None)
        if key not in self.specs:
            known = ", ".join(repr(k) for k in self.specs) or "none"
            raise ConfigError(path, f"unknown data key {key!r}{did_you_mean(key, list(self.specs))}; keys: {known}")
        return self.specs[key]

    def is_available(self, key: str) -> bool:
        """Whether there are such data without references, as `available_for_inference` says; the default input is.

        If it is False for all, all but the default target are.
        """
        if key in ALWAYS or key not in self.options:
            return True
        given = {k: options.get("available_for_inference") for k, options in self.options.items()}
        if all(value is False for value in given.values()):
            return key != self.default_target
        return bool(key == self.default_input if given[key] is None else given[key])

    def register(self, key: str, spec: Spec) -> None:
        """A layer's output as a further key."""
        self.specs[key] = spec

    def feed(
        self, key: str, values: object, lengths: Mapping[str, torch.Tensor], *, lengths_on: torch.device | None = None
    ) -> Tensor:
        """The Tensor of one key from a batch-first array (B, T, …), and int lengths [B] of its time axis.

        lengths_on: the device for lengths, that of the data by default. Raises ConfigError when number of axes or sizes
        differ from extern_data.
        """
        spec = self.spec(key)
        if not isinstance(values, torch.Tensor):
            raise ConfigError(f"extern_data[{key!r}]", f"data must be a tensor, but is {type(values).__name__} instead")
        self._check(key, spec, values)
        if spec.batch not in (0, None):
            order = list(range(1, spec.rank))
            order.insert(spec.batch or 0, 0)
            values = values.permute(order)
        return Tensor(values, spec, self._lengths(key, spec, values, lengths, lengths_on or values.device))

    def _check(self, key: str, spec: Spec, values: torch.Tensor) -> None:
        dims = [d for d in spec.dims if not d.is_batch]
        shape = tuple(values.shape[1:] if spec.batch is not None else values.shape)
        fits = len(shape) == len(dims) and all(d.size in (None, n) for d, n in zip(dims, shape, strict=True))
        if not fits:
            want = tuple(d.size for d in dims)
            raise ConfigError(
                f"extern_data[{key!r}]", f"`shape` must be that of the data, {shape}, but is {want} instead"
            )

    def _lengths(
        self, key: str, spec: Spec, values: torch.Tensor, given: Mapping[str, torch.Tensor], device: torch.device
    ) -> dict[Dim, Lengths]:
        found: dict[Dim, Lengths] = {}
        for i, dim in enumerate(spec.dims):
            if not dim.dynamic:
                continue
            name = key if i == spec.time else f"{key}:{i}"
            size = values.shape[i]
            if name in given:
                found[dim] = Lengths(given[name].to(device), size)
            else:
                batch = values.shape[spec.batch or 0]
                found[dim] = Lengths(torch.full((batch,), size, dtype=torch.int32, device=device), size)
        return found


def _spec(key: str, options: Mapping[str, Any]) -> Spec:
    """The Spec that the options of a key mean. ConfigError for values that are none."""
    try:
        return data_spec(key, options)
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as exc:
        raise ConfigError(f'extern_data["{key}"]', f"wrong option value: {type(exc).__name__}: {exc}") from exc


def extern_options(config: Config) -> dict[str, ConfigOptions]:
    """The option dicts of all keys."""
    extern = config.typed_value("extern_data")
    if extern is not None:
        if not isinstance(extern, dict):
            raise ConfigError("extern_data", f"must be a dict {{key: options}}, but is {type(extern).__name__} instead")
        return {key: _entry(key, entry) for key, entry in extern.items()}
    options: dict[str, dict[str, Any]] = {}
    inputs = config.int("num_inputs", 0)
    if inputs:
        options["data"] = _legacy((inputs, 1 if config.bool("sparse_input", False) else 2), "num_inputs")
    outputs = config.typed_value("num_outputs")
    if outputs is None and config.has("num_outputs"):
        outputs = config.int("num_outputs", 0)
    if isinstance(outputs, int):
        outputs = {str(config.value("target", "classes")): [outputs, 1]}
    for key, value in (outputs or {}).items():
        options[key] = dict(value) if isinstance(value, dict) else _legacy(value, f"num_outputs[{key!r}]")
    return options


def _entry(key: ConfigValue, entry: ConfigValue) -> ConfigOptions:
    """The options of a key: a dict, or (dim, ndim) as in `num_outputs`."""
    if isinstance(key, str) and isinstance(entry, Mapping):
        return dict(entry)
    if isinstance(key, str) and isinstance(entry, (tuple, list)):
        return _legacy(entry, f'extern_data["{key}"]')
    text = f"must be a dict of options (or `(dim, ndim)`) by the name of the data, but is {entry!r} for {key!r}"
    raise ConfigError("extern_data", text)


def _legacy(value: Any, path: str) -> dict[str, Any]:
    """(dim, ndim): ndim counts the time axis; 1 = sparse."""
    if isinstance(value, int):
        value = (value, 1)
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ConfigError(path, f"must be (dim, ndim), but is {value!r} instead")
    dim, ndim = value
    if ndim == 0:
        return {"dim": dim, "shape": (), "sparse": True}
    if ndim == 1:
        return {"dim": dim, "shape": (None,), "sparse": True}
    return {"dim": dim, "shape": (*(None,) * (ndim - 1), dim)}
