"""The page on all layer classes."""

from tools.layer_reference import reference


def test_reference_names_options_with_their_defaults():
    page = reference()
    assert "## layers.linear" in page
    assert "### copy\n" in page
    assert "`activation`, `opts = None`" in page
