"""Each recipe in configs/ as a Python file: the numbers of its network, in a process that cannot import the package."""

import numpy as np
import pytest
import torch

import returnn_lite.catalog  # noqa: F401 - fills the registries
from returnn_lite.compat.tf import eval_names
from returnn_lite.config import load_config
from returnn_lite.engine.setup import load_network
from returnn_lite.log import Log
from returnn_lite.to_torch.batches import batch, results, seed
from tests.configs.test_recipes import CONFIGS, RECIPES, overrides, run
from tests.nets import randomised
from tests.to_torch.alone import run_alone

LAYERS = {  # of the recipes of layers: those that are written beside the search
    "hybrid_blstm": ["log_posteriors"],
    "ctc_blstm": ["output"],
    "ctc_conformer": ["output"],
    "attention_bpe": ["output/output_prob", "ctc"],
    "transformer": ["output/output_prob"],
    "transformer_lm": ["output/next"],
    "lstm_lm": ["output/next"],
    "transducer": ["frames"],
    "tacotron": ["output"],
    "translation": ["output/output_prob"],
}
SEED = 5


def network(recipe, folder, layer, search):
    """The network of the recipe that gives a layer, with random parameters, which a file holds."""
    options = overrides(recipe, folder, task="search" if search else "forward", allow_random_model_init=True)
    config = load_config([str(CONFIGS / f"{recipe.name}.config")], list(options.items()))
    config.eval_names = eval_names
    loaded = load_network(config, Log.silent(), task="forward", search=search, eval=False, extra_layers=(layer,))
    net = randomised(loaded.net, 0.3)
    np.savez(folder / "params.npz", **{name: param.detach().numpy() for name, param in net.params.items()})
    return net


def written(recipe, folder, layer, search):
    """The file of a layer, what it is given, and what the network gives for it."""
    net = network(recipe, folder, layer, search)
    file = folder / f"{'search' if search else 'net'}_{layer.replace('/', '_')}.py"
    option = "search_output_layer" if search else "forward_output_layer"
    options = {"to_torch_search": search, "to_torch_file": file, option: layer, "load": folder / "params.npz"}
    assert run(recipe, folder, task="to_torch", **options) == 0
    data, lengths = batch(net, 3, 47)
    net.context.keeps_batch = recipe.search == "written"  # it draws random numbers for as many sequences as there are
    seed(net, SEED)
    with torch.no_grad():
        wanted = results(net, layer, data, lengths)
    return file, (SEED, {**data, **{f"{key}_lengths": x for key, x in lengths.items()}}), wanted


@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if recipe.name in LAYERS], ids=lambda r: r.name)
def test_recipe(recipe, tmp_path):
    (tmp_path / "data").mkdir()
    recipe.data(tmp_path / "data")
    asked = [(layer, False) for layer in LAYERS[recipe.name]] + [("decision", True)] * bool(recipe.search)
    rows = [written(recipe, tmp_path, layer, search) for layer, search in asked]
    answers = run_alone({file: given for file, given, _ in rows})
    for (file, _, wanted), found in zip(rows, answers, strict=True):
        assert set(found) == set(wanted), file.name
        assert wanted["output"].numel()
        for name, x in wanted.items():
            torch.testing.assert_close(found[name], x, rtol=0, atol=1e-5 * max(1.0, float(x.abs().max())))


def test_every_recipe_of_layers_has_a_row():
    assert set(LAYERS) == {recipe.name for recipe in RECIPES if not recipe.name.endswith("_rf")}
