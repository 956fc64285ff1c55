"""Kind `tf_calls`: expressions written against TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from returnn_lite.compat.tf import Context, Namespace, eval_names, helper_functions, unwrap, wrap


def tf_call(expr: str, variables: Mapping[str, Any]) -> Any:
    """The value of an expression over the arrays, `tf`, `tf2` and the helpers `U`: an array, or whatever else it is."""
    tf = eval_names()["tf"]
    names = {name: wrap(torch.as_tensor(value)) for name, value in variables.items()}
    value = unwrap(eval(expr, {**names, "tf": tf, "tf2": tf, "U": Namespace("U", helper_functions(Context()))}))
    return value.numpy() if isinstance(value, torch.Tensor) else value
