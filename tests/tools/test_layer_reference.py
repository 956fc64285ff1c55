"""The page on all layer classes, and what the command line says of them."""

from pathlib import Path

import pytest

from returnn_lite.cli import main
from returnn_lite.tools import layer_reference

PAGE = Path(__file__).resolve().parents[2] / "docs" / "layers.md"


def test_the_page_is_current():
    assert PAGE.read_text() == layer_reference.reference(), "docs/layers.md is old: run `make docs`"


def test_reference_names_options_with_their_defaults():
    page = layer_reference.reference()
    assert "## layers.linear" in page
    assert "### copy\n" in page
    assert "`activation`, `opts = None`" in page
    assert "`conv`, " in page.partition("Layers that let padding through")[2].partition("\n")[0]


def test_list_layers(capsys):
    assert main(["--list-layers"]) == 0
    out = capsys.readouterr().out
    assert "\nlinear, hidden, forward" in out or "\nforward, hidden, linear" in out
    assert "rec.loop" not in out


def test_help_layer(capsys):
    assert main(["--help-layer", "softmax_over_spatial"]) == 0
    out = capsys.readouterr().out
    assert (
        out.startswith("### softmax_over_spatial\n") and "`energy_factor = None`" in out and "Shape: (B, T, H)" in out
    )


@pytest.mark.parametrize("name", ["linaer"])
def test_help_of_an_unknown_layer(name, capsys):
    assert main(["--help-layer", name]) == 1
    assert capsys.readouterr().err.startswith("--help-layer: unknown layer class 'linaer'; did you mean \"linear\"")
