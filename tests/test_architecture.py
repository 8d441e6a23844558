"""The laws of ARCHITECTURE.md that an import graph or the source text can hold.

Import-linter checks the layers between packages (`lint-imports`, in the quality environment). Here stands what it cannot say:
what a pure room may import, what is imported when a module is loaded and not when a function runs, and what a process has
really loaded.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "ktrdr_zmq": ROOT / "ktrdr_zmq",
    "ktrdr_broker": ROOT / "broker" / "ktrdr_broker",
    "ktrdr_worker": ROOT / "worker" / "ktrdr_worker",
    "ktrdr_cli": ROOT / "cli" / "ktrdr_cli",
}
SCIENCE = {"numba", "numpy", "pandas", "plotly", "safetensors", "talib", "torch"}

# Time, randomness and effects are arguments of these rooms, and failed effects come back to them as inputs.
IMPURE = {
    "asyncio", "concurrent", "logging", "multiprocessing", "os", "pathlib", "random", "secrets", "select", "shutil", "signal",
    "socket", "sqlite3", "subprocess", "sys", "tempfile", "threading", "time", "uuid", "zmq",
}  # fmt: skip
PURE = [
    "ktrdr_zmq.codec", "ktrdr_zmq.errors", "ktrdr_zmq.events", "ktrdr_zmq.jobs", "ktrdr_zmq.messages", "ktrdr_zmq.payload",
    "ktrdr_zmq.session",
    "ktrdr_broker.clientdesk", "ktrdr_broker.config", "ktrdr_broker.core", "ktrdr_broker.intake", "ktrdr_broker.leases",
    "ktrdr_broker.ledger", "ktrdr_broker.model", "ktrdr_broker.queues", "ktrdr_broker.registry", "ktrdr_broker.views",
    "ktrdr_broker.workerdesk",
    "ktrdr_worker.checkpoints", "ktrdr_worker.core", "ktrdr_worker.duties", "ktrdr_worker.effects", "ktrdr_worker.endings",
    "ktrdr_worker.lanes", "ktrdr_worker.outbox", "ktrdr_worker.pipe",
]  # fmt: skip
# Modules that only child processes load: there, and nowhere else, the science may be imported at the top.
CHILD_SIDE = ("ktrdr_worker.child", "ktrdr_worker.jobs", "ktrdr_worker.trading")


def modules() -> dict[str, Path]:
    """Every module of the distribution, by its dotted name."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"), str(MODULES[name]))


def imported(nodes: Iterator[ast.AST]) -> Iterator[tuple[str, int]]:
    """Dotted names of what import statements among `nodes` bring in (`from a import b` counts as a and as a.b)."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used"
            yield str(node.module), node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def when_loaded(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Statements that run when a module is loaded: not those inside functions, nor those for type checkers."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from when_loaded(node.orelse)
            continue
        yield node
        for field in ("body", "orelse", "finalbody"):
            yield from when_loaded(getattr(node, field, []))
        for handler in getattr(node, "handlers", []):
            yield from when_loaded(handler.body)


def inside(name: str, *rooms: str) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def test_the_rooms_exist() -> None:
    """A law about a module that has been renamed would hold for nobody."""
    assert [name for name in PURE if name not in MODULES] == []
    assert [room for room in CHILD_SIDE if not any(inside(name, room) for name in MODULES)] == []


@pytest.mark.parametrize("name", PURE)
def test_pure_rooms_know_no_clock_no_chance_and_no_effects(name: str) -> None:
    wrong = [f"{name}:{line} imports {what}" for what, line in imported(ast.walk(tree(name))) if what.partition(".")[0] in IMPURE]
    assert wrong == []


@pytest.mark.parametrize("name", PURE)
def test_pure_rooms_import_only_pure_rooms(name: str) -> None:
    """Purity is of no use if a neighbour brings the clock in."""
    wrong = [
        f"{name}:{line} imports {what}"
        for what, line in imported(ast.walk(tree(name)))
        if inside(what, *PACKAGES) and what not in PACKAGES and not inside(what, *PURE)
    ]
    assert wrong == []


@pytest.mark.parametrize("name", PURE)
def test_pure_rooms_are_neither_coroutines_nor_printers(name: str) -> None:
    for node in ast.walk(tree(name)):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await), f"{name}:{node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"print", "open", "input"}, f"{name}:{node.lineno}"


@pytest.mark.parametrize("name", [name for name in MODULES if inside(name, "ktrdr_zmq")])
def test_the_shared_package_imports_neither_broker_nor_worker_nor_command_line(name: str) -> None:
    wrong = [what for what, _ in imported(ast.walk(tree(name))) if inside(what, "ktrdr_broker", "ktrdr_worker", "ktrdr_cli")]
    assert wrong == []


@pytest.mark.parametrize("name", [name for name in MODULES if inside(name, "ktrdr_broker", "ktrdr_worker")])
def test_broker_and_worker_stand_beside_each_other(name: str) -> None:
    other = "ktrdr_worker" if inside(name, "ktrdr_broker") else "ktrdr_broker"
    wrong = [what for what, _ in imported(ast.walk(tree(name))) if inside(what, other, "ktrdr_cli")]
    assert wrong == []


@pytest.mark.parametrize("name", [name for name in MODULES if inside(name, "ktrdr_cli")])
def test_the_command_line_touches_broker_and_worker_only_where_it_starts_them(name: str) -> None:
    wrong = [
        f"{name}:{line} imports {what}"
        for what, line in imported(when_loaded(tree(name).body))
        if inside(what, "ktrdr_broker", "ktrdr_worker")
    ]
    assert wrong == []


@pytest.mark.parametrize("name", [name for name in MODULES if inside(name, "ktrdr_worker.trading")])
def test_the_science_knows_only_the_strategy_the_results_and_the_errors(name: str) -> None:
    allowed = ("ktrdr_worker.trading", "ktrdr_zmq.strategy", "ktrdr_zmq.results", "ktrdr_zmq.figures", "ktrdr_zmq.errors")
    wrong = [
        f"{name}:{line} imports {what}"
        for what, line in imported(ast.walk(tree(name)))
        if inside(what, *PACKAGES) and what not in PACKAGES and not inside(what, *allowed)
    ]
    outside = {what.partition(".")[0] for what, _ in imported(ast.walk(tree(name)))} & {
        "asyncio",
        "multiprocessing",
        "socket",
        "subprocess",
        "threading",
        "zmq",
    }
    assert wrong == []
    assert outside == set()


@pytest.mark.parametrize("name", [name for name in MODULES if not inside(name, *CHILD_SIDE)])
def test_nothing_but_a_child_loads_the_science(name: str) -> None:
    wrong = [f"{name}:{line} imports {what}" for what, line in imported(when_loaded(tree(name).body)) if what.partition(".")[0] in SCIENCE]
    assert wrong == []


@pytest.mark.parametrize("name", [name for name in MODULES if inside(name, "ktrdr_broker", "ktrdr_cli")])
def test_broker_and_command_line_never_import_the_science_at_all(name: str) -> None:
    assert [what for what, _ in imported(ast.walk(tree(name))) if what.partition(".")[0] in SCIENCE] == []


LOADS = {
    "the client": ("ktrdr_zmq ktrdr_zmq.client ktrdr_zmq.cluster", SCIENCE | {"pydantic", "rich", "ruamel", "click"}),
    "the broker": ("ktrdr_broker.__main__ ktrdr_broker.server", SCIENCE | {"pydantic", "rich"}),
    "the agent of a worker": ("ktrdr_worker.__main__ ktrdr_worker.server", SCIENCE | {"pydantic", "rich", "multiprocessing"}),
    "the command line": ("ktrdr_cli.main", SCIENCE | {"pydantic", "ruamel", "zmq", "ktrdr_broker", "ktrdr_worker"}),
}


@pytest.mark.parametrize("process", LOADS)
def test_what_a_process_has_loaded_after_its_imports(process: str) -> None:
    """In a fresh interpreter, because another test may have loaded anything here."""
    names, forbidden = LOADS[process]
    code = "import importlib, sys\n[importlib.import_module(n) for n in sys.argv[1:]]\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *names.split()], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert {name.partition(".")[0] for name in done.stdout.split()} & forbidden == set()


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_for(name: str) -> None:
    assert ast.get_docstring(tree(name)), f"{MODULES[name]} has no docstring"


def test_msgspec_and_msgpack_keep_to_their_boundaries() -> None:
    """One library per boundary: bodies are packed in one module; nothing that a peer sends is ever unpickled."""
    packers = {name for name in MODULES if any(inside(what, "msgpack") for what, _ in imported(ast.walk(tree(name))))}
    assert packers == {"ktrdr_zmq.payload", "ktrdr_worker.context"}  # the latter for checkpoints, which only handlers read
    assert not [
        name for name in MODULES for what, _ in imported(ast.walk(tree(name))) if inside(what, "pickle", "yaml", "marshal", "shelve")
    ]


def test_the_base_install_names_none_of_the_science() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {requirement.partition(">")[0].lower() for requirement in project["dependencies"]}
    assert names.isdisjoint({name.replace("talib", "ta-lib") for name in SCIENCE})
    assert {requirement.partition(">")[0].lower() for requirement in project["optional-dependencies"]["worker"]} == {
        name.replace("talib", "ta-lib") for name in SCIENCE
    }
