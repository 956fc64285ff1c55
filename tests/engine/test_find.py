"""Which checkpoint is used."""

import os

import pytest

from returnn_lite.engine.checkpoints.find import (
    Request,
    StartPoint,
    choose_start,
    epoch_of_file,
    existing_models,
    model_file,
    strip_suffix,
)
from returnn_lite.errors import ConfigError

MODELS = {1: "m.001", 2: "m.002", 3: "m.003"}

# request -> (epoch, file, own model, start epoch)
CASES = {
    "fresh": (Request(), (None, None, False, 1)),
    "resume": (Request(existing=MODELS), (3, "m.003", True, 4)),
    "load is ignored where there is a model": (Request(existing=MODELS, load="x.007.pt"), (3, "m.003", True, 4)),
    "import": (Request(import_model="old/x.002.pt"), (0, "old/x.002", False, 1)),
    "import with start 1": (Request(import_model="x.002", start_epoch=1), (0, "x.002", False, 1)),
    "import with start 2 is not meant": (
        Request(import_model="x.002", start_epoch=2, existing={1: "m.001"}),
        (1, "m.001", True, 2),
    ),
    "import after the first epoch": (Request(import_model="x.002", existing=MODELS), (3, "m.003", True, 4)),
    "load": (Request(load="x.002.pt"), (2, "x.002", False, 3)),
    "load with its epoch": (Request(load="best.pt", load_epoch=5), (5, "best", False, 6)),
    "load without a number": (Request(load="best.pt"), (None, "best", False, 1)),
    "load and start": (Request(load="x.002", start_epoch=1), (0, "x.002", False, 1)),
    "load and start 4": (Request(load="x.002", start_epoch=4, existing=MODELS), (3, "x.002", False, 4)),
    "start 1 ignores models": (Request(existing=MODELS, start_epoch=1), (None, None, False, 1)),
    "start 3 goes back": (Request(existing=MODELS, start_epoch=3), (2, "m.002", True, 3)),
    "start 4 goes on": (Request(existing=MODELS, start_epoch=4), (3, "m.003", True, 4)),
    "start 3 without optimizer state": (Request(stored=MODELS, start_epoch=3), (2, "m.002", False, 3)),
    "start 1 over models without": (Request(stored=MODELS, start_epoch=1), (None, None, False, 1)),
    "resume before models without": (Request(stored=MODELS, existing={2: "m.002"}), (2, "m.002", True, 3)),
    "start 1, nothing there": (Request(start_epoch=1), (None, None, False, 1)),
    "load_epoch and start": (Request(load_epoch=2, start_epoch=1, existing=MODELS), (0, "m.002", False, 1)),
    "eval the last": (Request("eval", existing=MODELS), (3, "m.003", True, 4)),
    "eval an epoch": (Request("eval", existing=MODELS, load_epoch=2), (2, "m.002", False, 3)),
    "eval a file": (Request("eval", existing=MODELS, load="x.007.index"), (7, "x.007", False, 8)),
    "eval a file as some epoch": (Request("search", load="x.007", load_epoch=2), (2, "x.007", False, 3)),
    "search at random": (Request("search", allow_random=True), (1, None, False, 2)),
    "start_epoch is for training": (Request("forward", existing=MODELS, start_epoch=1), (3, "m.003", True, 4)),
}


@pytest.mark.parametrize("name", CASES)
def test_choice(name):
    request, (epoch, filename, resume, start) = CASES[name]
    start_point = choose_start(request)
    assert (start_point.epoch, start_point.filename, start_point.resume, start_point.start_epoch) == (
        epoch,
        filename,
        resume,
        start,
    )


ERRORS = {
    "There was also no model found": Request("search"),
    "must be the epoch of an existing model": Request("eval", existing=MODELS, load_epoch=4),
    "`start_epoch` 4 continues with a fresh optimizer": Request(stored=MODELS),
    "must be one more than an existing epoch": Request(existing=MODELS, start_epoch=6),
}


@pytest.mark.parametrize("text", ERRORS)
def test_refusal(text):
    with pytest.raises(ConfigError, match=text):
        choose_start(ERRORS[text])


def test_notes():
    assert choose_start(Request(existing=MODELS, load="x")).notes == (
        "note: there is a 'load' which we ignore because of existing model",
    )
    assert choose_start(Request(existing=MODELS, start_epoch=1)).notes == (
        "warning: there is an existing model: (3, 'm.003')",
    )
    assert choose_start(Request()) == StartPoint()


def test_names(tmp_path):
    assert [strip_suffix(n) for n in ("m.003.pt", "m.003.opt.pt", "m.003.index", "m.003")] == ["m.003"] * 4
    assert epoch_of_file("dir.5/m.pretrain.012") == 12
    assert epoch_of_file("dir.5/m") is None
    (tmp_path / "m.004.pt").touch()
    os.symlink("m.004.pt", tmp_path / "best.pt")
    assert epoch_of_file(str(tmp_path / "best")) == 4
    assert model_file(str(tmp_path / "m.004.meta")) == str(tmp_path / "m.004.pt")
    assert model_file(str(tmp_path / "m.005")) is None


def test_existing_models(tmp_path):
    for name in (
        "m.001.pt",
        "m.002.pt",
        "m.002.opt.pt",
        "m.pretrain.003.pt",
        "m.003.pt.tmp",
        "m.1000.pt",
        "m.000.pt",
        "x.001.pt",
    ):
        (tmp_path / name).touch()
    model = str(tmp_path / "m")
    assert list(existing_models(model, 0)) == [1, 2, 3, 1000]
    assert existing_models(model, 5)[3] == model + ".pretrain.003"
    assert list(existing_models(model, 5, resumable=True)) == [2]
    assert existing_models(None, 5) == existing_models(str(tmp_path / "no" / "m"), 5) == {}
