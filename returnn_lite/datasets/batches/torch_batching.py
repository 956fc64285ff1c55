"""The option `torch_batching`: how batches are made, by the name of a class."""

from __future__ import annotations

import math

from returnn_lite.config_value import ConfigValue
from returnn_lite.datasets.batches.buckets import Buckets, check_options
from returnn_lite.errors import ConfigError, did_you_mean

OPTION = "torch_batching"
BUCKETS, PLAIN = "BucketOrderingIterDataPipe", "BatchingIterDataPipe"


def limits_by_class(value: ConfigValue) -> dict[str, ConfigValue]:
    """The limits of batches (fields of `BatchingOptions`) that a dict with "class" stands for, or a function that makes
    the batches; {} if it is None.

    Buckets by lengths, or the usual limits under the names that they have elsewhere; `batch_size` is 1 there if it is
    not given. ConfigError for other forms.
    """
    if value is None:
        return {}
    unlimited = {"batch_size": math.inf, "max_seqs": -1, "packed_batch_size": None}
    if callable(value):
        return {"by_function": value, **unlimited}
    kind = value.get("class") if isinstance(value, dict) else None
    if kind == BUCKETS:
        return {"buckets": Buckets.parse(value, OPTION), **unlimited}
    if kind != PLAIN:
        hint = did_you_mean(str(kind), (BUCKETS, PLAIN))
        raise ConfigError(
            OPTION, f'must be a function, or a dict with "class" {BUCKETS} or {PLAIN}, but is {value!r} instead{hint}'
        )
    check_options(value, ("batch_size", "max_seqs", "packed_batch_size"), OPTION)
    size, packed = value.get("batch_size", 1) or math.inf, value.get("packed_batch_size")
    return {"batch_size": size, "max_seqs": value.get("max_seqs") or -1, "packed_batch_size": packed}
