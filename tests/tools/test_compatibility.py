"""The page on what is supported, and its marks."""

import pytest

from returnn_lite.errors import ConfigError
from returnn_lite.tools import compatibility
from returnn_lite.tools.support_status import marker_of
from tests.engine.helpers import ROOT

COUNTS = ROOT / "docs" / "usage_counts.txt"


def test_the_page_is_current():
    page = compatibility.page(compatibility.read_counts(COUNTS))
    assert (ROOT / "docs" / "compatibility.md").read_text() == page, "docs/compatibility.md is old: run `make docs`"


@pytest.mark.parametrize("kind, name, mark", [
    ("layers", "softmax", "supported"),
    ("layers", "kenlm", "refused: it needs external software"),
    ("layers", "sofmax", "refused: unknown"),
    ("options of layer softmax", "from", "supported"),
    ("options of layer softmax", "frm", "refused: unknown option"),
    ("options of layer rec", "sampling", "no effect"),
    ("options of layer kenlm", "lm_file", "refused: the layer is"),
    ("options of OggZipDataset", "partition_epoch", "supported"),
    ("options of BytePairEncoding", "bpe_file", "supported"),
    ("units", "rnn_cell:LSTMBlock", "supported"),
    ("units", "rec:blocksparselstm", "refused: unknown cell"),
    ("losses", "sprint", "refused: it needs an external"),
    ("activations", "log_sigmoid", "supported"),
    ("activations", "tanhh", "refused: invalid"),
    ("initializers", "xavier", "supported"),
    ("global options", "batch_size", "supported"),
    ("global options", "multiprocessing", "no effect"),
    ("global options", "train_in_eval", "refused: evaluations"),
    ("global options", "my_helper", "a variable of the config"),
    ("imported modules", "TFUtil", "a stand-in"),
    ("imported modules", "subprocess", "standard library"),
    ("imported modules", "rna_tf_impl", "must be installed"),
    ("helpers imported by functions", "TFUtil:where_bc", "supported"),
    ("helpers imported by functions", "TFNetworkLayer:SelectSearchSourcesLayer", "refused: it is part"),
    ("names of TensorFlow in functions", "tf.nn.top_k", "supported"),
    ("names of TensorFlow in functions", "tf.Session", "refused: module 'tensorflow'"),
    ("functions in expressions", "source", "supported"),
    ("datasets and vocabularies", "ExternSprintDataset", "refused: needs RASR"),
])  # fmt: skip
def test_marks(kind, name, mark):
    assert marker_of(kind)(name).startswith(mark)


def test_what_publications_use_most_is_there():
    """Of the names in more than 50 of the configs, only what needs the external toolkit is refused."""
    refused = {
        name
        for kind, names in compatibility.read_counts(COUNTS).items()
        for name, count in names.items()
        if count > 50 and marker_of(kind)(name).startswith("refused: ") and "ExternSprint" not in kind
    }
    assert refused == {"ExternSprintDataset"}


def test_lines_of_another_form_are_refused(tmp_path):
    (tmp_path / "counts").write_text("[layers]\nsoftmax many\n")
    with pytest.raises(ConfigError, match='counts:2: must be "name number"'):
        compatibility.read_counts(tmp_path / "counts")


def test_the_tool_writes_the_page(tmp_path, capsys):
    (tmp_path / "counts").write_text("# a remark\n[layers]\nsoftmax 3\nkenlm 1\n\n[options of layer softmax]\nfrom 3\n")
    assert compatibility.main([str(tmp_path / "counts"), str(tmp_path / "page.md")]) == 0
    text = (tmp_path / "page.md").read_text()
    assert "| `softmax` | 3 | supported |\n| `kenlm` | 1 | refused: " in text
    assert "| layer softmax | `from` 3 |  |\n" in text and "Of 3 names, 1 are refused" in text
    assert compatibility.main([str(tmp_path / "counts")]) == 0 and capsys.readouterr().out == text
