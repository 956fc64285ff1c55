"""Recorded training steps on a GPU: numbers, random numbers, refusals."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import gpu_checks  # noqa: E402


@pytest.mark.parametrize("check", gpu_checks.CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_recorded_steps(check):
    check()
