"""Config files, code in configs, and command lines."""

from collections.abc import Iterator

from tests.engine.helpers import CONFIG_FILE
from tests.faults.bad_inputs.cases import Case, config_case

GOOD = CONFIG_FILE.encode()
FILES: dict[str, bytes] = {
    "empty.config": b"",
    "blank.config": b"\n  \n# nothing\n",
    "binary.config": bytes(range(256)),
    "latin.config": "modell größe".encode("latin-1"),
    "utf16.config": "a b\n".encode("utf-16"),
    "one_word.config": b"word\n",
    "python.config": b"import os\na = 1\n",
    "pairs.config": b"a = 1\nb = 2\n",
    "self.config": b"include self.config\n",
    "missing.config": b"include nothing.config\n",
    "folder.config": b"include .\n",
    "syntax.py": b"a = = 1\n",
    "indent.py": b"  a = 1\n b = 2\n",
    "null.py": b"a = 1\0\n",
    "name.py": b"a = b\n",
    "division.py": b"a = 1 / 0\n",
    "assert.py": b"n = 3\nassert n == 4\n",
    "import.py": b"import nothing_like_this\n",
    "recursion.py": b"def f(): return f()\nf()\n",
    "deep.py": b"a = " + b"(" * 5000,
    "itself.py": b"config.load_file('itself.py')\n",
    "other_letters.py": "ü = größe\n".encode(),
    "open.json": b'{"a": 1',
    "deep.json": b'{"a": ' + b"[" * 100_000,
    "comma.json": b'{"a": 1,}',
    "twice.json": b'{"a": 1} {"b": 2}',
    "null.json": b"\0{}",
    "list.yaml": b"- 1\n- 2\n",
    "tab.yaml": b"a:\n\t- 1\n",
    "deep.yaml": b"a: " + b"[" * 10_000,
    "alias.yaml": b"a: *b\n",
    "number.yaml": b"1: 2\n",
    "python.yaml": b"a: !!python/object/apply:os.system ['true']\n",
    "date.yaml": b"a: 2020-13-45\n",
    "section.cfg": b"[a\nb = 1\n",
}
CODE: dict[str, tuple[str, str]] = {  # name -> (lines, what the first line must say)
    "get_network": ("def get_network(epoch):\n  return 1 / 0\n", "a.config:"),
    "get_network gives nothing": ("def get_network(epoch):\n  return None\n", "network"),
    "get_network takes nothing": ("def get_network():\n  return network\n", "get_network"),
    "get_network is no function": ("get_network = 3\n", "network"),
    "eval syntax": ("network['h'] = {'class': 'eval', 'from': 'data', 'eval': 'source(0'}\n", "`eval`"),
    "eval name": ("network['h'] = {'class': 'eval', 'from': 'data', 'eval': 'sorce(0)'}\n", "sorce"),
    "eval source": ("network['h'] = {'class': 'eval', 'from': 'data', 'eval': 'source(7)'}\n", "network["),
    "eval attribute": ("network['h'] = {'class': 'eval', 'from': 'data', 'eval': 'tf.tahn(source(0))'}\n", "tahn"),
    "eval text": ("network['h'] = {'class': 'eval', 'from': 'data', 'eval': '\"a\" + str(source(0))'}\n", "network["),
    "eval null": ("network['h'] = {'class': 'eval', 'from': 'data', 'eval': 'a\\0'}\n", "network["),
    "eval empty": ("network['h'] = {'class': 'eval', 'from': 'data', 'eval': ''}\n", "network["),
    "activation syntax": ("network['h']['activation'] = 'tf.nn.relu(x'\n", "network["),
    "activation name": ("network['h']['activation'] = 'tf.nn.relu(y)'\n", "network["),
    "initial values": ("network['h']['forward_weights_init'] = 'glorot(1 / 0)'\n", "network["),
    "initial name": ("network['h']['forward_weights_init'] = 'glorto_uniform'\n", "glorto"),
    "loop": ("network['h']['from'] = 'output'\n", "network["),
    "itself": ("network['h']['from'] = 'h'\n", "network["),
    "no output": ("network = {}\n", "network"),
    "name is no text": ("network[3] = {'class': 'copy', 'from': 'data'}\n", "network"),
    "layer is no dict": ("network['h'] = ['linear']\n", "network["),
    "nested in itself": ("network['h'] = {'class': 'subnetwork', 'from': 'data', 'subnetwork': network}\n", "network"),
    "startup": ("startup_callback = 3\n", "startup_callback"),
    "startup fails": ("def startup_callback(config):\n  raise ValueError('bad')\n", "a.config:"),
    "dynamic rate": ("def dynamic_learning_rate(**kwargs):\n  return kwargs['nothing']\n", "a.config:"),
    "chunking": ("def chunking(**kwargs):\n  return 1 / 0\n", ""),
    "no functions": ("train = lambda: 1 / 0\n", "a.config:"),
}
LINES: list[tuple[list[str], str]] = [
    (["nothing.config"], "nothing.config"),
    (["."], "directory"),
    (["a.config/b"], "a.config/b"),
    (["x" * 5000], "config file"),
    (["a.config", "++num_epochs"], "++"),
    (["a.config", "+num_epochs", "3"], "++"),
    (["a.config", "num_epochs:3"], "num_epochs:3"),
    (["a.config", "-b"], "-b"),
    (["a.config", "--nothing"], "--nothing"),
    (["a.config", "++", "3"], "++"),
    (["a.config", "--check", "++learning_rat", "0.1"], "learning_rate"),
    (["a.config", "--check", "++num_epochs", "many"], "num_epochs"),
    (["a.config", "--check", "++batch_size", "many"], "batch_size"),
    (["a.config", "--check", "++batch_size", "{"], "batch_size"),
    (["a.config", "--check", "++task", "trian"], "task"),
    (["a.config", "--check", "++device", "gpu0"], "device"),
    (["a.config", "--check", "++log_verbosity", "9"], "log_verbosity"),
    (["a.config", "--check", "++optimizer", "{'class': 'adamm'}"], "adamm"),
    (["a.config", "--check", "++optimizer", "1/0"], "optimizer"),
    (["a.config", "--check", "++network", "{}"], "network"),
    (["a.config", "--check", "++learning_rate", "nan"], "learning_rate"),
    (["a.config", "--check", "++train", "nothing.hdf"], "nothing.hdf"),
    (["a.config", "--check", "++tensorboard_opts", "{"], "tensorboard_opts"),
    (["a.config", "--check", "++behavior_version", "x"], "behavior_version"),
    (["a.config", "--check", "--config", "a.config", "--config", "nothing"], "nothing"),
    (["--help-layer", "linaer"], "linear"),
]


def file_cases() -> Iterator[Case]:
    """Config files that are none."""
    for name, content in FILES.items():
        yield Case(f"file {name}", (name,), arguments=(name, "--check"), files={name: content})


def code_cases() -> Iterator[Case]:
    """Code of a config that fails, and nets that cannot be."""
    for name, (lines, named) in CODE.items():
        yield config_case(f"code {name}", lines, (named,) if named else (), must_fail=bool(named))


def line_cases() -> Iterator[Case]:
    """Command lines."""
    for arguments, named in LINES:
        name = " ".join(arguments)[:60]
        yield Case(f"line {name}", (named,), arguments=tuple(arguments), files={"a.config": GOOD})
