"""The house rules of ARCHITECTURE.md, checked on the source: floors, imports, sizes, docstrings, start-up."""

import ast
import functools
import os
import re
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "returnn_lite"
FRONT = PACKAGE / "__init__.py"  # names what is public, for type checkers; imports nothing when it runs
LIBRARY = sorted(PACKAGE.rglob("*.py"))
SOURCES = LIBRARY + sorted(p for d in ("tools", "demos", "benchmarks", "tests") for p in (ROOT / d).rglob("*.py"))

FLOORS = {  # first part of the path in the package -> floor
    "": 0,  # returnn_lite/__init__.py
    "behavior_version": 0,
    "config_value": 0,
    "cpu_threads": 0,
    "errors": 0,
    "files": 0,
    "not_specified": 0,
    "processes": 0,
    "reading": 0,
    "running_config": 0,
    "streams": 0,
    "log": 0,
    "version": 0,
    "ops": 1,
    "hdf": 1,
    "vocab": 1,
    "tensor": 1,
    "config": 2,
    "layers": 3,
    "losses": 4,
    "network": 5,
    "rec": 6,
    "frontend": 6,
    "optim": 7,
    "schedule": 7,
    "datasets": 7,
    "catalog": 8,
    "engine": 8,
    "trials": 9,
    "agent": 9,
    "compat": 9,
    "export": 9,
    "to_torch": 9,
    "tasks": 10,
    "cli": 10,
    "tools": 10,
    "library": 11,
    "__main__": 11,
}
SEPARATE = 7  # the packages of this floor do not import each other
# Rooms of one floor of which the first does not import the second.
APART = {("ops", "tensor"), ("hdf", "tensor"), ("vocab", "tensor")}

# Rooms in whose public signatures every `Any` has a reason.
TYPED_ROOMS = {
    "",
    "behavior_version",
    "catalog",
    "config",
    "config_value",
    "cpu_threads",
    "datasets",
    "engine",
    "errors",
    "files",
    "frontend",
    "hdf",
    "layers",
    "log",
    "losses",
    "network",
    "not_specified",
    "ops",
    "optim",
    "processes",
    "reading",
    "rec",
    "running_config",
    "schedule",
    "streams",
    "tensor",
    "version",
    "vocab",
}
ANY_REASON = "# Any: "  # begins the comment that gives it, beside the annotation or the `def`

# Imports inside functions: third parties which a user may lack, ...
OPTIONAL = {
    "confection",
    "datasets",
    "google_crc32c",
    "greenlet",
    "gymnasium",
    "inflect",
    "matplotlib",
    "mlflow",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "rapidfuzz",
    "sacrebleu",
    "sentencepiece",
    "sklearn",
    "soundfile",
    "stable_baselines3",
    "tensorboard",
    "torch.utils.tensorboard",
    "transformers",
    "unidecode",
    "wandb",
}
# ... and what is put off so that `rnn.py --help` starts without torch.
LAZY = {
    "cli": {"torch", "returnn_lite.tasks", "returnn_lite.tools.layer_reference"},
    "datasets": {"returnn_lite.frontend.tensor", "returnn_lite.frontend.tensor_dict"},  # with torch
    "network": {"returnn_lite.network.compiling.segment"},  # with torch's compiler
}

MAX_FILE_LINES = 600
MAX_LIBRARY_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
START_SECONDS = 0.4


def module_name(path: Path) -> str:
    """returnn_lite/tensor/dim.py -> returnn_lite.tensor.dim; a package's __init__.py -> the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The file's code; each file is parsed once."""
    return ast.parse(path.read_text())


MODULES = {module_name(path) for path in LIBRARY}


def room(module: str) -> str:
    """The part of a module's name that is on the floors' table: returnn_lite.tensor.dim -> tensor."""
    return (module.split(".") + [""])[1]


def imported(node: ast.AST, module: str, is_package: bool) -> list[str]:
    """Full names of the modules that one import statement reads; `from a import b` is a.b where that is a module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        parents = module.split(".")
        parents = parents[: len(parents) - node.level + is_package]
        base = ".".join(parents + ([node.module] if node.module else []))
    names = [f"{base}.{alias.name}" for alias in node.names]
    return [name if name in MODULES else base for name in names]


@functools.cache
def imports(path: Path) -> list[tuple[int, str, bool]]:
    """(line, imported module, whether it stands in a function) of each import in a file of the library."""
    tree, found = parsed(path), []
    functions = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    inner = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        for name in imported(node, module_name(path), path.name == "__init__.py"):
            found.append((getattr(node, "lineno", 0), name, id(node) in inner))
    return found


def floor_fault(importer: str, target: str) -> str | None:
    """Why a file of room `importer` must not import from room `target`; None if it may."""
    here, there = FLOORS[importer], FLOORS[target]
    if there > here:
        return f"floor {here} imports from floor {there}"
    if (importer, target) in APART:
        return f"{importer} knows nothing of {target}"
    if here == there == SEPARATE and importer != target:
        return f"the packages of floor {SEPARATE} do not import each other"
    return None


def optional(name: str) -> bool:
    """Whether a module belongs to a third party that may be missing."""
    return any(name == package or name.startswith(f"{package}.") for package in OPTIONAL)


def functions_of(path: Path) -> list[ast.FunctionDef]:
    return [n for n in ast.walk(parsed(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_every_file_has_a_floor():
    assert LIBRARY
    assert {room(module) for module in MODULES} <= set(FLOORS)


def test_imports_go_down_only():
    faults = []
    for path in LIBRARY:
        for line, name, _ in imports(path):
            if name.split(".")[0] == "returnn_lite" and path != FRONT:
                fault = floor_fault(room(module_name(path)), room(name))
                faults += [f"{path.relative_to(ROOT)}:{line} imports {name}: {fault}"] if fault else []
    assert not faults, "\n".join(faults)


def test_imports_in_functions_are_for_optional_packages_or_start_up():
    faults = []
    for path in LIBRARY:
        lazy = LAZY.get(room(module_name(path)), set())
        for line, name, inner in imports(path):
            if inner and name not in lazy and not optional(name):
                faults.append(f"{path.relative_to(ROOT)}:{line} imports {name} inside a function")
    assert not faults, "\n".join(faults)


def test_optional_packages_are_not_imported_at_the_top():
    faults = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in LIBRARY
        for line, name, inner in imports(path)
        if optional(name) and not inner
    ]
    assert not faults, "\n".join(faults)


def test_file_sizes():
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: size for name, size in sizes.items() if size >= MAX_FILE_LINES} == {}


def test_file_sizes_of_the_library():
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in LIBRARY}
    assert {name: size for name, size in sizes.items() if size > MAX_LIBRARY_FILE_LINES} == {}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that reach each other (Tarjan 1972), without recursion."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []
    for root in sorted(graph):
        work = [(root, iter(sorted(graph[root])))] if root not in number else []
        while work:
            node, rest = work[-1]
            if node not in number:
                number[node] = low[node] = len(number)
                stack.append(node)
            target = next(rest, None)
            if target is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    group = stack[stack.index(node) :]
                    del stack[stack.index(node) :]
                    found += [sorted(group)] if len(group) > 1 else []
            elif target not in number:
                work.append((target, iter(sorted(graph[target]))))
            elif target in stack:
                low[node] = min(low[node], number[target])
    return found


def test_the_finder_of_circles():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a", "e"}, "e": set()}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}) == []


def test_no_circle_between_files():
    """Also none of imports for type checkers only. The package itself names everything, and nothing imports it."""
    graph = {
        module_name(path): {name for _, name, _ in imports(path) if name in MODULES} - {module_name(path)}
        for path in LIBRARY
        if path != FRONT
    }
    graph = {module: targets & graph.keys() for module, targets in graph.items()}
    assert circles(graph) == []


def test_function_sizes():
    long = [
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}: {function.end_lineno - function.lineno + 1} lines"
        for path in SOURCES
        for function in functions_of(path)
        if function.end_lineno - function.lineno + 1 >= MAX_FUNCTION_LINES
    ]
    assert not long, "\n".join(long)


def code_lines(function: ast.FunctionDef) -> int:
    """Lines of a function, its docstring left out."""
    first = function.body[0]
    docstring = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) else 0
    return function.end_lineno - function.lineno + 1 - docstring


def test_typical_sizes():
    assert statistics.median(len(path.read_text().splitlines()) for path in LIBRARY) < 150
    assert statistics.median(code_lines(function) for path in LIBRARY for function in functions_of(path)) <= 7


def test_no_assert_in_the_library():
    asserts = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in LIBRARY
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Assert)
    ]
    assert not asserts, "\n".join(asserts)


def test_public_classes_and_functions_have_docstrings():
    missing = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in LIBRARY
        for node in parsed(path).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
        and not any(ast.unparse(decorator) == "overload" for decorator in node.decorator_list)
    ]
    assert not missing, "\n".join(missing)


def public_functions(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions and methods that have a public name, and so have the classes around them."""
    for node in body:
        if isinstance(node, ast.If):
            yield from public_functions(node.body + node.orelse)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield from public_functions(node.body) if isinstance(node, ast.ClassDef) else [node]


def annotations_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.expr]:
    """Those of the arguments, and of what it returns."""
    given = function.args
    arguments = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    found = [argument.annotation for argument in arguments if argument is not None]
    return [annotation for annotation in [*found, function.returns] if annotation is not None]


def says_any(node: ast.expr) -> bool:
    """Whether `Any` occurs in it, as a name, behind a module, or in an annotation that is a string."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and part.id == "Any" or isinstance(part, ast.Attribute) and part.attr == "Any":
            return True
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and re.search(r"\bAny\b", part.value):
            return True
    return False


def unreasoned(source: str) -> list[str]:
    """Where a public signature says `Any` and not why, and aliases of it without a comment beside or above."""
    tree, lines, found = ast.parse(source), source.splitlines(), []
    for function in public_functions(tree.body):
        for annotation in filter(says_any, annotations_of(function)):
            beside = [lines[function.lineno - 1], *lines[annotation.lineno - 1 : annotation.end_lineno]]
            if not any(ANY_REASON in line for line in beside):
                found.append(f"{annotation.lineno} {function.name}: {ast.unparse(annotation)}")
    for node in tree.body:
        if not isinstance(node, ast.AnnAssign) or ast.unparse(node.annotation) != "TypeAlias":
            continue
        above = lines[node.lineno - 2].startswith("#")
        if node.value is not None and says_any(node.value) and not above and "  # " not in lines[node.lineno - 1]:
            found.append(f"{node.lineno} {ast.unparse(node.target)}: an alias without a comment")
    return found


def test_any_in_public_signatures_has_a_reason():
    bare = [
        f"{path.relative_to(ROOT)}:{fault}"
        for path in LIBRARY
        if room(module_name(path)) in TYPED_ROOMS
        for fault in unreasoned(path.read_text())
    ]
    assert not bare, "\n".join(bare)


@pytest.mark.parametrize("source, faults", [
    ("def f(x: Any) -> int: ...", 1),
    ("def f(*args: list[Any], **more: typing.Any) -> 'Any': ...", 3),
    ("def f(x: Any) -> Any: ...  # Any: whatever a config says", 0),
    ("def f(\n    x: Any,\n    y: Any,  # Any: as it comes\n) -> int: ...", 1),
    ("def _f(x: Any) -> int: ...", 0),
    ("class C:\n    def f(self, x: Any) -> int: ...\n    def _g(self, x: Any) -> int: ...", 1),
    ("class _C:\n    def f(self, x: Any) -> int: ...", 0),
    ("if TYPE_CHECKING:\n    async def f() -> Any: ...", 1),
    ("# What a config says.\nValue: TypeAlias = Any\ndef f(x: Value) -> Value: ...", 0),
    ("import x\n\nValue: TypeAlias = Any", 1),
])  # fmt: skip
def test_the_finder_of_any(source: str, faults: int):
    assert len(unreasoned(source)) == faults


@pytest.mark.parametrize("importer, target, fine", [
    ("layers", "tensor", True),
    ("engine", "catalog", True),
    ("datasets", "datasets", True),
    ("tensor", "ops", True),
    ("ops", "tensor", False),
    ("tensor", "config", False),
    ("datasets", "optim", False),
    ("schedule", "datasets", False),
])  # fmt: skip
def test_the_floors_rule(importer: str, target: str, fine: bool):
    assert (floor_fault(importer, target) is None) == fine


@pytest.mark.parametrize("statement, is_package, expected", [
    ("import torch.nn", False, ["torch.nn"]),
    ("from returnn_lite.errors import ConfigError", False, ["returnn_lite.errors"]),
    ("from returnn_lite import errors", False, ["returnn_lite.errors"]),
    ("from . import dim", False, ["returnn_lite.tensor.dim"]),
    ("from .dim import Dim", True, ["returnn_lite.tensor.dim"]),
    ("from ..errors import ConfigError", False, ["returnn_lite.errors"]),
])  # fmt: skip
def test_the_import_reader(statement: str, is_package: bool, expected: list[str]):
    module = "returnn_lite.tensor" if is_package else "returnn_lite.tensor.spec"
    assert imported(ast.parse(statement).body[0], module, is_package) == expected


# --- start-up ---------------------------------------------------------------------------------------------------------

SHOW_TORCH = "import sys; print(sorted(m for m in ('torch', 'h5py') if m in sys.modules))"


def test_import_of_the_package_leaves_torch_alone():
    code = f"import returnn_lite; {SHOW_TORCH}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_help_leaves_torch_alone():
    code = (
        "import runpy, sys; sys.argv = ['rnn.py', '--help']\n"
        "try: runpy.run_path('rnn.py', run_name='__main__')\n"
        f"except SystemExit as exit: print('exit', exit.code)\n{SHOW_TORCH}"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("exit 0\n[]\n")


def test_help_starts_quickly():
    """Best of three, in seconds of processor time: what the wall clock shows on a machine with nothing else to do."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "rnn.py", "--help"], cwd=ROOT, capture_output=True, check=True, env=os.environ)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(once() for _ in range(3)) < START_SECONDS
