"""The distribution: what is in it, what it declares, and that the documents speak of things that exist."""

from __future__ import annotations

import configparser
import importlib
import importlib.metadata
import importlib.resources
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ktrdr_zmq.version
from ktrdr_zmq.config import CONFIG_VARIABLE, SETTINGS

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = ("ktrdr_zmq", "ktrdr_broker", "ktrdr_worker", "ktrdr_cli")
DOCUMENTS = sorted(
    path for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")] if path.is_file()
)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------------- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """A wheel of a copy of the tree, as `pip wheel` makes it, with the build backend that is installed here."""
    copy = tmp_path_factory.mktemp("tree") / "project"
    leave_out = shutil.ignore_patterns(".git", ".tox", ".venv", "__pycache__", ".*_cache", "tests", "build", "dist")
    shutil.copytree(ROOT, copy, ignore=leave_out, ignore_dangling_symlinks=True)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(copy / "dist"), str(copy)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    (path,) = (copy / "dist").glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.mark.packaging
def test_the_wheel_holds_the_four_packages_whole(wheel: zipfile.ZipFile) -> None:
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in inside} == set(PACKAGES)
    sources = {"ktrdr_zmq": "ktrdr_zmq", "ktrdr_broker": "broker/ktrdr_broker", "ktrdr_worker": "worker/ktrdr_worker"}
    for package, folder in (sources | {"ktrdr_cli": "cli/ktrdr_cli"}).items():
        here = {
            f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert here - inside == set(), "left out of the wheel"
        assert f"{package}/py.typed" in inside


@pytest.mark.packaging
def test_the_wheel_carries_what_a_first_run_needs(wheel: zipfile.ZipFile) -> None:
    """Strategies, bars with their licences, the database's schema: nothing is looked for beside the package."""
    suffixes = [Path(name).suffix for name in wheel.namelist()]
    assert suffixes.count(".yaml") >= 1
    assert suffixes.count(".csv") + suffixes.count(".gz") >= 2
    assert "ktrdr_broker/schema.sql" in wheel.namelist()
    assert [name for name in wheel.namelist() if "LICENSE" in Path(name).name and "dist-info" not in name]


@pytest.mark.packaging
def test_the_wheel_declares_itself(wheel: zipfile.ZipFile) -> None:
    (info,) = {name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    metadata = wheel.read(f"{info}/METADATA").decode()
    assert re.search(rf"^Version: {re.escape(ktrdr_zmq.version.__version__)}$", metadata, re.MULTILINE)
    assert "License-Expression: MIT" in metadata
    assert f"{info}/licenses/LICENSE" in wheel.namelist()
    points = configparser.ConfigParser()
    points.optionxform = str  # type: ignore[method-assign, assignment]  # names keep their case
    points.read_string(wheel.read(f"{info}/entry_points.txt").decode())
    assert dict(points["console_scripts"]) == PYPROJECT["project"]["scripts"]
    assert dict(points["ktrdr_zmq.handlers"]) == PYPROJECT["project"]["entry-points"]["ktrdr_zmq.handlers"]


# ---------------------------------------------------------------------------------------------------------------- what is installed


@pytest.mark.parametrize("name", PYPROJECT["project"]["scripts"])
def test_console_scripts_return_their_exit_code(name: str) -> None:
    module, _, function = PYPROJECT["project"]["scripts"][name].partition(":")
    main = getattr(importlib.import_module(module), function)
    with pytest.raises(SystemExit) as stop:
        raise SystemExit(main(["--help"]))
    assert not stop.value.code


@pytest.mark.parametrize("kind", ["echo", "noop"])
def test_light_handlers_load_from_their_entry_points(kind: str) -> None:
    (point,) = importlib.metadata.entry_points(group="ktrdr_zmq.handlers", name=kind)
    assert point.load().kind == kind


@pytest.mark.science
@pytest.mark.parametrize("kind", ["training", "backtesting", "data-import", "data-check"])
def test_scientific_handlers_load_from_their_entry_points(kind: str) -> None:
    (point,) = importlib.metadata.entry_points(group="ktrdr_zmq.handlers", name=kind)
    assert point.load().kind == kind


def test_every_file_of_package_data_can_be_read_as_a_resource() -> None:
    files = importlib.resources.files("ktrdr_broker")
    assert "CREATE TABLE" in (files / "schema.sql").read_text(encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------------- the documents


def test_every_variable_is_in_the_example_and_in_the_documentation() -> None:
    known = {setting.variable for setting in SETTINGS} | {CONFIG_VARIABLE}
    assert set(re.findall(r"^#?(KTRDR_[A-Z_]+)=", text(".env.example"), re.MULTILINE)) == known
    table = dict(re.findall(r"^\| `([a-z_.]+)` \| `(KTRDR_[A-Z_]+)` \|", text("docs/configuration.md"), re.MULTILINE))
    assert table == {setting.path: setting.variable for setting in SETTINGS}
    for setting in SETTINGS:
        assert setting.meaning in text("docs/configuration.md")
        assert f"# {setting.meaning}\n#{setting.variable}=" in text(".env.example")


def test_defaults_in_the_example_are_the_defaults() -> None:
    given = dict(re.findall(r"^#(KTRDR_[A-Z_]+)=(.*)$", text(".env.example"), re.MULTILINE))
    for setting in SETTINGS:
        written = given[setting.variable]
        assert (setting.read(written) if written else setting.default) == setting.default


def environments() -> set[str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text("tox.ini"))
    return {section.removeprefix("testenv:") for section in parser.sections() if section.startswith("testenv:")}


def test_every_tox_environment_that_is_named_exists() -> None:
    named = {name for path in DOCUMENTS for name in re.findall(r"tox -e ([a-z0-9-]+)", path.read_text(encoding="utf-8"))}
    named |= set(re.findall(r"-e ([a-z0-9-]+)", text("Makefile")))
    assert len(named) > 5
    assert named <= environments()


def test_every_tox_environment_is_explained() -> None:
    explained = set(re.findall(r"tox -e ([a-z0-9-]+)", text("CONTRIBUTING.md")))
    assert environments() - explained <= {"tests"}  # this one is what plain `tox` begins with


def test_the_makefile_has_the_names_that_people_try() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", text("Makefile"), re.MULTILINE))
    assert {"test", "test-unit", "test-e2e", "quality", "demo"} <= targets


def test_readme_has_exactly_two_set_up_commands() -> None:
    """Each is one line; .ci/run and tests/hosts/clean_debian.sh take them from here."""
    demo, tests = re.findall(r"^python3 -m venv .*$", text("README.md"), re.MULTILINE)
    assert demo.endswith("/ktrdr demo")
    assert tests.endswith("/tox")


def test_readme_names_only_variables_that_exist() -> None:
    known = {setting.variable for setting in SETTINGS} | {CONFIG_VARIABLE, "KTRDR_API_URL"}
    assert set(re.findall(r"KTRDR_[A-Z_]+", text("README.md"))) <= known


def commands() -> list[list[str]]:
    """The words of every `ktrdr ...` command that README.md gives."""
    found = re.findall(r"^ *ktrdr ([a-z][a-z ]*)", "\n".join(re.findall(r"```bash\n(.*?)```", text("README.md"), re.DOTALL)), re.MULTILINE)
    found += re.findall(r"`ktrdr ([a-z][a-z ]*)", text("README.md"))
    return sorted({tuple(words.split()) for words in found})  # type: ignore[arg-type]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_readme_commands_exist(words: list[str]) -> None:
    """Each is a path through the command line's groups; what follows a command is its own business."""
    import click

    node: Any = importlib.import_module("ktrdr_cli.main").cli
    for word in words:
        assert isinstance(node, click.Group)
        node = node.get_command(click.Context(node), word)
        assert node is not None, f"ktrdr {' '.join(words)}: there is no {word}"
    assert not isinstance(node, click.Group) or len(words) == 1


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    source = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", source):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        aim = (document.parent / path).resolve() if path else document
        assert aim.exists(), f"{document.name} links to {target}"
        if anchor and aim.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", aim.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_files_that_architecture_names_exist() -> None:
    """ARCHITECTURE.md names, for each invariant, the check that holds it."""
    named = set(re.findall(r"`((?:tests|ktrdr_zmq|broker|worker|cli|docs|benchmarks|examples)/[\w./-]+)`", text("ARCHITECTURE.md")))
    assert len(named) > 10
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_nothing_names_a_machine_or_a_registry() -> None:
    """The project installs from whatever pip is set up with."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=False)
    if names.returncode:
        pytest.skip("not a git work tree")
    words = re.compile(
        "|".join(("find" + "-links *=", "extra-index" + "-url", "/opt/" + "wheels", "/root" + "/", "files.python" + "hosted"))
    )
    for name in filter(None, names.stdout.decode().split("\0")):
        path = ROOT / name
        if path.is_file() and path.suffix in {".py", ".toml", ".ini", ".md", ".sh", ".yaml", ".yml", ".cfg", ""}:
            assert not words.search(path.read_text(encoding="utf-8", errors="replace")), name


def test_version_is_the_one_of_the_changelog() -> None:
    """A released version has its section; a development version stands under "Unreleased", which names what it will be."""
    version = ktrdr_zmq.version.__version__
    if ".dev" in version:
        assert f"will be {version.partition('.dev')[0]}" in text("CHANGELOG.md")
    else:
        assert f"## [{version}]" in text("CHANGELOG.md")


@pytest.mark.packaging
@pytest.mark.parametrize("name", ["ktrdr", "ktrdr-broker", "ktrdr-worker"])
def test_installed_scripts_run(name: str) -> None:
    script = shutil.which(name, path=str(Path(sys.executable).parent))
    assert script, f"{name} is not installed beside {sys.executable}"
    done = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert ktrdr_zmq.version.__version__ in done.stdout
