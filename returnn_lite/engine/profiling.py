"""`torch_profile`: where the time of training steps goes."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from returnn_lite.config import Config
from returnn_lite.config.numbers import whole
from returnn_lite.config_value import ConfigDict, ConfigOptions
from returnn_lite.errors import ConfigError, did_you_mean
from returnn_lite.log import Log

OPTION, FILE, ROWS = "torch_profile", "torch_profile.json", 30
SCHEDULE = {"skip_first": 10, "wait": 5, "warmup": 3, "active": 3, "repeat": 1}
NOT_OPTIONS = ("on_trace_ready", "activities")


class ProfileDone(Exception):  # noqa: N818 - no error
    """The profile is written: the run ends."""


class StepProfiler:
    """Records some training steps by torch.profiler; then writes a trace for chrome://tracing and logs a table, and
    ends the run. options: of torch.profiler.profile, with `schedule` as a dict."""

    def __init__(self, options: ConfigOptions, device: torch.device, log: Log) -> None:
        self.device, self.log = device, log
        when = _checked({**SCHEDULE, **options.pop("schedule", {})})
        activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (device.type == "cuda")]
        try:
            self.profiler = profile(
                activities=activities, schedule=schedule(**when), on_trace_ready=self._write, **options
            )
        except (TypeError, ValueError, AssertionError) as error:
            raise ConfigError(OPTION, str(error) or f"wrong values: {options}") from None
        self.written = False
        self.profiler.start()

    def step(self) -> None:
        """Notes that a step ended. Raises ProfileDone after the last one that is recorded."""
        self.profiler.step()
        if self.written:
            self.profiler.stop()
            raise ProfileDone(FILE)

    def _write(self, recorded: Any) -> None:  # Any: torch.profiler.profile, which gives itself
        recorded.export_chrome_trace(FILE)
        by = "self_device_time_total" if self.device.type == "cuda" else "self_cpu_time_total"
        table = recorded.key_averages().table(sort_by=by, row_limit=ROWS, max_name_column_width=60)
        self.log.v1(table)
        self.log.v1(f"{OPTION}: the trace is in {FILE}; the run ends without saving anything")
        self.written = True


def step_profiler(config: Config, device: torch.device, log: Log) -> StepProfiler | None:
    """By the option: True, or a dict; None without it. ConfigError for options that there are not."""
    value = config.literal(OPTION, None)
    if not value:
        return None
    if value is not True and not isinstance(value, dict):
        raise ConfigError(OPTION, f"must be True or a dict of options, but is {value!r} instead")
    options = {} if value is True else dict(value)
    known = [name for name in inspect.signature(profile).parameters if name not in NOT_OPTIONS]
    _refuse_unknown(options, known, OPTION)
    return StepProfiler(options, device, log)


def _checked(when: ConfigDict) -> dict[str, int]:
    _refuse_unknown(when, list(SCHEDULE), f'{OPTION}["schedule"]')
    return {key: whole(f'{OPTION}["schedule"]["{key}"]', value) for key, value in when.items()}


def _refuse_unknown(options: ConfigDict, known: list[str], path: str) -> None:
    for key in options:
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise ConfigError(f'{path}["{key}"]', f"unknown option{hint} (options: {', '.join(known)})")


def memory_usage(device: torch.device) -> str:
    """`1.2GB`: what torch has allocated on a GPU; "" for the CPU."""
    return size_text(torch.cuda.memory_allocated(device)) if device.type == "cuda" else ""


def memory_line(device: torch.device) -> str:
    """Present and largest memory on a GPU since the start; "" for the CPU."""
    if device.type != "cuda":
        return ""
    known = {
        "alloc cur": torch.cuda.memory_allocated, "alloc peak": torch.cuda.max_memory_allocated,
        "reserved cur": torch.cuda.memory_reserved, "reserved peak": torch.cuda.max_memory_reserved,
    }  # fmt: skip
    return f"Memory usage ({device}): " + " ".join(f"{key} {size_text(read(device))}" for key, read in known.items())


def size_text(count: int) -> str:
    """Bytes as `12.0KB`, `1.2GB`."""
    size, units = float(count), ["B", "KB", "MB", "GB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.1f}{units[0]}"
