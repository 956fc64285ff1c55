"""Which checkpoint a task starts from: one pure decision over what lies on the disk."""

import os
import re
from dataclasses import dataclass, field

from returnn_lite.errors import ConfigError

SIGNS = (".pt", ".index")  # files that say that there is a checkpoint
SUFFIXES = (".opt.pt", ".pt", ".npz", ".meta", ".index")
IMPORT = "import_model_train_epoch1"


def strip_suffix(name: str) -> str:
    """The base name of a checkpoint: `m.003.pt`, `m.003.index` -> `m.003`."""
    for suffix in SUFFIXES:
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return name


def model_file(name: str) -> str | None:
    """The readable file behind a checkpoint name given with or without suffix; None if there is none."""
    base = strip_suffix(name)
    given = base if name.endswith(".meta") else name  # such a file is only a sign that there is a checkpoint
    for candidate in (given, base + ".pt", base + ".npz", base, base + ".index"):
        if os.path.isfile(candidate):
            return candidate
    return None


def nearby(name: str, count: int = 5) -> str:
    """What there is in place of a model file: `in 'out' there are model.001, model.002`, for error messages."""
    folder, wanted = os.path.split(name)
    folder = folder or "."
    if not os.path.isdir(folder):
        return f"folder {folder!r} does not exist"
    known = sorted({strip_suffix(file) for file in os.listdir(folder) if file.endswith(SUFFIXES)})
    if not known:
        return f"no model in the folder {folder!r}"
    start = wanted.split(".")[0]
    own = [model for model in known if model.startswith(start)] or known
    shown = own if len(own) <= count else ["…", *own[-count:]]
    return f"in {folder!r} there {'is' if len(own) == 1 else 'are'} {', '.join(shown)}"


def looked_for(model: str | None, last: int) -> str:
    """Where models were looked for, and what is there instead, for error messages. last: epoch, 0: all."""
    if not model:
        return "`model`, their base name, is not set"
    epochs = f", up to epoch {last}" if last else ""
    return f"looked for {' or '.join(f'{model}.NNN{suffix}' for suffix in SIGNS)}{epochs}; {nearby(model)}"


def epoch_of_file(name: str) -> int | None:
    """The epoch in a checkpoint's name, symbolic links resolved: `m.003.pt` -> 3, `best.pt` -> None."""
    path = model_file(name) or name
    while os.path.islink(path):
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    match = re.match(r".*\.([0-9]+)", os.path.basename(strip_suffix(path)))
    return int(match.group(1)) if match else None


def epoch_base(model: str, epoch: int, *, pretrain: bool = False) -> str:
    """`m`, 3 -> `m.003`; in pretraining epochs `m.pretrain.003`."""
    return f"{model}.pretrain.{epoch:03d}" if pretrain else f"{model}.{epoch:03d}"


def existing_models(model: str | None, final_epoch: int, *, resumable: bool = False) -> dict[int, str]:
    """{epoch: base name} of the checkpoints on disk up to `final_epoch` (0: no limit), ascending.

    With `resumable` only those that training can continue from: with their optimizer state, or from another program
    that does not keep it.
    """
    if not model:
        return {}
    folder, prefix = os.path.split(model)
    if not os.path.isdir(folder or "."):
        return {}
    pattern = re.compile(re.escape(prefix) + r"\.(pretrain\.)?([0-9]{3,})(" + "|".join(map(re.escape, SIGNS)) + ")")
    found: dict[int, str] = {}
    for name in sorted(os.listdir(folder or ".")):
        match = pattern.fullmatch(name)
        epoch = int(match.group(2)) if match else 0
        base = os.path.join(folder, os.path.splitext(name)[0])
        if epoch >= 1 and (final_epoch <= 0 or epoch <= final_epoch):
            if os.path.isdir(os.path.join(folder, name)):
                raise ConfigError("model", f"{os.path.join(folder, name)!r} must be a model file, but is a folder")
            if not resumable or os.path.isfile(base + ".opt.pt") or not os.path.isfile(base + ".pt"):
                found[epoch] = base
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class Request:
    """What the config asks for and what is there, as {epoch: base name}.

    `existing`: what the task can start from as it is; `stored`: all models, for a training also those without their
    optimizer state. `looked`: where models were looked for, for error messages.
    """

    task: str = "train"
    existing: dict[int, str] = field(default_factory=dict)
    stored: dict[int, str] = field(default_factory=dict)
    load: str = ""
    load_epoch: int = 0
    start_epoch: int | None = None
    import_model: str = ""
    allow_random: bool = False
    looked: str = ""


@dataclass(frozen=True)
class StartPoint:
    """The checkpoint to start from (`filename` None: random initialisation); `epoch` is the last finished one.

    `resume`: it is this run's own model, so its optimizer state belongs to it.  `notes`: remarks for the log.
    """

    epoch: int | None = None
    filename: str | None = None
    resume: bool = False
    notes: tuple[str, ...] = ()
    option: str = field(default="load", compare=False)  # of the config, which names the file

    @property
    def start_epoch(self) -> int:
        """The first epoch to train."""
        return (self.epoch or 0) + 1


def choose_start(request: Request) -> StartPoint:
    """Applies the rules in their order of precedence; raises ConfigError where nothing can be used."""
    start_point = _candidate(request)
    if request.task == "train":
        return _apply_start_epoch(request, start_point)
    if start_point.filename is None and not request.allow_random:
        text = "There was also no model found which we could load. Set one via 'load'."
        raise ConfigError("load", f"{text}{request.looked and f' ({request.looked})'}")
    return start_point if start_point.filename else StartPoint(epoch=1)


def _candidate(request: Request) -> StartPoint:
    explicit = request.load or request.load_epoch > 0
    training, start = request.task == "train", request.start_epoch
    if explicit and (not training or start is not None):
        return _explicit(request)
    if request.existing:
        notes = ("note: there is a 'load' which we ignore because of existing model",) if request.load else ()
        epoch = max(request.existing)
        return StartPoint(epoch, request.existing[epoch], resume=True, notes=notes)
    if training and request.import_model and start in (None, 1):
        return StartPoint(0, strip_suffix(request.import_model), option=IMPORT)
    if request.load:
        epoch_ = request.load_epoch or epoch_of_file(request.load)
        return StartPoint(epoch_, strip_suffix(request.load))
    if request.load_epoch > 0:
        return _explicit(request)
    return StartPoint()


def _explicit(request: Request) -> StartPoint:
    """`load` and/or `load_epoch`; with both, the file is `load` and the epoch is taken on trust."""
    if not request.load and request.load_epoch not in request.existing:
        known = sorted(request.existing)
        text = f"`load_epoch` must be the epoch of an existing model, of {known}, but is {request.load_epoch} instead"
        raise ConfigError("load_epoch", text + (request.looked and f" ({request.looked})"))
    file = strip_suffix(request.load) if request.load else request.existing[request.load_epoch]
    if request.task == "train":  # an explicit start_epoch says where to go on
        return StartPoint(None, file)
    return StartPoint(request.load_epoch or epoch_of_file(file), file)


def _apply_start_epoch(request: Request, start_point: StartPoint) -> StartPoint:
    start = request.start_epoch
    if start is None:
        _spare_models(request, start_point)
        return start_point
    if start_point.epoch is None and start_point.filename:
        return StartPoint(start - 1, start_point.filename, notes=start_point.notes)
    if start == 1:
        if not start_point.epoch:  # nothing found, or the import for epoch 1
            return start_point
        note = f"warning: there is an existing model: {(start_point.epoch, start_point.filename)}"
        return StartPoint(notes=(*start_point.notes, note))
    if start_point.epoch == start - 1:
        return start_point
    if start - 1 not in request.existing and start - 1 in request.stored:
        note = f"warning: the optimizer starts from scratch: its state of epoch {start - 1} is missing"
        return StartPoint(start - 1, request.stored[start - 1], notes=(*start_point.notes, note))
    if start - 1 not in request.existing:
        known = sorted({*request.stored, *request.existing})
        text = f"`start_epoch` must be one more than an existing epoch, of {known}, but is {start} instead"
        raise ConfigError("start_epoch", text)
    note = f"warning: start_epoch {start} but there is {(start_point.epoch, start_point.filename)}"
    return StartPoint(start - 1, request.existing[start - 1], resume=True, notes=(*start_point.notes, note))


def _spare_models(request: Request, start_point: StartPoint) -> None:
    """Raises ConfigError where a training from its first epoch on would write over models that it cannot continue."""
    if start_point.epoch or not request.stored:
        return
    last = max(request.stored)
    text = f"models exist up to epoch {last}, but without optimizer state (.opt.pt)"
    raise ConfigError(
        "start_epoch", f"{text}; `start_epoch` {last + 1} continues with a fresh optimizer, 1 starts from scratch"
    )
