"""Exceptions of a config's own code: one line, with the file's line number; eval strings that are wrong."""

import re
from pathlib import Path

import pytest

from returnn_lite.cli import main
from tests.engine.helpers import CONFIG_FILE, network

START = len(CONFIG_FILE.splitlines())
NET = network()
EVAL = {"class": "eval", "from": "data", "eval": "source(0)"}

# name -> (lines after those of the config, pattern of the first line on stderr)
CASES = {
    "get_network": (
        "def get_network(epoch):\n  return 1 / 0\n",
        r"a\.config:{2}: ZeroDivisionError: division by zero$",
    ),
    "assert": (
        "def get_network(epoch, size=4):\n  assert size == 3, 'other size'\n",
        r"a\.config:{2}: AssertionError: other size \(assert size == 3, where size = 4\)$",
    ),
    "task": ("task = 'config:main'\ndef main():\n  {}['key']\n", r"a\.config:{3}: KeyError: 'key'$"),
    "startup": ("startup_callback = lambda config: config.nothing\n", r"a\.config:{1}: AttributeError: .*nothing"),
    "eval function": (
        f"def f(source, **kwargs):\n  return source(0) + missing\nnetwork['h'] = {{**{EVAL}, 'eval': f}}\n",
        r'network\["h"\]: a\.config:{2}: NameError: name \'missing\' is not defined; inputs: ',
    ),
    "function of an eval string": (
        "def transform(x, **kwargs):\n  assert x is None\n"
        f"network['h'] = {{**{EVAL},"
        " 'eval': \"self.network.get_config().typed_value('transform')(source(0), network=self.network)\"}\n",
        r'network\["h"\]: a\.config:{2}: AssertionError: assert x is None, where x = ',
    ),
    "eval syntax": (
        f"network['h'] = {{**{EVAL}, 'eval': 'source(0) +* 2'}}\n",
        r'network\["h"\]: `eval` must be a Python expression, but \'source\(0\) \+\* 2\' is not one: invalid syntax',
    ),
    "eval name": (
        f"network['h'] = {{**{EVAL}, 'eval': 'sorce(0) * 2'}}\n",
        r'network\["h"\]: the name \'sorce\' in `eval` \'sorce\(0\) \* 2\' is not defined; did you mean "source"\?$',
    ),
    "activation name": (
        "network['h']['activation'] = 'tf.tanh(y)'\n",
        r'network\["h"\]: .*the name \'y\' in `activation` \'tf.tanh\(y\)\' is not defined',
    ),
    "initial values": (
        "def init(shape, generator, dtype):\n  raise OSError('no disk')\nnetwork['h']['forward_weights_init'] = init\n",
        r"network\[\"h\"\]: the initial values .* of parameter 'h/W' cannot be made: a\.config:{2}: OSError: no disk$",
    ),
    "imported module": ("import own_faulty_module\n", r"own_faulty_module\.py:2: SyntaxError: .*: b = = 1$"),
    "layer size": ("network['h']['n_out'] = 2**31 - 1\n", r'network\["h"\]: parameter \'h/W\' has the shape .* memory'),
    "trainable": ("network['h']['trainable'] = 'perhaps'\n", r'network\["h"\]: `trainable` must be a bool, but is'),
    "device": ("device = 'cuda:x'\n", r'device: `device` must be "gpu", "cuda", "cuda:<number>", "cpu" or unset'),
    "no GPU": ("device = 'cuda:77'\n", r"device: (no GPU available|cuda:77 does not exist: the machine has \d+ GPUs)$"),
}


@pytest.mark.parametrize("name", CASES)
def test_first_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    lines, pattern = CASES[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_faulty_module.py").write_text("a = 1\nb = = 1\n")
    (tmp_path / "a.config").write_text(CONFIG_FILE + lines)
    assert main(["a.config"]) == 1
    err = capsys.readouterr().err
    pattern = re.sub(r"\{(\d)\}", lambda match: str(START + int(match[1])), pattern)
    first = err.splitlines()[0].replace(f"{tmp_path}/", "")
    assert re.match(pattern, first), first
    assert "Traceback" not in err
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["a.config", "own_faulty_module.py"]


def test_behavior_version_above_the_latest(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.config").write_text("#!rnn.py\ntask = 'nop_init_net_train'\nbehavior_version = 99\n")
    main([str(tmp_path / "a.config")])
    assert "WARNING: behavior_version 99 is higher than the latest known, 30" in capsys.readouterr().out


@pytest.mark.parametrize("lines, text", [
    ("", None),
    ("del learning_rate, max_seqs\n", "learning_rate 1.0, max_seqs no limit"),
    ("del optimizer\nnum_epochs = 1\ndel batch_size\n", "batch_size 1, optimizer sgd"),
])  # fmt: skip
def test_defaults_that_count_are_told(lines, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.config").write_text(CONFIG_FILE + lines)
    assert main(["a.config", "--check"]) == 0
    found = re.findall("^defaults of options that are not given: (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert found == ([text] if text else [])


def test_a_check_opens_no_log_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.config").write_text(CONFIG_FILE + "log = ['./log', 'new/log', '|cat > piped']\n")
    assert main(["a.config", "--check"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.config"]
