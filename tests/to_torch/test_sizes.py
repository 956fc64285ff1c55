"""Numbers as expressions of sizes."""

import pytest

from returnn_lite.to_torch.sizes import Samples, expression

BATCH, TIME = (2, 3, 5, 4, 7), (23, 38, 60, 49, 68)
KNOWN = [(BATCH, "b"), (TIME, "t")]
FORMS = ["b", "t", "t - 1", "2 * t - 1", "t + b", "b * t", "t // 3", "-(-t // 3)",
         "b * (t + 1)", "-t % 4", "(-t % 4) // 2",
         "(-t % 4 + 1) // 2", "t - b - 2", "7"]  # fmt: skip


def value(form: str) -> Samples:
    """The samples of a form."""
    return tuple(eval(form, {"b": b, "t": t}) for b, t in zip(BATCH, TIME, strict=True))  # noqa: S307


@pytest.mark.parametrize("form", FORMS)
def test_ints(form: str):
    found = expression(value(form), [], KNOWN)
    assert found is not None and value(found) == value(form)


@pytest.mark.parametrize("form", ["(t + 1) / t", "((t + 1) / t) ** 0.6", "1 / t", "t ** -0.5", "t + 0.0", "0.25"])
def test_floats(form: str):
    found = expression(value(form), [], KNOWN)
    assert found is not None and value(found) == pytest.approx(value(form), rel=1e-12)


def test_unknown():
    assert expression((1, 8, 2, 90, 3), [], KNOWN) is None


def test_near_ones_come_first():
    assert expression(TIME, [(TIME, "x.shape[1]")], KNOWN) == "x.shape[1]"
