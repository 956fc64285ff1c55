"""What functions of configs for models written in torch are told, and when: learning rates within epochs, models."""

import pytest
import torch

from returnn_lite.frontend import get_run_ctx
from tests.engine.helpers import dataset, run
from tests.engine.torch_models import Net, options


def model(folder, epoch):
    return torch.load(folder / f"model.{epoch:03d}.pt", weights_only=True)


def test_a_learning_rate_by_parts_of_epochs(tmp_path):
    asked = []

    def rate(*, global_train_step, epoch, epoch_continuous, learning_rate, **_):
        asked.append((global_train_step, epoch, epoch_continuous))
        return learning_rate * 2.0**-epoch_continuous

    run(options(tmp_path, num_epochs=2, dynamic_learning_rate=rate, learning_rate_control=None))
    assert {epoch for _, epoch, _ in asked} == {1, 2} and all(e - 1 <= part <= e for _, e, part in asked)
    assert [part for *_, part in asked] == sorted(part for *_, part in asked)
    # A step goes by what was done before it, a batch is done with its last sequence; checkpoints have the next rate.
    first = {step: part for step, _, part in reversed(asked)}
    assert (first[0], first[5], asked[-1]) == (0.0, 1.0, (10, 2, 2.0))
    where = [call[:2] for call in asked]  # at the start, with the rate of an epoch and at its begin, after each batch
    first, second = [(step, 1) for step in (0, 0, 0, 1, 2, 3, 4, 5, 5)], [(step, 2) for step in range(5, 11)]
    assert where == first + second
    assert model(tmp_path, 2)["effective_learning_rate"] == pytest.approx(0.02 / 4)


@pytest.mark.parametrize("known", [True, False])
def test_epochs_of_unknown_length_have_no_parts(tmp_path, known):
    asked = []

    def rate(*, epoch_continuous, learning_rate, **_):
        asked.append(epoch_continuous)
        return learning_rate

    def every(*, epoch_continuous, **_):
        asked.append(epoch_continuous)
        return 1

    stream = {"class": "PostprocessingDataset", "dataset": dataset(4, 1), "map_seq_stream": lambda seqs, **_: seqs}
    train = {**stream, "map_seq_stream_preserves_num_seqs": known}
    changes = {"dynamic_learning_rate": rate, "accum_grad_multiple_step": every, "learning_rate_control": None}
    lines = run(options(tmp_path, train=train, num_epochs=1, **changes))
    assert [part for part in asked if part is not None and part > 0] == [] if not known else 1.0 in asked
    assert (None in asked) == (not known)
    steps = [line for line in lines if line.startswith("ep 1 train, step ")]
    assert steps and all(("exp. remaining" in line) == known == (", complete " in line) for line in steps)


def test_get_model_knows_epoch_and_step(tmp_path):
    asked = []

    def get_model(epoch, step):
        asked.append((epoch, step, get_run_ctx().stage))
        return Net()

    run(options(tmp_path, num_epochs=2, get_model=get_model))
    run(options(tmp_path, num_epochs=3, get_model=get_model))
    run(options(tmp_path, task="eval", load_epoch=1, get_model=get_model))
    assert asked == [(1, 0, "init"), (2, 9, "init"), (1, 4, "init")]  # the last step of those before
    asked.clear()
    other, file = tmp_path / "other", str(tmp_path / "model.002.pt")
    run(options(other, num_epochs=1, get_model=get_model, import_model_train_epoch1=file))
    run(options(tmp_path / "third", num_epochs=3, get_model=get_model, load=file))
    run(options(tmp_path / "fourth", num_epochs=1, get_model=get_model, load=file, start_epoch=1))
    assert [epoch for epoch, *_ in asked] == [0, 2, 2]


def test_get_model_may_ask_for_the_device(tmp_path):
    asked = []

    def get_model(*, epoch, step, device, **_):
        asked.append(device)
        return Net().to(device)

    run(options(tmp_path, num_epochs=1, get_model=get_model))
    assert asked == ["cpu"]
