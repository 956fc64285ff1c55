"""Mixed precision by the options `torch_amp` and `grad_scaler`; the type of parameters, `default_float_dtype`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from returnn_lite.config import Config
from returnn_lite.config_value import ConfigOptions, ConfigValue
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.frontend.dtypes import set_default_float_dtype_ctx
from returnn_lite.optim.loss_scale import OPTION as SCALER
from returnn_lite.optim.loss_scale import scaler_options

OPTION, FLOATS = "torch_amp", "default_float_dtype"
KEYS = ("dtype", SCALER)
TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
NAMES = {value: key for key, value in TYPES.items()}
FLOAT_TYPES = {**TYPES, "float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Precision:
    """dtype: in which products of matrices compute, None: float32; scaler: options of GradScaler, None: not used."""

    dtype: torch.dtype | None = None
    scaler: ConfigOptions | None = None

    @classmethod
    def from_config(cls, config: Config) -> Precision:
        """`torch_amp` is a type's name, or a dict with "dtype" and "grad_scaler"; the latter wins over the option of
        this name. Without either, gradients are scaled in float16: bfloat16 has the range of float32. ConfigError for
        what is none of these."""
        value = config.literal(OPTION, None)
        if value is None or value == "":
            return cls(None, scaler_options(config.typed_value(SCALER, None)))
        options = value if isinstance(value, Mapping) else {"dtype": value}
        for key in options:
            if key not in KEYS:
                hint = did_you_mean(str(key), KEYS)
                raise ConfigError(f'{OPTION}["{key}"]', f'unknown option{hint} (options: "dtype", "grad_scaler")')
        dtype = _dtype(options.get("dtype", None))
        default: ConfigOptions | None = {} if dtype is torch.float16 else None
        given = options.get(SCALER, config.typed_value(SCALER, default))
        return cls(dtype, scaler_options(given))


def _dtype(value: ConfigValue) -> torch.dtype:
    """The type of a name or as it is; None is what torch would take, bfloat16."""
    if value is None:
        return torch.bfloat16
    found = value if isinstance(value, torch.dtype) else TYPES.get(str(value).removeprefix("torch."))
    if found not in NAMES:
        hint = did_you_mean(str(value), TYPES)
        text = f'`{OPTION}` must be "bfloat16", "float16" or a dict with "dtype", but is {value!r} instead{hint}'
        raise ConfigError(OPTION, text)
    return found


def float_dtype(config: Config) -> torch.dtype | None:
    """`default_float_dtype`: the type of parameters and data of models written in torch or `returnn.frontend`, by its
    name; None if it is not set. ConfigError for other values."""
    value = config.typed_value(FLOATS, None)
    if value is None or value == "":
        return None
    found = FLOAT_TYPES.get(str(value).removeprefix("torch."))
    if found is None:
        hint = did_you_mean(str(value), FLOAT_TYPES)
        raise ConfigError(FLOATS, f"must be one of {', '.join(sorted(FLOAT_TYPES))}, but is {value!r} instead{hint}")
    return found


def refuse_other_floats(config: Config) -> None:
    """ConfigError for another `default_float_dtype` than the one of nets of layers, float32."""
    if float_dtype(config) not in (None, torch.float32):
        found = config.typed_value(FLOATS)
        text = f"must be float32 for nets of layers, but is {found!r} instead; `torch_amp` computes in half precision"
        raise ConfigError(FLOATS, text)


@contextmanager
def floats_by_default(dtype: torch.dtype | None) -> Iterator[None]:
    """While open, torch and `returnn.frontend` make floats of this type where none is given; None changes nothing."""
    before = torch.get_default_dtype()
    if dtype is not None:
        torch.set_default_dtype(dtype)
    try:
        with set_default_float_dtype_ctx(None if dtype is None else str(dtype).removeprefix("torch.")):
            yield
    finally:
        torch.set_default_dtype(before)
