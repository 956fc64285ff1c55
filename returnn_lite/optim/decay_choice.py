"""Keys of torch-backend configs that choose parameters: which are decayed, and groups by a function of the config."""

import inspect
import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from returnn_lite.config_value import ConfigFunction, ConfigOptions, ConfigValue
from returnn_lite.errors import ConfigError
from returnn_lite.optim.param_groups import ParamInfo
from returnn_lite.optim.resolve import find_class

BLACKLIST, CHECK, CUSTOM = "weight_decay_modules_blacklist", "weight_decay_custom_include_check", "param_groups_custom"
UNDECAYED = ("torch.nn.LayerNorm", "torch.nn.Embedding")
_KINDS = {"norm": "norm", "embedding": "embedding"}  # by how the name of the class ends
Special = dict[str, tuple[ConfigOptions, str]]


def without_decay(
    default: ConfigOptions, infos: Mapping[str, ParamInfo], special: Special, *, torch_backend: bool
) -> Special:
    """Parameters without `weight_decay`, unless a group says so; takes the two keys off the optimizer dict.

    With `backend = "torch"`, or one of the keys: biases, and those of the classes in `weight_decay_modules_blacklist`
    (norms and embeddings). With `backend = "torch"` a bias is a name that ends with "bias", so not `bias_hh_l0`.
    `weight_decay_custom_include_check` goes first: True, False, or None for what the rest says. It is called by
    `module`, `rf_module` (None for modules of torch), `full_param_name` (with `backend = "torch"` its last part, as in
    the reference) and `param`. ConfigError for values of another kind.
    """
    given = BLACKLIST in default or CHECK in default
    blacklist, check = default.pop(BLACKLIST, None), default.pop(CHECK, None)
    names = UNDECAYED if blacklist is None else blacklist
    if not isinstance(names, list | tuple) or not all(isinstance(name, str | type) for name in names):
        raise ConfigError(
            f'optimizer["{BLACKLIST}"]', f"must be a list of classes or their names, but is {blacklist!r} instead"
        )
    if check is not None and not callable(check):
        raise ConfigError(f'optimizer["{CHECK}"]', f"must be a function, but is {check!r} instead")
    found = dict(special)
    if not default.get("weight_decay") or not (given or torch_backend):
        return found
    for name, info in infos.items():
        wanted = None if check is None else _called(check, info, info.role if torch_backend else name)
        if wanted is False or wanted is None and _is_exempt(info, names, torch_backend=torch_backend):
            options, path = found.get(name, ({}, "optimizer"))
            found[name] = {"weight_decay": 0.0, **options}, path
    return found


def _called(check: ConfigFunction, info: ParamInfo, name: str) -> bool | None:
    rf_module = getattr(info.module, "rf_module", None)
    known = {"module": info.module, "rf_module": rf_module, "full_param_name": name, "param": info.param}
    wanted: bool | None = call_with_known(check, known)
    return wanted


def _is_exempt(info: ParamInfo, names: Sequence[str | type], *, torch_backend: bool) -> bool:
    by_end_alone = torch_backend and "/" not in info.name  # of a module of torch
    is_bias = info.role.endswith("bias") or "bias" in info.kinds and not by_end_alone
    return is_bias or any(_is_of_class(info, name) for name in names)


def _is_of_class(info: ParamInfo, name: str | type) -> bool:
    """Whether a parameter belongs to a module class such as "torch.nn.LayerNorm" or "rf.Linear", by its last word.

    Classes of torch and those of the frontend with the same name are different ones.
    """
    if isinstance(name, type):
        return isinstance(info.module, name) or isinstance(getattr(info.module, "rf_module", None), name)
    if info.classes:
        last = name.rpartition(".")[2]
        in_frontend = not name.startswith("torch.") and f"rf.{last}" in info.classes
        return in_frontend or (not name.startswith("rf.") and last in info.classes)
    word = re.sub(r"\d+d$", "", name.rpartition(".")[2]).lower().replace("_", "")
    kind = next((kind for end, kind in _KINDS.items() if word.endswith(end)), None)
    return kind in info.kinds if kind is not None else word == info.layer_class.replace("_", "")


def custom_groups(default: ConfigOptions, params: Mapping[str, Tensor], network: object, rate: float) -> Special:
    """The groups that the function `param_groups_custom` gives; takes the key off the optimizer dict.

    It is called by those of the keywords that it knows: `model`, `rf_model` (None for a model of torch),
    `optimizer_class`, `optimizer_opts` (with `lr`: the learning rate `rate`). It returns dicts with "params" (the
    tensors) and options. As in torch what is in no group is not trained, and no parameter is exempt from
    `weight_decay` but by its group.
    """
    function: ConfigFunction | None = default.pop(CUSTOM, None)
    if function is None:
        return {}
    path = f'optimizer["{CUSTOM}"]'
    if not callable(function):
        raise ConfigError(path, f"must be a function, but is {function!r} instead")
    groups = list(call_with_known(function, _offered(default, network, rate)))
    names = {id(param): name for name, param in params.items()}
    found: Special = {name: ({"freeze": True}, path) for name in params}
    for i, group in enumerate(groups):
        if not isinstance(group, Mapping) or "params" not in group:
            raise ConfigError(path, f'must return dicts with "params", but number {i} is {group!r} instead')
        options = {key: value for key, value in group.items() if key != "params"}
        for param in group["params"]:
            if id(param) not in names:
                raise ConfigError(path, f"number {i} has a tensor that is not a trainable parameter of the network")
            found[names[id(param)]] = options, f"{path}[{i}]"
    return found


def _offered(default: ConfigOptions, network: object, rate: float) -> dict[str, object]:
    """What the function of the groups may ask for."""
    model, user_model = getattr(network, "model", network), getattr(network, "user_model", None)
    options = {key: value for key, value in default.items() if key not in ("class", BLACKLIST, CHECK)}
    cls = find_class(default["class"], 'optimizer["class"]', prefer_torch=model is not network)
    return {
        "model": model,
        "rf_model": None if user_model is model else user_model,
        "optimizer_class": cls,
        "optimizer_opts": {"lr": rate, **options},
    }


def call_with_known(function: ConfigFunction, known: Mapping[str, object]) -> ConfigValue:
    """Calls a function of the config by those of the keywords that it takes; all of them if it takes any."""
    wanted = inspect.signature(function).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in wanted.values())
    return function(**{key: value for key, value in known.items() if takes_all or key in wanted})
