"""Tasks without training: eval, forward, search, and the small ones."""

import ast
import gzip

import h5py
import numpy as np
import pytest
import torch

from returnn_lite.engine.tasks import search
from returnn_lite.engine.tasks.hypotheses import hypotheses
from returnn_lite.errors import ConfigError
from returnn_lite.tensor import Dim, Spec, Tensor, batch_dim
from returnn_lite.tensor.lengths import Lengths
from returnn_lite.tensor.tensor import Beam
from tests.engine.helpers import dataset, network, options, run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    run(options(folder, num_epochs=2))
    return folder


def after(trained, task, **changes):
    """Options of a task on the trained model; its learning-rate file is left as it is."""
    return options(trained, num_epochs=2, **{"task": task, "learning_rate_file": None, "model": None, **changes})


def load(trained):
    return str(trained / "model.002")


# --- eval -----------------------------------------------------------------------------------------------------------


def test_eval(trained, tmp_path):
    out, rates = tmp_path / "scores", tmp_path / "rates"
    rates.write_text((trained / "rates").read_text())
    changes = {"eval": dataset(3, 5), "eval_datasets": {"more": dataset(3, 6)}, "eval_output_file": str(out)}
    changes |= {"learning_rate_file": str(rates), "model": str(trained / "model")}
    lines = run(after(trained, "eval", load_epoch=2, **changes))
    found = ast.literal_eval(out.read_text())
    assert list(found) == ["dev", "eval", "more"] and list(found["dev"]) == ["error", "score"]
    assert f"'dev_score': {found['dev']['score']['cost:output']}," in (trained / "rates").read_text()
    assert "'more_score'" in rates.read_text() and rates.read_text().count("'eval_score'") == 1
    assert lines[-1].startswith("dev: score ") and " eval: score " in lines[-1] and " more: score " in lines[-1]


def test_eval_of_a_file_leaves_the_rates(trained, tmp_path):
    rates = tmp_path / "rates"
    rates.write_text("{1: EpochData(learningRate=0.1, error={})}\n")
    run(after(trained, "eval", load=load(trained), learning_rate_file=str(rates)))
    assert rates.read_text() == "{1: EpochData(learningRate=0.1, error={})}\n"


def test_eval_needs_an_epoch(trained):
    with pytest.raises(ConfigError, match="specify epoch or load_epoch"):
        run(after(trained, "eval"))
    with pytest.raises(ConfigError, match="`epoch` must be equal to `load_epoch` 2, but is 1"):
        run(after(trained, "eval", load_epoch=2, epoch=1))


# --- forward --------------------------------------------------------------------------------------------------------


def forward(trained, out, **changes):
    data = {"eval": dataset(3, 5), "forward_batch_size": 20, "output_file": str(out)}
    return run(after(trained, "forward", **{"load": load(trained), **data, **changes}))


def test_forward(trained, tmp_path):
    lines = forward(trained, tmp_path / "out.hdf")
    with h5py.File(tmp_path / "out.hdf") as file:
        lengths = file["seqLengths"][()]
        tags = [tag.decode() for tag in file["seqTags"][()]]
        inputs = file["inputs"][()]
        assert dict(file.attrs) == {
            "inputPattSize": 4, "numDims": 1, "numLabels": 4, "numSeqs": 3, "numTimesteps": len(inputs),
        }  # fmt: skip
    data = dataset(3, 5)["data"]
    assert sorted(tags) == ["seq-0", "seq-1", "seq-2"]
    assert lengths.tolist() == sorted([len(data[int(tag[-1])]["data"]), 0] for tag in tags)  # "sorted", by length
    assert inputs.dtype == np.float32 and np.allclose(inputs.sum(1), 1, atol=1e-5)
    assert f"Forwarding to HDF file: {tmp_path}/out.hdf" in lines
    assert any(line.startswith("epoch 2 forward, step 0, ") and "cost" not in line for line in lines)


def test_forward_of_another_layer(trained, tmp_path):
    net = {**network(), "best": {"class": "eval", "from": "output", "eval": "source(0) * 2"}}
    forward(trained, tmp_path / "out.hdf", network=net, forward_output_layer="best")
    with h5py.File(tmp_path / "out.hdf") as file:
        assert np.allclose(file["inputs"][()].sum(1), 2, atol=1e-5)


def test_forward_refusals(trained, tmp_path):
    (tmp_path / "there.hdf").touch()
    with pytest.raises(ConfigError, match="must not exist yet"):
        forward(trained, tmp_path / "there.hdf")
    forward(trained, tmp_path / "there.hdf", forward_override_hdf_output=True)
    with pytest.raises(ConfigError, match="forward_batch_size not set"):
        forward(trained, tmp_path / "new.hdf", forward_batch_size=None)
    with pytest.raises(ConfigError, match="no eval files specified"):
        forward(trained, tmp_path / "new.hdf", eval=None)
    with pytest.raises(ConfigError, match="no model found"):
        run(options(tmp_path, task="forward", eval=dataset(3, 5), forward_batch_size=20))
    assert not (tmp_path / "new.hdf").exists()


def test_forward_at_random(tmp_path):
    changes = {"eval": dataset(3, 5), "forward_batch_size": 20, "allow_random_model_init": True}
    run(options(tmp_path, task="hpx", output_file=str(tmp_path / "o.hdf"), **changes))
    assert (tmp_path / "o.hdf").exists()


# --- search ---------------------------------------------------------------------------------------------------------


def searched(trained, out, **changes):
    data = {"search_data": dataset(3, 5), "search_output_file": str(out), "search_output_file_format": "py"}
    return run(after(trained, "search", load=load(trained), **{**data, **changes}))


def test_search_of_dense_outputs(trained, tmp_path):
    lines = searched(trained, tmp_path / "out.py.gz")
    found = eval(gzip.open(tmp_path / "out.py.gz", "rt").read(), {"array": np.array, "float32": np.float32})
    assert list(found) == ["seq-0", "seq-1", "seq-2"]  # corpus order, whatever the processing order
    assert [len(value) for value in found.values()] == [len(seq["data"]) for seq in dataset(3, 5)["data"]]
    assert lines[-1].startswith("Search done. Num steps 1, Final: score ")
    assert "Dataset have_corpus_seq_idx == True, i.e. it will be sorted for optimal performance." in lines


def test_a_text_file_holds_no_arrays(trained, tmp_path):
    with pytest.raises(ConfigError, match=r'gives numbers .*, which are not text: name a .*"class": "ctc_decode"'):
        searched(trained, tmp_path / "out.txt", search_output_file_format="txt")
    net = {**network(), "labels": {"class": "ctc_decode", "from": "output", "target": "classes", "blank_index": None}}
    changes = {"network": net, "search_output_layer": "labels", "extern_data": VOCAB}
    searched(trained, tmp_path / "out.txt", search_output_file_format="txt", **changes)
    lines = (tmp_path / "out.txt").read_text().splitlines()
    assert len(lines) == 3 and all(set(line.split()) <= {"</s>", "a@@", "b", "c"} for line in lines)


@pytest.mark.parametrize("blank", [-1, 0])
def test_search_of_ctc(tmp_path, blank):
    """The labels of the output as they are greedily, without a layer for it, and the same by `ctc_decode`."""
    output = {"class": "softmax", "n_out": 5, "from": "data", "loss": "ctc", "target": "classes"}
    output["loss_opts"] = {"beam_width": 1, "use_native": True, "ctc_opts": {"blank_index": blank}}
    decoder = {"class": "ctc_decode", "from": "output", "target": "classes", "blank_index": blank}
    labels = ["<b>", "a", "b", "c", "d"] if blank == 0 else ["a", "b", "c", "d"]
    extern = {"data": {"dim": 4}, "classes": {"dim": len(labels), "sparse": True, "vocab": {"labels": labels}}}
    changes = {"network": {"output": output, "decoded": decoder}, "search_data": dataset(3, 5), "extern_data": extern}
    changes |= {"allow_random_model_init": True, "search_do_eval": False, "random_seed": 3}
    found = []
    for name in ("output", "decoded"):
        file = {"search_output_file": str(tmp_path / name), "search_output_layer": name}
        lines = run(options(tmp_path, task="search", **changes, **file))
        found.append((tmp_path / name).read_text().splitlines())
        assert any(line.startswith("output: the labels of CTC") for line in lines) == (name == "output")
    assert found[0] == found[1] and len(found[0]) == 3 and set(" ".join(found[0]).split()) <= set("abcd")
    assert any(found[0])


def test_search_without_losses(trained, tmp_path):
    data = {"class": "StaticDataset", "data": [{"data": seq["data"]} for seq in dataset(3, 5)["data"]]}
    changes = {"search_output_file_format": "py", "need_data": False}
    lines = searched(trained, tmp_path / "out", search_data=data, search_do_eval=0, **changes)
    assert lines[-1] == "Search done. Num steps 1, Final: score None error None"


REFUSALS = {
    "must not exist yet": {"search_output_file": __file__},
    'must be "txt" or "py", but is \'pyy\' instead; did you mean "py"': {"search_output_file_format": "pyy"},
    'must be "py" for several': {"search_output_layer": ["output", "h"], "search_output_file_format": "txt"},
    "must be 0 or unset for the search": {"max_seq_length": 7},
}


@pytest.mark.parametrize("text", REFUSALS)
def test_search_refusals(trained, tmp_path, text):
    with pytest.raises(ConfigError) as error:
        searched(trained, tmp_path / "out", **REFUSALS[text])
    assert text in str(error.value)


def hypothesis_tensor(beam):
    time = Dim(None, name="time")
    data = torch.tensor([[1, 2, 9], [3, 9, 9], [0, 0, 0], [1, 9, 9]], dtype=torch.int32)
    lengths = {time: Lengths(torch.tensor([2, 1, 3, 0], dtype=torch.int32), 3)}
    spec = Spec((batch_dim, time), "int32", sparse_dim=Dim(4, name="classes"))
    return Tensor(data, spec, lengths, beam)


def test_hypotheses():
    beam = Beam(2, torch.tensor([[-0.9892766, -1.5], [-0.1, float("-inf")]]), torch.zeros(4, dtype=torch.int64))
    best = hypotheses(hypothesis_tensor(beam), 2)
    assert [[(score, ids.tolist()) for score, ids in hyps] for hyps in best] == [
        [(-0.9892766, [1, 2]), (-1.5, [3])],
        [(-0.1, [0, 0, 0]), (float("-inf"), [])],
    ]
    decided = Beam(1, torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64), decided=True)
    for one in (None, decided):
        assert [row.tolist() for row in hypotheses(hypothesis_tensor(one), 4)] == [[1, 2], [3], [0, 0, 0], []]


def test_search_texts():
    results = [("a/1", [(-0.5, "d' a"), (float("-inf"), "")]), ("b", [(-1.0, "x"), (float("nan"), "y")])]
    text = search.py_text(results)
    assert text == "{\n'a/1': [\n(-0.5, \"d' a\"),\n(-inf, ''),\n],\n'b': [\n(-1.0, 'x'),\n(nan, 'y'),\n],\n}\n"
    assert search.txt_text(results[:1]) == "[(-0.5, \"d' a\"), (-inf, '')]\n"
    assert search.txt_text([("a", "x y"), ("b", "")]) == "x y\n\n"
    assert search.py_text([("a", "x y")]) == "{\n'a': 'x y',\n}\n"
    several = search.py_text([("a", {"output": [(-0.5, "x")], "decision": "x"})])
    assert several == "{\n'a': {\n'decision': 'x',\n'output': [\n(-0.5, 'x'),\n],\n},\n}\n"


def decoder(beam_size):
    """A label model: each label depends on the last one alone."""
    unit = {
        "output": {"class": "choice", "from": "prob", "target": "classes", "beam_size": beam_size, "initial_output": 0},
        "end": {"class": "compare", "kind": "equal", "from": "output", "value": 0},
        "embedding": {"class": "linear", "activation": None, "from": "prev:output", "n_out": 5},
        "prob": {"class": "softmax", "from": "embedding", "target": "classes", "loss": "ce"},
    }
    return {
        "output": {
            "class": "rec",
            "from": [],
            "target": "classes",
            "unit": unit,
            "max_seq_len": "max_len_from('base:data')",
        },
        "decision": {"class": "decide", "from": "output", "loss": "edit_distance", "target": "classes"},
    }


@pytest.fixture(scope="module")
def trained_decoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoder")
    run(options(folder, num_epochs=1, network=decoder(2)))
    return folder


VOCAB = {"data": {"dim": 4}, "classes": {"dim": 4, "sparse": True, "vocab": {"labels": ["</s>", "a@@", "b", "c"]}}}


def decoded(folder, out, beam_size=3, **changes):
    data = {"search_data": dataset(3, 5), "search_output_file": str(out), "extern_data": VOCAB, "max_seqs": 2}
    data["network"] = decoder(beam_size)
    return run(after(folder, "search", load=str(folder / "model.001"), **{**data, **changes}))


def test_search_to_text(trained_decoder, tmp_path):
    lines = decoded(trained_decoder, tmp_path / "a.txt", search_output_layer="decision")
    texts = (tmp_path / "a.txt").read_text().splitlines()
    assert len(texts) == 3 and all(set(text.split()) <= {"a@@", "b", "c"} for text in texts)
    assert " error decision " in lines[-1] or lines[-1].split()[-2] == "error"
    shown = [line for line in lines if line.startswith("  hyp: ")]
    assert sorted(line.removeprefix("  hyp: ") for line in shown) == sorted(texts)


def test_search_n_best(trained_decoder, tmp_path):
    decoded(trained_decoder, tmp_path / "a.py", search_output_file_format="py")
    found = eval((tmp_path / "a.py").read_text(), {"nan": float("nan"), "inf": float("inf")})
    assert list(found) == ["seq-0", "seq-1", "seq-2"] and all(len(hyps) == 3 for hyps in found.values())
    for hyps in found.values():
        scores = [score for score, _ in hyps]
        assert scores == sorted(scores, reverse=True) and all(float(np.float32(x)) != x or x == 0 for x in scores)
    decoded(trained_decoder, tmp_path / "one.txt", beam_size=1, search_output_layer="decision")
    both = {"search_output_layer": ["decision", "output"], "search_output_file_format": "py"}
    decoded(trained_decoder, tmp_path / "both.py", **both)
    layers = eval((tmp_path / "both.py").read_text(), {"nan": float("nan"), "inf": float("inf")})
    assert all(entry["output"][0][1] == entry["decision"] for entry in layers.values())


def test_classes_without_labels_are_numbers(trained_decoder, tmp_path):
    decoded(trained_decoder, tmp_path / "a", search_output_layer="decision")
    bare = {"data": {"dim": 4}, "classes": {"dim": 4, "sparse": True}}
    decoded(trained_decoder, tmp_path / "b", extern_data=bare, search_output_layer="decision")
    words, numbers = ((tmp_path / name).read_text().splitlines() for name in "ab")
    labels = dict(zip(" ".join(words).split(), " ".join(numbers).split(), strict=True))
    assert set(labels.values()) <= set("0123") and len(set(labels.values())) == len(labels)
    assert [" ".join(labels[word] for word in line.split()) for line in words] == numbers


def test_forward_of_a_decision(trained_decoder, tmp_path):
    changes = {"load": str(trained_decoder / "model.001"), "network": decoder(3), "forward_use_search": True}
    forward(trained_decoder, tmp_path / "a.hdf", forward_output_layer="decision", **changes)
    with h5py.File(tmp_path / "a.hdf") as file:
        assert file["inputs"].dtype == np.int32 and file["inputs"].ndim == 1 and len(file["seqTags"]) == 3
    with pytest.raises(ConfigError, match="still has a beam"):
        forward(trained_decoder, tmp_path / "b.hdf", forward_output_layer="output", **changes)
    assert not list(tmp_path.glob("*b.hdf*"))


# --- small tasks ----------------------------------------------------------------------------------------------------


def test_initialize_model(tmp_path):
    run(options(tmp_path, task="initialize_model"))
    assert "h/W" in torch.load(tmp_path / "model.pt", weights_only=True)["model"]
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_nop(tmp_path):
    assert run(options(tmp_path, task="nop")) == []
    lines = run(options(tmp_path, task="nop_init_net_train"))
    assert "net params #: 49" in lines and "    layer linear 'h' #: 5" in lines and not list(tmp_path.iterdir())


def test_functions_of_the_config(tmp_path):
    called = []
    run({"task": "config:hello", "hello": lambda: called.append(1)})
    run({"task": "optional-config:hello", "hello": lambda: called.append(2)})
    assert called == [1, 2]
    assert run({"task": "optional-config:hello"}) == ["No task found for 'optional-config:hello', so just quitting."]
    with pytest.raises(ConfigError, match='did you mean "hello"'):
        run({"task": "config:hallo", "hello": print})


def test_cleanup_task(trained, tmp_path):
    run(options(tmp_path, num_epochs=4))
    lines = run(options(tmp_path, num_epochs=4, task="cleanup_old_models"))
    assert lines[-1].startswith("Only 4 epochs stored so far")


def test_unknown_tasks():
    with pytest.raises(ConfigError, match="""unknown task: 'trian'; did you mean "train"\\?"""):
        run({"task": "trian"})
    with pytest.raises(ConfigError, match="task 'analyze_data' is not supported yet"):
        run({"task": "analyze_data"})


def test_extern_data_from_the_dataset(tmp_path):
    run(options(tmp_path, extern_data=None, num_epochs=1))
    assert (tmp_path / "model.001.pt").exists()
