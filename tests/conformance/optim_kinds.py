"""Kinds thinc and torch_optim: optimizers of other libraries, schedules, averages, by the updater and its parts."""

import inspect
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from returnn_lite.config import Config
from returnn_lite.log import Log
from returnn_lite.optim import Updater, thinc
from returnn_lite.optim.averaging import AveragingOptions, WeightAveraging
from returnn_lite.optim.lr_scheduler import LRScheduler
from returnn_lite.optim.resolve import default_options, find_class
from returnn_lite.optim.schedules import make_schedule

# --- thinc ------------------------------------------------------------------------------------------------------------


def thinc_schedule(case: dict[str, Any]) -> list[float]:
    """The values at the steps from 0 on, scores becoming known at their steps."""
    schedule = make_schedule({"@schedules": case["schedule"], **case["options"]}, "schedule")
    values, score = [], None
    for step in range(len(case["values"])):
        if str(step) in (case.get("scores") or {}):
            score = (step, case["scores"][str(step)])
        values.append(schedule(step, score))
    return values


def thinc_optimizer(case: dict[str, Any]) -> dict[str, Any]:
    """Weights, averages and slow weights after every step."""
    optimizer = _from_cfg(case["cfg"]) if case["kind"] == "cfg" else _from_options(case)
    weights = {name: np.array(value, "float32") for name, value in case["weights0"].items()}
    answer: dict[str, Any] = {"weights": [], "averages": [], "slow_weights": []}
    for step, gradients in enumerate(case["gradients"]):
        if str(step) in case.get("scores", {}):
            optimizer.last_score = case["scores"][str(step)]
        for name in case["update_order"]:
            if [step, name] not in case.get("skipped", []):
                scale = (case.get("lr_scale") or {}).get(name, 1.0)
                optimizer(name, weights[name], np.array(gradients[name], "float32"), lr_scale=scale)
        if (step + 1) % case["step_schedules_every"] == 0:
            optimizer.step_schedules()
        answer["weights"].append({name: value.copy() for name, value in weights.items()})
        for field, tensors in (("averages", optimizer.averages), ("slow_weights", optimizer.slow_weights)):
            answer[field].append({name: np.array(value).copy() for name, value in tensors.items()})
    return answer


def _from_options(case: dict[str, Any]) -> thinc.Optimizer:
    options = {key: _argument(value) for key, value in case["options"].items()}
    if case["lookahead"]:
        options |= {"lookahead_k": case["lookahead"]["k"], "lookahead_alpha": case["lookahead"]["alpha"]}
    return getattr(thinc, case["optimizer"].removesuffix(".v1"))(**options)


def _argument(value: Any) -> Any:
    return iter(value["generator"]) if isinstance(value, dict) and "generator" in value else value


def _from_cfg(text: str) -> thinc.Optimizer:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "optim.cfg"
        file.write_text(text)
        options = default_options(Config({"optimizer": str(file)}), Log.silent())
    name = options.pop("class").removeprefix("thinc.")
    return getattr(thinc, name)(**options)


# --- torch.optim ------------------------------------------------------------------------------------------------------


def torch_optimizer(case: dict[str, Any]) -> dict[str, Any]:
    """The parameters after each step of the case's task."""
    options = dict(case["options"])
    cls = find_class(case["optimizer"], "optimizer")
    rate = options.pop("lr", None)
    rate = _default_rate(cls) if rate is None else rate
    groups = case["param_groups"]
    names = [name for group in groups for name in group["params"]]
    params = {
        n: torch.nn.Parameter(torch.tensor(case["params0"][n], dtype=torch.float64), n in names)
        for n in case["params0"]
    }
    optimizer = {"class": case["optimizer"], **options}
    if any(len(group) > 1 for group in groups):
        optimizer["param_groups"] = groups
    config = Config({"optimizer": optimizer, "learning_rate": rate})
    updater = Updater(params, config, param_options={}, initial_learning_rate=rate, log=Log.silent())
    found = []
    for step in range(len(case["params"])):

        def evaluate(step: int = step) -> torch.Tensor:
            return _objective(case, params, step)

        updater.step(evaluate(), global_step=step, learning_rate=rate, epoch_step=step, evaluate=evaluate)
        found.append({name: param.detach().numpy().copy() for name, param in params.items()})
    return {"params": found}


def _default_rate(cls: type) -> float:
    return inspect.signature(cls).parameters["lr"].default


def _objective(case: dict[str, Any], params: dict[str, torch.Tensor], step: int) -> torch.Tensor:
    if case["idx"] is not None:
        rows = torch.nn.functional.embedding(torch.tensor(case["idx"][step]), params["emb"], sparse=True)
        return ((rows - 0.25) ** 2).sum()
    x, y = torch.tensor(case["X"], dtype=torch.float64), torch.tensor(case["Y"])
    return torch.nn.functional.cross_entropy(x @ params["W"] + params["b"], y)


def lr_scheduler(case: dict[str, Any]) -> list[list[dict[str, float]]]:
    """Per step and group the values in force."""
    options = case["optimizer"]
    momentum = {"beta1": options.get("betas", [0.9])[0]} if "Adam" in options["class"] else {}
    momentum = momentum or {"momentum": options.get("momentum", 0.0)}
    groups = [{"lr": rate, **momentum} for rate in case["group_lrs"]]
    scheduler = LRScheduler({**case["lr_scheduler"], "interval": "epoch"}, groups, Log.silent())
    found = []
    for epoch in range(1, len(case["values"]) + 1):
        scheduler.start(epoch, case["metric"][epoch - 2] if case["metric"] and epoch > 1 else None)
        found.append([dict(values) for values in scheduler.values()])
    return found


def weight_averaging(case: dict[str, Any]) -> list[list[float]]:
    """The averages after each update."""
    value = {"interval": "step", **case["weight_averaging"]}
    param = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
    averaging = WeightAveraging(AveragingOptions.from_value(value, 0), {"w": param})
    averaging.start_epoch(1)
    found = []
    for weights in case["weights_after_update"]:
        param.data.copy_(torch.tensor(weights))
        averaging.after_update()
        found.append(averaging.averages["w"].tolist())
    return found
