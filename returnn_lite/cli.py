"""The command line: `rnn.py config… [options] [++key value]…`. Reads the config, opens the log, runs the task."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from optparse import SUPPRESS_USAGE, OptionParser, Values

from returnn_lite.compat.config_imports import config_imports
from returnn_lite.config import Config, load_into, refuse_unknown_overrides
from returnn_lite.cpu_threads import share_cpus
from returnn_lite.engine.distributed.launch import check_launcher, processes
from returnn_lite.engine.interrupt import ANEW, RESUME, Interrupted, StopRequest
from returnn_lite.errors import ConfigError
from returnn_lite.log import MAX_VERBOSITY, Log, log_end, log_greeting, startup_text
from returnn_lite.streams import keep_going_without_readers
from returnn_lite.tools import run_tool, tool_of, tool_of_program

# (short, long, config key, meaning)
OPTIONS = (
    ("a", "activation", "activation", "activation of hidden layers (old configs)"),
    ("b", "batch_size", "batch_size", "frames per batch, with padding; a number or a dict per data key"),
    ("c", "chunking", "chunking", 'chunks of training sequences, "size:step"'),
    ("d", "description", "description", "free text"),
    ("e", "epoch", "epoch", "epoch whose model is used by forward, eval, search"),
    ("E", "eval", "eval", "the eval dataset"),
    ("f", "gate_factors", "gate_factors", "no effect (old configs)"),
    ("g", "lreg", "lreg", "no effect (old configs)"),
    ("i", "save_interval", "save_interval", "epochs between saved models"),
    ("j", "dropout", "dropout", "no effect (old configs)"),
    ("k", "output_file", "output_file", "file that forward or plot_schedule writes"),
    ("l", "log", "log", "log target: a file path, stdout, or |command"),
    ("L", "load", "load", "model file to load"),
    ("m", "momentum", "momentum", "momentum of the optimizer (old form)"),
    ("n", "num_epochs", "num_epochs", "last epoch of the training"),
    ("o", "order", "order", "no effect (old configs)"),
    ("p", "loss", "loss", "loss of the output layer (old configs)"),
    ("q", "cache", "cache", "no effect (old configs)"),
    ("r", "learning_rate", "learning_rate", "learning rate"),
    ("s", "hidden_sizes", "hidden_sizes", "no effect (old configs)"),
    ("t", "truncate", "truncate", "no effect (old configs)"),
    ("u", "device", "device", "gpu or cpu; default: gpu if available"),
    ("v", "verbose", "log_verbosity", "1 (scores of each epoch) to 5 (each step)"),
    ("w", "window", "window", "window of input frames (dataset option)"),
    ("x", "task", "task", "what to do, see below"),
    ("y", "hidden_type", "hidden_type", "type of hidden layers (old configs)"),
    ("z", "max_sequences", "max_seqs", "sequences per batch at most"),
    ("", "config", "include", "a further config file, loaded at this point"),
)

USAGE = "usage: rnn.py CONFIG… [OPTIONS] [++KEY VALUE]…"

HELP = f"""{USAGE}

Trains, evaluates and searches with neural networks described by a config file.

CONFIG is a file of options; several files are merged, later ones win. Forms: Python (first line #!rnn.py, or a name in
.py), JSON with comments (starts with a brace), YAML (a name in .yml or .yaml), or lines `key value`.

++KEY VALUE sets any option. VALUE is read as Python unless the config defines KEY as text:
    rnn.py train.config ++num_epochs 20 ++batch_size "{{'data': 4000, 'classes': 400}}" ++task train
A VALUE that starts with a minus is written with a plus before it: ++newbob_relative_error_threshold +-0.01
A config file sees these values while it is executed, as config.value(KEY, default); afterwards they override it.

Options, each the same as ++KEY VALUE:
{{options}}
  -h,     --help                 this text
  -V,     --version              version of the program
          --check                check the config: all set-up and one step on two sequences, on the CPU; writes nothing
          --list-layers          all layer classes, a line each
          --help-layer NAME      what a layer class does, its options and their defaults
          --help-option NAME     what a global option does, its type and default
          --help-loss NAME, --help-dataset NAME, --help-optimizer NAME
                                 what a class does, its options and their defaults

Tasks (++task NAME; default train):
  train                train on `train`, scores on `dev` and `eval` after each epoch; run again to continue
  eval                 scores of a trained model (++load MODEL or ++epoch N) on `dev`, `eval` and `eval_datasets`
  forward              write the outputs of a layer for the `eval` data to an HDF file
  search               beam search on `search_data`, texts to `search_output_file`
  compute_priors       log of the mean output (over the frames of `train`) of each class, as text to `output_file`
  train_lr_agent       train an agent that chooses learning rates (to `learning_rate_agent`) on this training
  eval_lr_agent        compare that agent with constant learning rates and schedules
  plot_schedule        a picture of the learning rate over the whole run, without training, to `output_file`
  plot_scores          a picture of all scores and learning rates so far, from the learning-rate file, to `output_file`
  profile              seconds and memory of each layer in training steps on the first batches, as a table
  to_torch             write the network as one Python file that needs torch alone, to `to_torch_file`
  export               write the network, or a step of its decoder, for torch.export and ONNX, to `export_file`
  initialize_model     save a freshly initialised model
  cleanup_old_models   delete models that need not be kept (asks first)
  nop, nop_init_net_train    nothing; only build the network
  config:NAME          call the function NAME of the config

Tools: `returnn-lite tools` lists them; `returnn-lite NAME …` (or `returnn-lite-NAME …`) runs one, with --help it
explains itself.

Environment: TF_DEVICE, PT_DEVICE (win over the option device), CUDA_VISIBLE_DEVICES, OMP_NUM_THREADS (default: the CPUs
that the process may use), OMP_WAIT_POLICY, GOMP_SPINCOUNT (default 1000: threads that wait leave their CPU to others).
Exit code: 0 success, 1 error (the first line on stderr says what; log_verbosity 5 adds the traceback), 2 wrong option.
A signal (SIGTERM, Ctrl-C, SIGHUP, …) ends a run within two seconds, with exit code 1; a second one at once.
"""


@dataclass
class Command:
    """A parsed command line. `show`: a text to print instead of running anything; `about`: what to explain, and the
    name of it; `check`: whether to check the config only."""

    files: list[str] = field(default_factory=list)
    overrides: list[tuple[str, str]] = field(default_factory=list)
    show: str = ""
    about: tuple[str, str] | None = None  # a key of `ABOUT`
    check: bool = False


class UsageError(Exception):
    """A wrong command line: message and exit code (2: options, 1: the rest)."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class _Parser(OptionParser):
    """Options anywhere between the `++key value` pairs; abbreviations and `--long=value` allowed."""

    def __init__(self, command: Command) -> None:
        super().__init__(usage=SUPPRESS_USAGE, add_help_option=False)
        for short, name, key, _ in OPTIONS:
            flags = [f"-{short}"] * bool(short) + [f"--{name}"]
            self.add_option(*flags, type="string", action="callback", callback=_store, callback_args=(command, key))
        self.add_option("-h", "--help", action="store_true", default=False)
        self.add_option("-V", "--version", action="store_true", default=False)
        self.add_option("--check", action="store_true", default=False)
        self.add_option("--list-layers", dest="about", action="store_const", const=("layers", ""))
        for kind in ABOUT:
            self.add_option(
                f"--help-{kind}", type="string", action="callback", callback=_explain, callback_args=(kind,)
            )

    def error(self, msg: str) -> None:  # type: ignore[override]
        raise UsageError(f"error: {msg}", 2)


def _store(_option: object, _flag: str, value: str, _parser: object, command: Command, key: str) -> None:
    command.overrides.append((key, _unescape(value)))


def _explain(_option: object, _flag: str, value: str, parser: OptionParser, kind: str) -> None:
    if parser.values is not None:
        parser.values.about = (kind, value)


def _unescape(value: str) -> str:
    """`+-1` stands for `-1`, which would look like an option."""
    return value[1:] if value.startswith("+-") else value


def parse_command_line(argv: Sequence[str]) -> Command:
    """Config files, then options and `++key value` pairs; UsageError if it is wrong."""
    if not argv:
        raise UsageError("expected at least a config file", 1)
    count = next((index for index, arg in enumerate(argv) if arg.startswith(("-", "+"))), len(argv))
    command = Command(files=list(argv[:count]))
    flags, rest = _parser_result(_Parser(command), list(argv[count:]))
    if flags.help:
        command.show = help_text()
    elif flags.version:
        command.show = f"returnn_lite {startup_text()}\n"
    elif flags.about:
        command.about = flags.about
    else:
        command.check = flags.check
        command.overrides += _pairs(rest)
    return command


def _parser_result(parser: _Parser, args: list[str]) -> tuple[Values, list[str]]:
    values, rest = parser.parse_args(args)
    return values, list(rest)


def _pairs(rest: list[str]) -> list[tuple[str, str]]:
    for key in rest[::2]:
        if not key.startswith("++") or key == "++":
            raise UsageError(f"expect key prefixed with '++', but got {key!r} (config files come before options)", 1)
    if len(rest) % 2:
        raise UsageError(f"expect (++key, value) config tuples in remaining args, but {rest[-1]!r} has no value", 1)
    return [(key[2:], _unescape(value)) for key, value in zip(rest[::2], rest[1::2], strict=True)]


def help_text() -> str:
    """The text of --help."""
    rows = []
    for short, name, key, meaning in OPTIONS:
        note = f" [{key}]" if key not in (name, "include") else ""
        rows.append(f"  {f'-{short} V,' if short else '':7} {f'--{name} V':22} {meaning}{note}")
    return HELP.replace("{options}", "\n".join(rows))


# What `--help-KIND NAME` prints: a function of `returnn_lite.tools`, imported when it is asked for.
ABOUT = {
    "layer": "layer_reference:describe_layer",
    "loss": "class_help:describe_loss",
    "dataset": "class_help:describe_dataset",
    "optimizer": "class_help:describe_optimizer",
    "option": "option_reference:describe_option",
}


def explanation(kind: str, name: str) -> str:
    """The text of --list-layers (kind "layers") or --help-KIND NAME."""
    module, _, function = ABOUT.get(kind, "layer_reference:list_layers").partition(":")
    found = getattr(import_module(f"returnn_lite.tools.{module}"), function)
    text: str = found(name) if name else found()
    return text


Prepare = Callable[[Config], None]

RESUMED = ("train", "train_lr_agent")  # tasks that go on where they were


def main(argv: Sequence[str], prepare: Prepare = lambda config: None) -> int:
    """Runs one command line (without the program's name); the exit code. SystemExit of a task passes through.

    prepare: may change the config before its task runs.
    """
    tool = tool_of(argv[0]) if argv else None
    if tool is not None:
        return run_tool(tool, argv[1:])
    try:
        command = parse_command_line(argv)
    except UsageError as exc:
        print(f"{exc}\n{USAGE}\nrnn.py --help explains all options", file=sys.stderr)
        return exc.code
    if command.show:
        print(command.show, end="")
        return 0
    config = Config()
    with StopRequest() as stop:
        return _guarded(command, config, argv, prepare, stop)


def _guarded(command: Command, config: Config, argv: Sequence[str], prepare: Prepare, stop: StopRequest) -> int:
    """Runs the command; the exit code."""
    try:
        if command.about:
            print(explanation(*command.about), end="")
        else:
            run_command(command, config, argv, prepare)
    except Interrupted as exc:
        stop.tell(str(exc))
        return 1
    except KeyboardInterrupt:
        print("KeyboardInterrupt", file=sys.stderr)
        return 1
    except Exception as exc:
        report_error(exc, wants_traceback(config))
        return 1
    return 0


def run_command(command: Command, config: Config, argv: Sequence[str], prepare: Prepare) -> None:
    """Reads the config, opens the log, runs the task."""
    with config_imports(config):
        _run_command(command, config, argv, prepare)


def _run_command(command: Command, config: Config, argv: Sequence[str], prepare: Prepare) -> None:
    start = time.time()
    load_into(config, command.files, command.overrides)
    if command.files and not config.keys():
        raise ConfigError("", f"the config is empty: {', '.join(command.files)}")
    check_launcher(os.environ)
    apply_environment(config, os.environ)
    prepare(config)
    refuse_unknown_overrides(config, command.overrides)
    # Of the processes that torchrun starts, the first one writes.
    first = processes(os.environ)[0] == 0
    log = Log.from_config(config, files=not command.check) if first else Log.silent()
    try:
        log_greeting(log, argv)
        for warning in config.warnings:
            log.v1(warning)
        resumes = config.value("task", "train") in RESUMED and not command.check
        with StopRequest(RESUME if resumes else ANEW):
            from returnn_lite.tasks import run_task  # brings torch, which --help and a wrong config do without

            run_task(config, log, check=command.check)
    finally:
        log_end(log, start)
        log.close()


def apply_environment(config: Config, environ: MutableMapping[str, str]) -> None:
    """TF_DEVICE, and PT_DEVICE with `backend = "torch"`, win over the option `device`. The option
    PYTORCH_CUDA_ALLOC_CONF goes into the environment, which torch reads when it first uses a GPU."""
    names = ["PT_DEVICE", "TF_DEVICE"] if config.value("backend", None) == "torch" else ["TF_DEVICE"]
    device = next((environ[name] for name in names if environ.get(name)), None)
    if device:
        config.set("device", device)
    allocator = config.value(ALLOCATOR, None)
    if allocator:
        environ[ALLOCATOR] = str(allocator)


ALLOCATOR = "PYTORCH_CUDA_ALLOC_CONF"
# The message of these says it all; any other exception is a fault of the program or of code in the config.
_EXPECTED = (ConfigError, OSError, ImportError, NotImplementedError)


def report_error(exc: Exception, with_traceback: bool) -> None:
    """Prints what went wrong, in one line, to stderr; then, where it may help, the traceback."""
    text = str(exc) if isinstance(exc, ConfigError) else f"{type(exc).__name__}: {exc}"
    print(text, file=sys.stderr)
    if with_traceback or not isinstance(exc, _EXPECTED):
        traceback.print_exception(exc, file=sys.stderr)


def wants_traceback(config: Config) -> bool:
    """Whether `log_verbosity` is the highest for some target; may be asked of a half-read config."""
    try:
        return MAX_VERBOSITY in config.int_list("log_verbosity", [])
    except ConfigError:
        return False


def run(prepare: Prepare = lambda config: None) -> None:
    """The console script; `prepare` as for `main`."""
    _exit_with(lambda: main(sys.argv[1:], prepare))


def run_program() -> None:
    """The console scripts `returnn-lite-NAME`, which are a tool each."""
    _exit_with(lambda: run_tool(tool_of_program(sys.argv[0]), sys.argv[1:]))


def _exit_with(work: Callable[[], int]) -> None:
    share_cpus(os.environ)
    keep_going_without_readers()
    with StopRequest(ends_process=True) as stop:
        code = work()
        stop.end_process(code)
    sys.exit(code)
