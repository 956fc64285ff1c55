"""Each recipe in configs/ at a small size: trains on generated data in its file format, goes on, searches, forwards."""

from dataclasses import dataclass, field
from math import inf, isfinite, nan
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

import returnn_lite.catalog  # noqa: F401 - fills the registries
from returnn_lite.cli import main
from returnn_lite.compat.tf import eval_names
from returnn_lite.config import load_config
from returnn_lite.network import Network
from tests.configs import recipe_data
from tests.configs.recipe_data import AMOUNTS, BPE, CHARS, FEATURES, STATES, WORDS
from tests.nets import batch

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SMALL_LSTM = {"num_layers": 3, "lstm_dim": 8}
SMALL_TRANSFORMER = {"model_dim": 16, "num_heads": 2}
LM_SIZES = {"num_labels": 2 + len(WORDS), "num_layers": 2}
LM = {**LM_SIZES, "embed_dim": 8}
PAIRS = {"num_source_labels": 2 + len(WORDS), "num_target_labels": 2 + len(WORDS)}


@dataclass(frozen=True)
class Recipe:
    """A row: the recipe, what writes its data, options that make it small, and what it does after the training.

    `search`: "texts" of the sequences in `test`, or "written" ones; `forward`: features of the frames in the HDF file.
    """

    name: str
    data: object
    options: dict = field(default_factory=dict)
    search: str = ""
    forward: int = 0
    priors: int = 0


RECIPES = [
    Recipe(
        "hybrid_blstm", recipe_data.frames, {"num_features": FEATURES, "num_states": STATES, **SMALL_LSTM},
        forward=STATES, priors=STATES,
    ),
    Recipe("ctc_blstm", recipe_data.speech, {"num_labels": len(CHARS), **SMALL_LSTM}, search="texts"),
    Recipe(
        "ctc_conformer", recipe_data.speech, {"num_labels": len(BPE), "num_blocks": 2, **SMALL_TRANSFORMER},
        search="texts",
    ),
    Recipe("attention_bpe", recipe_data.speech, {"num_labels": len(BPE), **SMALL_LSTM}, search="texts"),
    Recipe(
        "transformer", recipe_data.speech,
        {"num_labels": len(BPE), "num_enc_layers": 2, "num_dec_layers": 1, **SMALL_TRANSFORMER}, search="texts",
    ),
    Recipe("transformer_lm", recipe_data.texts, {**LM, **SMALL_TRANSFORMER}, search="written"),
    Recipe("lstm_lm", recipe_data.texts, {**LM, "lstm_dim": 8}, search="written"),
    Recipe("transducer", recipe_data.speech, {"num_labels": len(BPE), **SMALL_LSTM}, search="texts"),
    Recipe(
        "tacotron", recipe_data.speech,
        {"num_chars": len(CHARS), "num_mels": 10, "encoder_dim": 8, "decoder_dim": 12, "att_dim": 6, "max_steps": 20},
        forward=20,
    ),
    Recipe(
        "translation", recipe_data.translations, {**PAIRS, "num_layers": 2, **SMALL_TRANSFORMER}, search="texts",
    ),
    Recipe(
        "ctc_conformer_rf", recipe_data.speech, {"num_labels": len(BPE), "num_blocks": 2, **SMALL_TRANSFORMER},
        search="texts",
    ),
    Recipe(
        "transformer_rf", recipe_data.speech,
        {"num_labels": len(BPE), "num_enc_layers": 1, "num_dec_layers": 1, **SMALL_TRANSFORMER}, search="texts",
    ),
    Recipe("attention_bpe_rf", recipe_data.speech, {"num_labels": len(BPE), **SMALL_LSTM}, search="texts"),
    Recipe("transducer_rf", recipe_data.speech, {"num_labels": len(BPE), **SMALL_LSTM}, search="texts"),
    Recipe("transformer_lm_rf", recipe_data.texts, {**LM_SIZES, **SMALL_TRANSFORMER}, search="written"),
    Recipe("lstm_lm_rf", recipe_data.texts, {**LM, "lstm_dim": 8}, search="written"),
    Recipe(
        "translation_rf", recipe_data.translations, {**PAIRS, "num_layers": 2, **SMALL_TRANSFORMER}, search="texts",
    ),
]  # fmt: skip
EPOCHS = 3


def overrides(recipe, folder, **more):
    """The options of the recipe at a small size, as the command line gives them."""
    options = {"data_dir": folder / "data", "exp_dir": folder / "out", "device": "cpu", **recipe.options, **more}
    if "partition_epoch=parts" in (CONFIGS / f"{recipe.name}.config").read_text():
        options["parts"] = 1
    return {key: str(value) for key, value in options.items()}


def run(recipe, folder, **more):
    """The command line of the recipe; its options become `++key value`."""
    arguments = [part for key, value in overrides(recipe, folder, **more).items() for part in (f"++{key}", value)]
    return main([str(CONFIGS / f"{recipe.name}.config"), *arguments])


def scores(folder):
    """{epoch: its scores} of the epochs that were trained, from the learning-rate file."""
    names = {"EpochData": SimpleNamespace, "nan": nan, "inf": inf}
    rates = eval((folder / "out" / "learning_rates").read_text(), names)
    return {epoch: entry.error for epoch, entry in rates.items() if entry.error}


@pytest.fixture(params=RECIPES, ids=lambda recipe: recipe.name)
def recipe(request):
    return request.param


def test_recipe(recipe, tmp_path):
    (tmp_path / "data").mkdir()
    recipe.data(tmp_path / "data")
    for epochs in (1, EPOCHS):  # the second run goes on
        assert run(recipe, tmp_path, num_epochs=epochs) == 0
        found = scores(tmp_path)
        assert sorted(found) == list(range(1, epochs + 1))
        assert all(isfinite(v) for errors in found.values() for v in errors.values() if isinstance(v, float))
    assert any(key.startswith(("dev_score", "dev_loss")) for key in found[EPOCHS])
    if recipe.search:
        check_search(recipe, tmp_path)
    if recipe.forward:
        check_forward(recipe, tmp_path)
    if recipe.priors:
        assert run(recipe, tmp_path, task="compute_priors", load_epoch=EPOCHS) == 0
        priors = np.exp(np.loadtxt(tmp_path / "out" / "priors.txt"))
        assert priors.shape == (recipe.priors,) and abs(priors.sum() - 1) < 1e-4


def check_search(recipe, folder):
    assert run(recipe, folder, task="search", load_epoch=EPOCHS) == 0
    (file,) = (path for path in (folder / "out").glob("*.txt"))
    found = eval(file.read_text())
    assert len(found) == (AMOUNTS["test"] if recipe.search == "texts" else 10)
    assert all(isinstance(text, str) for text in found.values())


def check_forward(recipe, folder):
    assert run(recipe, folder, task="forward", load_epoch=EPOCHS) == 0
    (path,) = (folder / "out").glob("*.hdf")
    with h5py.File(path) as file:
        assert len(file["seqTags"]) == AMOUNTS["test"] and file["inputs"].shape[1] == recipe.forward
        assert len(file["inputs"]) == sum(file["seqLengths"][:, 0]) > 0


def test_every_recipe_has_a_row_and_a_paragraph():
    names = {path.stem for path in CONFIGS.glob("*.config")}
    assert names == {recipe.name for recipe in RECIPES}
    text = (CONFIGS / "README.md").read_text()
    assert all(f"]({name}.config)" in text for name in names)


def test_search_of_the_ctc_recipe_with_a_beam_of_one_merges_the_best_classes(tmp_path):
    recipe_data.speech(tmp_path)
    sizes = {"num_labels": str(len(CHARS)), "num_layers": "3", "lstm_dim": "8"}
    settings = {"data_dir": str(tmp_path), "task": "search", "beam_size": "1", **sizes}
    config = load_config([str(CONFIGS / "ctc_blstm.config")], list(settings.items()))
    net = Network(config, config.typed_value("network"), search=True, eval=False, eval_names=eval_names).eval()
    out = net(*batch({"data": {"dim": 80}}, {"data": [90, 61, 75]}))
    classes = out["output"].batch_major().data.argmax(-1)
    lengths = out["output"].length(out["output"].spec.time_dim).values
    found = out["decision"].batch_major()
    for b, length in enumerate(lengths.tolist()):
        path = classes[b, :length].tolist()
        wanted = [label for i, label in enumerate(path) if label != len(CHARS) and (not i or label != path[i - 1])]
        count = int(found.length(found.spec.time_dim).values[b])
        assert found.data[b, :count].tolist() == wanted
    assert found.data.numel()
