"""Model files in the form of safetensors: a JSON table of contents, then the numbers."""

from __future__ import annotations

import json
import math

import torch

from returnn_lite.errors import ConfigError

SUFFIX = ".safetensors"
TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def read_safetensors(path: str, option: str = "load") -> dict[str, torch.Tensor]:
    """{name: tensor} of a file. ConfigError (path: `option`) where it is damaged or of another kind.

    The file: size of the table (8 bytes, little endian), the table {name: {"dtype", "shape", "data_offsets": [start,
    end]}}, and the bytes of all tensors, at offsets from the end of the table.
    """
    with open(path, "rb") as file:
        content = bytearray(file.read())
    try:
        size = int.from_bytes(content[:8], "little")
        table = json.loads(content[8 : 8 + size].decode())
        return {name: _tensor(content, 8 + size, entry) for name, entry in table.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RuntimeError) as exc:
        reason = f"{type(exc).__name__}: {exc}".split("\n")[0]
        raise ConfigError(option, f"{path!r} cannot be read as a {SUFFIX} file: {reason}") from exc


def _tensor(content: bytearray, begin: int, entry: dict[str, object]) -> torch.Tensor:
    dtype, shape = TYPES[str(entry["dtype"])], [int(n) for n in entry["shape"]]  # type: ignore[attr-defined]
    first, last = (int(n) for n in entry["data_offsets"])  # type: ignore[attr-defined]
    count = math.prod(shape)
    if last - first != count * dtype.itemsize or begin + last > len(content):
        raise ValueError("it is cut off" if begin + last > len(content) else f"{shape} does not fit its numbers")
    if not count:
        return torch.zeros(shape, dtype=dtype)
    return torch.frombuffer(content, dtype=dtype, count=count, offset=begin + first).reshape(shape).clone()
