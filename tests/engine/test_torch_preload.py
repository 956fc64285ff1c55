"""`preload_from_files` of models written in torch."""

import pytest
import torch

from returnn_lite.errors import ConfigError
from tests.engine import helpers
from tests.engine.small_models import options, state


class Part(torch.nn.Module):
    def __init__(self, inner=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        if inner is not None:
            self.enc = inner


def nested():
    """enc.weight, enc.enc.weight"""
    return torch.nn.ModuleDict({"enc": Part(Part())})


def beside():
    """enc.weight, denc.weight, teacher.enc.weight"""
    parts = {"enc": Part(), "denc": Part(), "teacher": torch.nn.ModuleDict({"enc": Part()})}
    return torch.nn.ModuleDict(parts)


def value(number):
    return torch.full((1,), float(number))


def load(folder, entries, model=nested, **changes):
    """All parameters after a start with these entries."""
    found = {"num_epochs": 1, "learning_rate": 0.0, "preload_from_files": entries, **changes}
    helpers.run(options(folder, lambda **_: model(), **found))
    return {name: number.item() for name, number in state(folder, 1).items() if name != "global_step"}


def entry(folder, content, **more):
    torch.save(content, folder / "given.pt")
    return {"filename": str(folder / "given.pt"), "init_for_train": True, "prefix": "enc.", **more}


FILE = {"weight": value(7), "enc.weight": value(8)}


def test_the_prefix_is_put_in_front_once(tmp_path):
    found = load(tmp_path, {"x": entry(tmp_path, {"model": FILE, "epoch": 3, "step": 5})})
    assert found == {"enc.weight": 7.0, "enc.enc.weight": 8.0}


def test_a_prefix_is_the_beginning_of_a_name(tmp_path):
    found = load(tmp_path, {"x": entry(tmp_path, {"model": {"weight": value(7)}})}, beside)
    assert found == {"enc.weight": 7.0, "denc.weight": 1.0, "teacher.enc.weight": 1.0}


@pytest.mark.parametrize("key, content", [
    (None, FILE), ("model", {"model": FILE}), ("ema", {"model": {"weight": value(1)}, "ema": FILE}), ("model", FILE),
])  # fmt: skip
def test_entries_of_the_file(tmp_path, key, content):
    found = load(tmp_path, {"x": entry(tmp_path, content, checkpoint_key=key)})
    assert found == {"enc.weight": 7.0, "enc.enc.weight": 8.0}


def test_names_are_mapped_with_their_prefix(tmp_path):
    file = {"other": value(7), "enc.weight": value(8)}
    found = load(tmp_path, {"x": entry(tmp_path, file, var_name_mapping={"enc.weight": "enc.other"})})
    assert found == {"enc.weight": 7.0, "enc.enc.weight": 8.0}


def test_a_function_makes_what_is_missing_in_the_whole_model(tmp_path):
    seen = []

    def made(*, name, shape, preload_model_state, **_):
        seen.append((name, tuple(shape), sorted(preload_model_state)))
        return preload_model_state["enc.weight"] + 2 if name == "denc.weight" else None

    found = load(tmp_path, {"x": entry(tmp_path, {"weight": value(7)}, custom_missing_load_func=made)}, beside)
    assert found == {"enc.weight": 7.0, "denc.weight": 9.0, "teacher.enc.weight": 1.0}
    assert seen == [("denc.weight", (1,), ["enc.weight"]), ("teacher.enc.weight", (1,), ["enc.weight"])]


def test_what_is_ignored_is_missing(tmp_path):
    ignored = {"ignore_params": ["enc.weight"]}
    with pytest.raises(ConfigError, match='lacks 1 parameters: enc.weight; with "ignore_missing"'):
        load(tmp_path, {"x": entry(tmp_path, FILE, **ignored)})
    found = load(tmp_path, {"x": entry(tmp_path, FILE, ignore_missing=True, **ignored)})
    assert found == {"enc.weight": 1.0, "enc.enc.weight": 8.0}
    prefixes = {"ignore_params_prefixes": ["enc.enc."], "ignore_missing": True}
    assert load(tmp_path / "b", {"x": entry(tmp_path, FILE, **prefixes)}) == {"enc.weight": 7.0, "enc.enc.weight": 1.0}


def test_the_first_of_several_entries_counts(tmp_path):
    torch.save({"weight": value(3)}, tmp_path / "b.pt")
    first, second = entry(tmp_path, FILE), {**entry(tmp_path, FILE), "filename": str(tmp_path / "b.pt")}
    assert load(tmp_path, {"1": first, "2": second})["enc.weight"] == 7.0
    lacking = {"1": second, "2": first}  # what one lacks, another one may have
    assert load(tmp_path / "b", lacking) == {"enc.weight": 3.0, "enc.enc.weight": 8.0}


def test_always_is_neither_trained_nor_saved(tmp_path):
    entries = {"x": entry(tmp_path, FILE, init_for_train="always")}

    def model():
        return torch.nn.ModuleDict({"enc": Part(Part()), "w": Part()})

    found = load(tmp_path, entries, model, learning_rate=0.1)
    assert set(found) == {"w.weight"} and found["w.weight"] < 1.0
    lines = helpers.run(options(tmp_path, lambda **_: model(), preload_from_files=entries, num_epochs=2))
    assert any("neither trained nor saved: enc.enc.weight, enc.weight" in line for line in lines)
    scores = helpers.run(options(tmp_path, lambda **_: model(), preload_from_files=entries, task="eval", load_epoch=2))
    assert any(line.startswith("Epoch 2 evaluation: dev: ") for line in scores)


def test_other_tasks(tmp_path):
    load(tmp_path, {}, beside)
    torch.save({"weight": value(7)}, tmp_path / "given.pt")
    entries = {"x": {"filename": str(tmp_path / "given.pt"), "prefix": "enc."}}
    made = options(tmp_path, lambda **_: beside(), preload_from_files=entries, task="eval", load_epoch=1)
    assert "evaluation: dev: 9.000" in " ".join(helpers.run(made))  # 7 + 1 + 1
    assert "evaluation: dev: 3.000" in " ".join(helpers.run({**made, "preload_from_files": {}}))


def test_no_file(tmp_path):
    """With the file None, parameters may be missing in the main file."""

    def grown(**_):
        return torch.nn.ModuleDict({**beside(), "new": Part()})

    load(tmp_path / "old", {}, beside)
    start = {"import_model_train_epoch1": str(tmp_path / "old" / "model.001")}
    with pytest.raises(ConfigError, match="import_model_train_epoch1: .* lacks 1 of 4 parameters: new.weight"):
        load(tmp_path, {}, grown, **start)
    for which in ({"prefix": "new."}, {"pattern": "new.*"}):
        entries = {"x": {"filename": None, "init_for_train": True, **which}}
        assert load(tmp_path, entries, grown, **start)["new.weight"] == 1.0
        (tmp_path / "model.001.pt").unlink()


@pytest.mark.parametrize("more, text", [
    ({"prefix": "dec."}, "no parameter of the model has the prefix 'dec.'"),
    ({"checkpoint_key": "emaa"}, "has no entry 'emaa'; did you mean \"ema\"\\?; it has ema, model"),
    ({"var_name_mapping": {"enc.weight": "enc.wieght"}}, "which .* lacks; did you mean \"enc.weight\""),
    ({"init_for_train": "allways"}, "must be one of True, False, 'always', but is 'allways'"),
    ({"custom_missing_load_func": lambda *, name, **_: torch.ones(2)}, "must return a tensor of shape"),
    ({"prefixx": "enc."}, 'unknown option "prefixx"; did you mean "prefix"'),
    ({"filename": "nowhere/x.pt"}, "must name a model file, but 'nowhere/x.pt' does not exist; folder"),
    ({"ignore_params": "enc.weight"}, "`ignore_params` must be a list of names"),
])  # fmt: skip
def test_wrong_entries(tmp_path, more, text):
    content = {"ema": {"weight": value(1)}, "model": {"weight": value(1)}}
    with pytest.raises(ConfigError, match=text):
        load(tmp_path, {"x": entry(tmp_path, content, **more)})


def test_no_name_in_common(tmp_path):
    with pytest.raises(ConfigError, match="no parameter of the model is in .* with prefix 'enc.' are enc.bias"):
        load(tmp_path, {"x": entry(tmp_path, {"bias": value(1)}, ignore_missing=True)})
