"""The error type: its text, several at once, suggestions, copies between processes."""

import pickle

import pytest

from returnn_lite.errors import ConfigError, ConfigErrors, closest, did_you_mean


def test_text():
    assert (
        str(ConfigError('network["h"]', "must be x, but is y instead")) == 'network["h"]: must be x, but is y instead'
    )
    assert str(ConfigError("", "no task")) == "no task"


def test_several_errors_are_one_line_each():
    errors = ConfigErrors([ConfigError("a", "is bad"), ConfigError("b", "is worse")])
    assert str(errors) == "a: is bad\nb: is worse"
    assert (errors.path, errors.message, len(errors.errors)) == ("a", "is bad", 2)
    with pytest.raises(ConfigError):
        raise errors


@pytest.mark.parametrize("error", [ConfigError("a", "b"), ConfigErrors([ConfigError("a", "b"), ConfigError("", "c")])])
def test_errors_travel_between_processes(error: ConfigError):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error) and str(copy) == str(error)


def test_did_you_mean():
    assert did_you_mean("linaer", ["softmax", "linear"]) == '; did you mean "linear"?'
    assert did_you_mean("NUM_epochs", ["num_epoch", "num_epochs"]) == '; did you mean "num_epochs"?'
    assert did_you_mean("xyz", ["softmax", "linear"]) == ""
    assert did_you_mean("a", []) == ""
    assert closest("batchsize", ["batch_size"], 0.99) is None


def test_of_equally_similar_names_the_first_wins():
    assert closest("ax", ["axb", "axa"]) == "axb"
    assert closest("ax", ["axa", "axb"]) == "axa"
    assert closest("ax", ["axis", "axa", "axb"]) == "axa"
