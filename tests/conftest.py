"""What all tests share. Nothing of a person's own set-up reaches a test; where the science is missing, what needs it is left out.

A test module needs the science if it says so (``pytest.mark.science``) or imports one of its packages when it is loaded. A single
test of another module is marked ``science``. What was left out is printed; `--need-science` makes it an error.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("unhurried", deadline=None)  # a busy machine fails no test
hypothesis.settings.load_profile("unhurried")

SCIENCE = ("numba", "numpy", "pandas", "plotly", "safetensors", "talib", "torch")
"""The packages of the worker extra, by the names they are imported under."""

SCIENTIFIC = ("ktrdr_worker.jobs.training", "ktrdr_worker.jobs.backtesting", "ktrdr_worker.trading")
"""Rooms of the project that cannot be imported without them."""

MISSING = [name for name in SCIENCE if importlib.util.find_spec(name) is None]
LEFT_OUT: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Two options of our own, for tox.ini: each says what the environment must be."""
    parser.addoption("--need-science", action="store_true", help="fail if a package of the worker extra is missing")
    parser.addoption("--without-science", action="store_true", help="fail if a package of the worker extra is installed")
    parser.addoption("--seeds", type=int, help="play so many stories of the World, and report on them, in place of its usual tests")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a run that would not show what it is for."""
    if MISSING and config.getoption("--need-science"):
        raise pytest.UsageError(f"not installed: {', '.join(MISSING)} (pip install '.[worker]')")
    present = sorted(set(SCIENCE) - set(MISSING))
    if present and config.getoption("--without-science"):
        raise pytest.UsageError(f"installed, though this run is about their absence: {', '.join(present)}")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out modules that could not even be imported."""
    if MISSING and collection_path.suffix == ".py" and needs_science(collection_path):
        LEFT_OUT.append(collection_path.name)
        return True
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the single tests that are marked."""
    if MISSING:
        skip = pytest.mark.skip(reason=f"not installed: {', '.join(MISSING)}")
        for item in items:
            if item.get_closest_marker("science"):
                item.add_marker(skip)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much was left out."""
    if LEFT_OUT:
        terminalreporter.write_line(f"left out {len(LEFT_OUT)} modules that need the worker extra: {', '.join(sorted(LEFT_OUT))}")


@functools.cache
def needs_science(path: Path) -> bool:
    """Tell whether a test module needs the science to be imported or says that all of it does."""
    return any(_needs(node) for node in _run_at_import(ast.parse(path.read_text(encoding="utf-8"), str(path)).body))


def _run_at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.dump(node.test):
            yield from _run_at_import(node.body)


def _needs(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets) and "attr='science'" in ast.dump(
            node.value
        )
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
        names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return any(name == room or name.startswith(f"{room}.") for name in names for room in SCIENCE + SCIENTIFIC)


@pytest.fixture(autouse=True)
def _nothing_of_mine(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Hide a person's cluster, configuration and folders from every test."""
    for name in list(os.environ):
        if name.startswith("KTRDR_") and not name.startswith("KTRDR_TEST_"):
            monkeypatch.delenv(name)
    home = tmp_path_factory.getbasetemp() / "home"
    home.mkdir(exist_ok=True)
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(home / name.lower()))
