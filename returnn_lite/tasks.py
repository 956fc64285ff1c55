"""The tasks of the command line, by name. What a task needs is imported when it runs."""

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from returnn_lite.compat.running import RUNNING
from returnn_lite.config import Behavior, Config, refuse_keys
from returnn_lite.config.check_values import check_values
from returnn_lite.config.config_code import call, code_errors
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log

Task = Callable[[Config, Log], Any]

TASKS = {
    "train": "returnn_lite.engine.tasks.train:train_task",
    "eval": "returnn_lite.engine.evaluate:eval_task",
    "forward": "returnn_lite.engine.tasks.forward:forward_task",
    "hpx": "returnn_lite.engine.tasks.forward:forward_task",
    "search": "returnn_lite.engine.tasks.search:search_task",
    "compute_priors": "returnn_lite.engine.tasks.priors:compute_priors_task",
    "plot_scores": "returnn_lite.engine.tasks.plot_scores:plot_scores_task",
    "profile": "returnn_lite.engine.tasks.profile:profile_task",
    "plot_schedule": "returnn_lite.engine.tasks.plot_schedule:plot_schedule_task",
    "to_torch": "returnn_lite.to_torch.task:to_torch_task",
    "export": "returnn_lite.export.task:export_task",
    "train_lr_agent": "returnn_lite.agent.train:train_lr_agent_task",
    "eval_lr_agent": "returnn_lite.agent.evaluate:eval_lr_agent_task",
    "initialize_model": "returnn_lite.engine.tasks.init_only:initialize_model_task",
    "nop_init_net_train": "returnn_lite.engine.tasks.init_only:nop_init_net_train_task",
    "cleanup_old_models": "returnn_lite.engine.tasks.init_only:cleanup_task",
}
PLANNED = ("analyze", "analyze_data", "search_server", "hyper_param_tuning", "debug_shell")
FUNCTION_PREFIXES = ("config:", "optional-config:")


CHECK = "returnn_lite.engine.tasks.check:check_task"
LEARNED_TRAIN = "returnn_lite.trials.learned:train_task"


def run_task(config: Config, log: Log, *, check: bool = False) -> Any:
    """Runs the config's `task`, or checks the config instead; returns what the task does.

    Raises ConfigError for an unknown task, and for whatever the config's own functions raise, with the line in the
    config.
    """
    with code_errors():
        return _run_task(config, log, check)


def _run_task(config: Config, log: Log, check: bool) -> Any:
    name = config.value("task", "train")
    callback = config.typed_value("startup_callback")
    if callable(callback):
        call(callback, "startup_callback", config=config)
    elif callback is not None:
        raise ConfigError("startup_callback", f"must be a function, but is {callback!r} instead")
    if name == "nop":
        return None
    if name.startswith(FUNCTION_PREFIXES):
        return call_config_function(config, name, log)
    check_values(config)
    Behavior.from_config(config, log)  # says where it is unknown
    task = find_task(name)
    if check:
        task = _imported(CHECK)
    elif name == "train" and config.value("learning_rate_control", "") == "learned":
        task = _imported(LEARNED_TRAIN)
    refuse_keys(config)
    if int(os.environ.get("WORLD_SIZE") or 1) > 1 and (check or name != "train"):
        raise ConfigError("task", f"task {name!r} runs in one process, but torchrun started {os.environ['WORLD_SIZE']}")
    config.eval_names = eval_names
    return task(config, log)


def eval_names(context: Any) -> Mapping[str, Any]:
    """The names that eval strings may use: a look-alike of `tf`, and tensor helpers."""
    RUNNING.context = context  # imported functions of `tf` draw their random numbers there
    names: Mapping[str, Any] = importlib.import_module("returnn_lite.compat.tf").eval_names(context)
    return names


def find_task(name: str) -> Task:
    """The function of a task; all layers, losses, datasets and file formats are registered after that."""
    if name in PLANNED:
        raise ConfigError("task", f"task {name!r} is not supported yet")
    if name not in TASKS:
        known = [*TASKS, "nop", *FUNCTION_PREFIXES]
        raise ConfigError("task", f"unknown task: {name!r}{did_you_mean(name, known)}; tasks: {', '.join(known)}")
    importlib.import_module("returnn_lite.catalog")
    importlib.import_module("returnn_lite.compat.formats")
    return _imported(TASKS[name])


def _imported(place: str) -> Task:
    """The function at "module:name"."""
    module, function = place.split(":")
    task: Task = getattr(importlib.import_module(module), function)
    return task


def call_config_function(config: Config, task: str, log: Log) -> None:
    """Task `config:NAME`: the function NAME of the config, without arguments."""
    prefix, name = task.split(":", 1)
    function = config.typed_value(name)
    if callable(function):
        function()
    elif prefix == "optional-config":
        log.v1(f"No task found for {task!r}, so just quitting.")
    else:
        callables = [key for key, value in config.typed.items() if callable(value)]
        hint = did_you_mean(name, callables)
        raise ConfigError("task", f"`{name}` must be a function of the config, but is not{hint}")
