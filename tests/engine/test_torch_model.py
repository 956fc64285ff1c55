"""Models written in torch: trained, resumed, forwarded, searched; what is wrong is told."""

import math
import re

import h5py
import numpy as np
import pytest
import torch

from returnn_lite.errors import ConfigError
from returnn_lite.frontend import Dim, ForwardCallback, batch_dim, get_run_ctx
from tests.engine import torch_models
from tests.engine.helpers import CONFIG_FILE, dataset, rnn, run
from tests.engine.torch_models import Net, options


def model(folder, epoch, suffix="pt"):
    return torch.load(folder / f"model.{epoch:03d}.{suffix}", weights_only=True)


def same(a, b):
    assert a["model"].keys() == b["model"].keys()
    return all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])


def rates(folder):
    return re.sub(r"':meta:epoch_train_time_secs': \d+,\n", "", (folder / "rates").read_text())


def last_dev(folder):
    return float(re.findall(r"'dev_loss_ce': (.*),", (folder / "rates").read_text())[-1])


# --- training ---------------------------------------------------------------------------------------------------------


def test_trains_and_reports_every_loss(tmp_path):
    lines = run(options(tmp_path, num_epochs=12, learning_rate=0.05))
    keys = set(re.findall(r"'((?:train|dev)_[a-z_]+)'", (tmp_path / "rates").read_text()))
    assert keys == {"train_loss_ce", "train_loss_fer", "dev_loss_ce", "dev_loss_fer"}
    assert last_dev(tmp_path) < 0.3
    assert any("(norm): BatchNorm1d(5" in line for line in lines) and "net params #: 70" in lines


def test_checkpoints_have_the_names_of_the_module(tmp_path):
    run(options(tmp_path, num_epochs=1))
    content = model(tmp_path, 1)
    assert list(content["model"]) == list(Net().state_dict()) and content["step"] == 5
    Net().load_state_dict(content["model"])
    assert list(content)[1:] == ["epoch", "step", "effective_learning_rate", "returnn_version"]


@pytest.mark.parametrize(("changes", "states"), [
    ({"num_epochs": 4}, [3, 4]),
    ({"num_epochs": 4, "save_interval": 2}, [4]),  # that of two epochs before goes
    ({"num_epochs": 7, "save_interval": 3}, [3, 6, 7]),
    ({"num_epochs": 3, "apply_cleanup_old_models_to_optim_states": True}, [1, 2, 3]),
])  # fmt: skip
def test_which_optimizer_states_stay(tmp_path, changes, states):
    lines = run(options(tmp_path, **changes))
    assert sorted(path.name for path in tmp_path.glob("*.opt.pt")) == [f"model.{n:03d}.opt.pt" for n in states]
    for suffix, kind in ((".pt", "model"), (".opt.pt", "optimizer")):
        assert lines.count(f"Save {kind} under {tmp_path}/model.{states[-1]:03d}{suffix}") == 1


def test_what_the_learning_rate_file_says_of_an_epoch(tmp_path):
    run(options(tmp_path, num_epochs=2))
    facts = re.findall(r"':meta:(.*)': (.*),", (tmp_path / "rates").read_text())
    assert [value for name, value in facts if name.startswith("global_train_step")] == ["0", "5", "5", "10"]
    assert {("device", "'cpu'"), ("torch", f"'{torch.__version__}'"), ("distributed", "None")} <= set(facts)


VARIANTS = {
    "plain": {},
    "averages": {"weight_averaging": {"kind": "ema", "decay": 0.9}},
    "schedule": {
        "lr_scheduler": {"class": "OneCycleLR", "max_lr": 0.1, "total_steps": 40, "interval": "step"},
        "learning_rate_control": None,
    },
    "accumulated and clipped": {"accum_grad_multiple_step": 2, "gradient_clip_global_norm": 1.0},
    "groups": {
        "optimizer": {
            "class": "adamw", "weight_decay": 0.1,
            "param_groups": [{"layer": "out", "lr_multiplier": 0.5}, {"kind": "norm", "freeze_until_epoch": 2}],
        }
    },
    "closure": {"optimizer": {"class": "torch.LBFGS"}, "learning_rate": 0.1},
}  # fmt: skip


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_two_and_two_epochs_are_four(tmp_path, changes):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(options(whole, num_epochs=4, **changes))
    run(options(parts, num_epochs=2, **changes))
    run(options(parts, num_epochs=4, **changes))
    assert same(model(whole, 4), model(parts, 4)) and rates(whole) == rates(parts)
    if "weight_averaging" in changes:
        assert same(model(whole, 4, "avg.pt"), model(parts, 4, "avg.pt"))
        assert not same(model(whole, 4), model(whole, 4, "avg.pt"))


def test_averages_are_evaluated_with_the_running_statistics_of_the_model(tmp_path):
    run(options(tmp_path, num_epochs=2, weight_averaging={"kind": "ema", "decay": 0.9}))
    plain, averaged = model(tmp_path, 2)["model"], model(tmp_path, 2, "avg.pt")["model"]
    assert not torch.equal(plain["out.weight"], averaged["out.weight"])
    assert torch.equal(plain["norm.running_mean"], averaged["norm.running_mean"])


def test_what_is_reported_of_losses(tmp_path):
    """Sums by the number of entries or the norm factor, whatever the scale; errors too."""
    seen = {}

    def train_step(*, model, extern_data, run_ctx, **_):
        frames = model(extern_data["data"].raw_tensor)[..., 0]
        plain = frames.detach()
        dims = extern_data["data"].dims[:2]
        run_ctx.mark_as_loss(frames, "a", dims=dims)
        run_ctx.mark_as_loss(frames, "b", dims=dims, scale=0.5, use_normalized_loss=True)
        run_ctx.mark_as_loss(frames.sum(), "c", scale=0.0, custom_inv_norm_factor=torch.tensor(4))
        run_ctx.mark_as_loss(frames, "d", dims=dims, as_error=True)
        lengths = extern_data["data"].dims[1].dyn_size_ext.raw_tensor
        valid = [row[:n] for row, n in zip(plain.tolist(), lengths.tolist(), strict=True)]
        total, count = sum(map(sum, valid)), sum(map(len, valid))
        seen.update(
            {"a": total / count, "b": total / count, "c": float(plain.sum()) / 4, "d": total / count}
        )  # fmt: skip

    lines = run(options(tmp_path, num_epochs=1, train_step=train_step, train=dataset(3, 1), dev=None))
    line = next(line for line in lines if line.startswith("ep 1 train, step 0"))
    for name, value in seen.items():
        assert float(re.search(rf" {name} ([-\d.e+]+),", line)[1]) == pytest.approx(value, rel=1e-3, abs=5e-4)


def test_only_the_training_may_be_stopped_by_its_scores(tmp_path):
    def train_step(*, model, extern_data, **kwargs):
        torch_models.train_step(model=model, extern_data=extern_data)
        ctx = get_run_ctx()
        ctx.mark_as_loss(torch.tensor([1.0 if ctx.train_flag else math.inf]), "bound", scale=0)

    lines = run(options(tmp_path, num_epochs=2, train_step=train_step))
    assert sum(line.startswith("Epoch ") and line.endswith(" bound inf") for line in lines) == 2
    assert (tmp_path / "rates").read_text().count("'dev_loss_bound': float('inf')") == 2


def test_losses_without_axes_count_all_entries(tmp_path):
    def train_step(*, model, extern_data, **_):
        loss = model(extern_data["data"].raw_tensor)
        get_run_ctx().mark_as_loss(loss, "x")
        assert loss.numel() > 0 and get_run_ctx().train_flag == model.training

    lines = run(options(tmp_path, num_epochs=1, train_step=train_step))
    assert lines[-1].startswith("Finished training at epoch 1, global train step ")


def test_mixed_precision(tmp_path):
    types = set()

    def train_step(*, model, **kwargs):
        types.add(model.hidden(torch.zeros(1, 4)).dtype)
        torch_models.train_step(model=model, **kwargs)

    run(options(tmp_path, num_epochs=1, train_step=train_step, torch_amp="bfloat16"))
    assert types == {torch.bfloat16} and model(tmp_path, 1)["model"]["hidden.weight"].dtype == torch.float32


def test_a_module_that_grows(tmp_path):
    """With `reinit_network_each_epoch`; resumed, too."""
    steps = []

    def get_model(epoch, step):
        steps.append((epoch, step))
        net = Net()
        net.out = torch.nn.Sequential(net.out, *(torch.nn.Linear(4, 4) for _ in range(epoch)))
        return net

    changes = {"get_model": get_model, "reinit_network_each_epoch": True}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(options(whole, num_epochs=3, **changes))
    assert steps == [(1, 0), (2, 5), (3, 10)] and "out.3.weight" in model(whole, 3)["model"]
    run(options(parts, num_epochs=2, **changes))
    run(options(parts, num_epochs=3, **changes))
    assert same(model(whole, 3), model(parts, 3))


def test_shared_parameters_are_one(tmp_path):
    class Tied(Net):
        def __init__(self):
            super().__init__()
            self.again = self.out

    run(options(tmp_path, num_epochs=1, get_model=Tied))
    saved = model(tmp_path, 1)["model"]  # under all names, as torch has it
    assert saved["again.weight"].data_ptr() == saved["out.weight"].data_ptr()
    run(options(tmp_path, num_epochs=2, get_model=Tied))


def test_files_of_other_programs_keep_their_step(tmp_path):
    torch.save({"model": Net().state_dict(), "epoch": 7, "step": 70}, tmp_path / "other.007.pt")
    preload = {"x": {"filename": str(tmp_path / "other.007.pt"), "init_for_train": True}}
    run(options(tmp_path, num_epochs=1, import_model_train_epoch1=str(tmp_path / "other.007.pt")))
    assert model(tmp_path, 1)["step"] == 75
    run(options(tmp_path / "second", num_epochs=1, preload_from_files=preload))
    assert model(tmp_path / "second", 1)["step"] == 5


def test_undecayed_parameters_are_those_of_the_classes(tmp_path):
    """With `weight_decay` biases, layer norms and embeddings are left alone; a batch norm is not."""

    class Normed(Net):
        def __init__(self):
            super().__init__()
            self.after = torch.nn.LayerNorm(4)

    seen = {}

    def check(*, module, full_param_name, **_):
        seen.setdefault(type(module).__name__, set()).add(full_param_name)

    optimizer = {"class": "adamw", "weight_decay": 0.1, "weight_decay_custom_include_check": check}
    lines = run(options(tmp_path, num_epochs=1, get_model=Normed, optimizer=optimizer))
    groups = [line for line in lines if line.startswith("optimizer ")]
    plain = next(line for line in groups if "'weight_decay': 0.0" in line)
    assert "out.bias" in plain and "after.weight" in plain and "norm.weight" not in plain
    assert seen["Linear"] == seen["BatchNorm1d"] == {"weight", "bias"}  # names without the module's


# --- other tasks ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    run(options(folder, num_epochs=8, learning_rate=0.05))
    return folder


def use(folder, tmp_path, task, **changes):
    eval_data = dataset(6, 2)
    return run(options(folder, task=task, eval=eval_data, num_epochs=8, output_file=str(tmp_path / "out"), **changes))


def test_eval_gives_the_scores_of_the_training(trained, tmp_path):
    before = (trained / "rates").read_text()
    lines = use(trained, tmp_path, "eval", load_epoch=8, learning_rate_file=None)
    assert lines[-1].startswith(f"Epoch 8 evaluation: dev: ce {last_dev(trained):.3f} fer ")
    assert (trained / "rates").read_text() == before


def test_forward_to_hdf(trained, tmp_path):
    def forward_step(*, model, extern_data, run_ctx):
        data = extern_data["data"]
        log_probs = model(data.raw_tensor)
        run_ctx.mark_as_output(log_probs.argmax(-1), "best", dims=data.dims[:2])
        run_ctx.mark_as_default_output(log_probs, shape=[*data.dims[:2], 4])

    use(trained, tmp_path, "forward", forward_step=forward_step)
    with h5py.File(tmp_path / "out") as file:
        lengths, frames = file["seqLengths"][:, 0], file["inputs"][:]
        best = file["targets/data/best"][:]
    assert sum(lengths) == len(frames) == len(best) and frames.shape[1] == 4
    assert np.array_equal(frames.argmax(1), best)
    assert np.allclose(np.exp(frames).sum(1), 1, atol=1e-5)


def test_forward_to_a_callback(trained, tmp_path):
    calls = []

    class Callback(ForwardCallback):
        def init(self, *, model):
            calls.append(type(model))

        def process_seq(self, *, seq_tag, outputs):
            found = outputs["log_probs"]
            assert isinstance(found.raw_tensor, np.ndarray) and found.dims[0].get_dim_value() == len(found.raw_tensor)
            calls.append((seq_tag, found.raw_tensor.shape))

        def finish(self):
            calls.append("end")

    for callback in (Callback, Callback(), lambda: Callback()):
        calls.clear()
        use(trained, tmp_path, "forward", forward_callback=callback)
        assert calls[0] is Net and calls[-1] == "end"
        lengths = sorted((len(seq["data"]) for seq in dataset(6, 2)["data"]), reverse=True)  # longest first
        assert [shape for _, shape in calls[1:-1]] == [(n, 4) for n in lengths]
    use(trained, tmp_path, "forward", forward_callback=Callback, sort_dataset=False)
    assert [shape[0] for _, shape in calls[-7:-1]] == lengths[::-1]
    assert not (tmp_path / "out").exists()


def test_a_layer_net_has_callbacks_too(tmp_path):
    from tests.engine.helpers import options as layer_options

    tags = []

    class Callback(ForwardCallback):
        def process_seq(self, *, seq_tag, outputs):
            tags.append((seq_tag, outputs["output"].raw_tensor.shape[1]))

    run(layer_options(tmp_path, num_epochs=1))
    run(
        layer_options(
            tmp_path, num_epochs=1, task="forward", eval=dataset(3, 1), forward_batch_size=30, forward_callback=Callback
        )
    )
    assert sorted(tags) == [(f"seq-{i}", 4) for i in range(3)]


TIME = Dim(None, name="out-time")
HALF = {"log_probs": {"dims": [batch_dim, TIME, Dim(4, name="classes")]}}


@pytest.mark.parametrize("way", ["declared", "given", "derived"])
def test_axes_with_new_lengths(trained, tmp_path, way):
    def forward_step(*, model, extern_data, run_ctx):
        data = extern_data["data"]
        log_probs = model(data.raw_tensor)[:, ::2]
        lengths = (data.dims[1].dyn_size_ext.raw_tensor + 1) // 2
        if way == "declared":
            run_ctx.expected_outputs["log_probs"].dims[1].dyn_size_ext.raw_tensor = lengths
            run_ctx.mark_as_output(log_probs, "log_probs")
        elif way == "given":
            run_ctx.mark_as_output(log_probs, "log_probs", dims=[batch_dim, Dim(lengths, name="half"), 4])
        else:
            run_ctx.mark_as_output(log_probs, "log_probs", dims=[batch_dim, data.dims[1].ceildiv(2), 4])

    outputs = {"log_probs": {"dim": 4, "shape": (None, 4)}} if way == "declared" else {}
    use(trained, tmp_path, "forward", forward_step=forward_step, model_outputs=outputs)
    lengths = sorted((math.ceil(len(seq["data"]) / 2) for seq in dataset(6, 2)["data"]), reverse=True)
    with h5py.File(tmp_path / "out") as file:
        assert file["seqLengths"][:, 0].tolist() == lengths and len(file["inputs"]) == sum(lengths)


def test_forward_in_mixed_precision(trained, tmp_path):
    use(trained, tmp_path, "forward", torch_amp="bfloat16", forward_step=in_less)
    with h5py.File(tmp_path / "out") as file:
        assert file["inputs"].dtype == "float32" and file["inputs"].shape[1] == 5


def in_less(*, model, extern_data, run_ctx):
    data = extern_data["data"]
    hidden = model.hidden(data.raw_tensor)
    assert hidden.dtype == torch.bfloat16
    run_ctx.mark_as_output(hidden, "hidden", dims=[*data.dims[:2], 5])


def test_search_writes_what_forward_step_found(trained, tmp_path):
    labels = {"vocab": {"class": "Vocabulary", "labels": ["a", "b", "c", "d"]}}

    def forward_step(*, model, extern_data, run_ctx):
        data, classes = extern_data["data"], extern_data["classes"]
        run_ctx.expected_outputs["output"].dims[1].dyn_size_ext.raw_tensor = data.dims[1].dyn_size
        run_ctx.mark_as_output(model(data.raw_tensor).argmax(-1), "output")
        assert classes.sparse_dim is not None

    extern = {"data": {"dim": 4}, "classes": {"dim": 4, "sparse": True, **labels}}
    lines = use(
        trained, tmp_path, "search", search_output_file=str(tmp_path / "found"), extern_data=extern,
        forward_step=forward_step, model_outputs={"output": {"sparse_dim": CLASSES, "shape": (None,)}},
        target="classes",
    )  # fmt: skip
    found = (tmp_path / "found").read_text().splitlines()
    assert len(found) == 6 and set(" ".join(found).split()) <= set("abcd")
    assert re.fullmatch(r"Search done. Num steps \d+, Final: score 0\.\d+ error 0\.\d+", lines[-1])


CLASSES = Dim(4, name="classes")


def test_priors(trained, tmp_path):
    def forward_step(*, model, extern_data, run_ctx):
        data = extern_data["data"]
        run_ctx.mark_as_output(model(data.raw_tensor).exp(), "output", dims=[*data.dims[:2], 4])

    use(trained, tmp_path, "compute_priors", forward_step=forward_step)
    assert np.exp(np.loadtxt(tmp_path / "out")).sum() == pytest.approx(1.0, abs=1e-5)


def test_a_fresh_model_is_saved(tmp_path):
    run(options(tmp_path, task="initialize_model"))
    fresh = torch.load(tmp_path / "model.pt", weights_only=True)
    run(options(tmp_path / "run", num_epochs=1, save_epoch1_initial_model=True))
    assert same(fresh, model(tmp_path / "run", 0))


def test_keys_that_are_not_there_for_inference(trained, tmp_path):
    seen = []

    def forward_step(*, model, extern_data, run_ctx, **_):
        seen.append(set(extern_data))
        torch_models.forward_step(model=model, extern_data=extern_data, run_ctx=run_ctx)

    extern = {"data": {"dim": 4}, "classes": {"dim": 4, "sparse": True, "available_for_inference": False}}
    use(trained, tmp_path, "forward", forward_step=forward_step, extern_data=extern)
    assert seen[0] == {"data", "seq_tag"}


def test_a_layer_dict_under_the_torch_backend_is_a_layer_dict(tmp_path):
    from tests.engine.helpers import options as layer_options

    run(layer_options(tmp_path, use_tensorflow=None, backend="torch", num_epochs=1))
    assert "h/W" in model(tmp_path, 1)["model"]


# --- what is wrong ----------------------------------------------------------------------------------------------------


def marks(**options):
    def train_step(*, model, extern_data, run_ctx):
        run_ctx.mark_as_loss(model(extern_data["data"].raw_tensor), "x", **options)

    return train_step


def nothing(**_):
    pass


def constant(*, run_ctx, **_):
    run_ctx.mark_as_loss(1.0, "x")


def twice(**arguments):
    torch_models.train_step(**arguments)
    torch_models.train_step(**arguments)


def misplaced(*, model, run_ctx, **_):
    run_ctx.mark_as_output(model.out.weight, "x", dims=[4, 5])


def broken(*, model, extern_data, run_ctx):
    run_ctx.mark_as_loss(model(extern_data["data"].raw_tensor).sum() / 0, "x")


def wrong_key(*, extern_data, **_):
    extern_data["dta"]


async def waits(**_):
    return torch_models.Net()


def yields(**_):
    yield 1


WRONG = {
    "async get_model": ({"get_model": waits}, r"get_model: must be a plain function, .* without `async`"),
    "train_step yields": ({"train_step": yields}, r"train_step: must be a plain function, .* without `yield`"),
    "no train_step": ({"train_step": None}, r"train_step: `train_step` must be a function for this task"),
    "no get_model": ({"get_model": None}, r"get_model: `get_model` must be a function"),
    "train_step is no function": ({"train_step": 3}, r"train_step: `train_step` must be a function, but is 3"),
    "no module": ({"get_model": lambda: 7}, r"get_model: must return an rf.Module or torch.nn.Module, but returned 7"),
    "another argument": (
        {"train_step": lambda *, modle, extern_data: 0}, r'train_step: .*needs `modle`; did you mean "model"',
    ),
    "other backend": ({"backend": "tensorflow"}, r'backend: `backend` must be "torch".*tensorflow'),
    "a net as well": ({"network": {"output": {}}}, r"network: .*exclude each other"),
    "pretraining": ({"pretrain": {"copy_param_mode": "subset"}}, r"pretrain: .*exclude each other"),
    "option of torch_amp": ({"torch_amp": {"dtyp": "bfloat16"}}, r'torch_amp\["dtyp"\]: .*did you mean "dtype"'),
    "no loss": ({"train_step": nothing}, r"train_step: must mark a loss"),
    "loss without parameters": ({"train_step": constant}, r"train_step: the losses \(x\) do not depend"),
    "loss marked twice": ({"train_step": twice}, r"train_step: loss 'ce' is marked twice"),
    "too few axes": ({"train_step": marks(dims=[batch_dim])}, r"loss 'x' must have the axes \[batch"),
    "unknown lengths": (
        {"train_step": marks(dims=[batch_dim, TIME, 4])}, r"train_step: the lengths of axis out-time.* are not known",
    ),
    "output in train_step": ({"train_step": misplaced}, r"train_step: mark_as_output must be called in `forward_step`"),
    "broken loss": ({"train_step": broken}, r"Inf/nan score in ep 1 train, step 0: cost:x"),
    "unknown key": ({"train_step": wrong_key}, r"unknown tensor 'dta'; did you mean .data."),
    "outputs that are no dict": ({"model_outputs": {"x": 3}}, r'model_outputs\["x"\]: must be a dict of options'),
    "nothing to train": ({"get_model": torch.nn.Identity}, r"get_model: must have trainable parameters"),
}  # fmt: skip


@pytest.mark.parametrize("changes, pattern", WRONG.values(), ids=WRONG)
def test_wrong_configs(tmp_path, changes, pattern):
    with pytest.raises(ConfigError) as caught:
        run(options(tmp_path, **changes))
    assert re.search(pattern, str(caught.value).split("\n")[0]), str(caught.value)
    assert not list(tmp_path.glob("model*"))


def unnamed(*, model, extern_data, run_ctx):
    run_ctx.mark_as_output(model(extern_data["data"].raw_tensor)[0], "x")


def other_names(*, model, extern_data, run_ctx):
    for name in ("x", "y"):
        run_ctx.mark_as_output(extern_data["data"].raw_tensor, name, dims=extern_data["data"].dims)


def without_batch(*, model, run_ctx, **_):
    run_ctx.mark_as_output(model.out.weight, "x", dims=[4, 5])


def returns(*, model, extern_data, run_ctx):
    return extern_data["data"]


WRONG_FORWARD = {
    "output returned": ({"forward_step": returns}, r"forward_step: must mark an output: .*; what it returns is not"),
    "no forward_step": ({"forward_step": None}, r"forward_step: `forward_step` must be a function"),
    "no axes": (
        {"forward_step": unnamed},
        r"forward_step: output 'x' must have the \d+ sequences of the batch as first axis",
    ),
    "no output": ({"forward_step": nothing}, r"forward_step: must mark an output 'output'; it marked none"),
    "none is the main output": ({"forward_step": other_names}, r"must mark an output 'output'; it marked 'x', 'y'"),
    "no batch axis": ({"forward_step": without_batch}, r"output 'x' must have a batch axis"),
    "callback that is none": ({"forward_callback": 3}, r"forward_callback: must have the methods.*3 lacks `init`"),
    "callback without methods": ({"forward_callback": dict}, r"forward_callback: must have the methods.*lacks `init`"),
}


@pytest.mark.parametrize("changes, pattern", WRONG_FORWARD.values(), ids=WRONG_FORWARD)
def test_wrong_forward(trained, tmp_path, changes, pattern):
    with pytest.raises(ConfigError, match=pattern):
        use(trained, tmp_path, "forward", **changes)
    assert not (tmp_path / "out").exists()


def test_the_context_outside_of_steps():
    assert get_run_ctx().stage == "init" and not get_run_ctx().train_flag


CONFIG = CONFIG_FILE.replace("tests.engine.helpers", "tests.engine.torch_models")


def test_one_clear_line_on_the_command_line(tmp_path):
    (tmp_path / "config").write_text(CONFIG + "\ndel train_step\n")
    done = rnn("config", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.split("\n")[0].startswith("train_step: `train_step` must be a function")
