"""What the documents say is so: generated parts are up to date, codes and numbers are those of the source, examples run."""

from __future__ import annotations

import ast
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import ktrdr_broker.__main__
import ktrdr_worker.__main__
import ktrdr_zmq
from ktrdr_broker.config import BrokerConfig
from ktrdr_broker.store import TOMBSTONE_US
from ktrdr_worker.handler import JobContext
from ktrdr_zmq import LocalCluster
from ktrdr_zmq import messages as m
from ktrdr_zmq.config import SETTINGS
from ktrdr_zmq.jobs import Reason

ROOT = Path(__file__).parents[2]
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")


def make_protocol() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "make_protocol.py"))


# ---------------------------------------------------------------- docs/protocol.md


def test_the_tables_of_the_protocol_are_those_of_the_source() -> None:
    assert make_protocol()["renewed"](PROTOCOL) == PROTOCOL, "write them again with: python docs/make_protocol.py"


def test_every_generated_part_is_on_the_page() -> None:
    assert sorted(re.findall(r"<!-- generated: (\w+) -->", PROTOCOL)) == sorted(make_protocol()["PARTS"])


def test_every_message_has_its_section() -> None:
    headings = re.findall(r"^#### (\w+)$", PROTOCOL, re.MULTILINE)
    assert {kind.__name__ for kind in m.VERBS} <= set(headings)


def test_no_two_sections_of_the_protocol_have_one_name() -> None:
    """A link to the second of them would lead to the first."""
    counts = Counter(heading.lower() for heading in re.findall(r"^#+ (.*)$", PROTOCOL, re.MULTILINE))
    assert [heading for heading, count in counts.items() if count > 1] == []


def test_no_meaning_is_given_to_a_field_that_is_not_there() -> None:
    page = make_protocol()
    kinds = [*page["parts"](), *m.VERBS]
    names = {name for kind in kinds for name in kind.__struct_fields__}
    assert set(page["MEANING"]) <= names
    places = {f"{kind.__name__}.{name}" for kind in kinds for name in kind.__struct_fields__}
    assert set(page["SPECIAL"]) <= places


SPEAKERS = ["broker/ktrdr_broker/" + name for name in ("bulk", "clientdesk", "intake", "leases", "server", "store", "workerdesk")]
SPEAKERS += ["ktrdr_zmq/codec", "worker/ktrdr_worker/core", "worker/ktrdr_worker/duties"]


@pytest.mark.parametrize("module", SPEAKERS)
def test_every_code_that_is_sent_is_explained(module: str) -> None:
    """Codes of NACK, BYE, REJECT and verdicts are words in capitals in these modules, and nothing else there is."""
    tree = ast.parse((ROOT / f"{module}.py").read_text(encoding="utf-8"))
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    codes = {word for word in words if re.fullmatch(r"[A-Z]{2,}(_[A-Z]+)*", word)} - {"OK", "EIO", "REFUSED"}
    assert sorted(code for code in codes if f"`{code}`" not in PROTOCOL) == []


def test_every_reason_is_explained() -> None:
    assert [reason for reason in Reason if f"| `{reason}` |" not in PROTOCOL] == []


@pytest.mark.parametrize(
    "words",
    [
        f"body of a job | {BrokerConfig().max_body >> 20} MiB",
        f"result | {BrokerConfig().max_inline_result >> 10} KiB",
        f"result within its event | {BrokerConfig().max_event_body >> 10} KiB",
        f"MAXMSGSIZE {m.MAX_MESSAGE >> 20} MiB",
        f"{BrokerConfig().grace:g} s with the defaults",
        f"silent for `dead_after` ({BrokerConfig().dead_after:g} s)",
        f"every `ping_interval` ({BrokerConfig().ping_interval:g} s",
        f"after the retention ({BrokerConfig().retention / 86_400:g} days)",
        f"at most {BrokerConfig().reclaim_max / 60:g} min",
        f"known for {TOMBSTONE_US // 86_400_000_000} days",
        f"at most {BrokerConfig().prefetch}. Prefetch",
        f"at most {BrokerConfig().max_retries} times",
        f"and {BrokerConfig().artifact_grace / 3600:g} h beyond",
        f"for this job for {BrokerConfig().reject_pause:g} s",
    ],
)
def test_numbers_in_the_text_are_those_of_the_source(words: str) -> None:
    assert words in re.sub(r"\s+", " ", PROTOCOL)


# ---------------------------------------------------------------- examples


def blocks(page: str, word: str = "") -> list[str]:
    """The Python examples of a page whose fence says nothing more, or this word."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [code for said, code in re.findall(r"^```python *([\w-]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) if said == word]


def perform(page: str, codes: list[str], names: dict[str, Any]) -> None:
    """Run examples one after the other, in one namespace, as somebody would who reads the page with an interpreter beside it."""
    for number, code in enumerate(codes, 1):
        exec(compile(code, f"{page}, example {number}", "exec"), names)


@pytest.fixture
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Examples write into the current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.e2e
def test_the_examples_of_the_python_page_run(somewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = [{"id": name, "kinds": ["echo", "noop"], "slots": "cpu=2"} for name in ("one", "two")]
    with LocalCluster(workers) as cluster:
        monkeypatch.setenv("KTRDR_BROKER", cluster.broker)
        names: dict[str, Any] = {}
        perform("docs/python.md", blocks("python.md"), names)
        assert sum(code.count("assert") for code in blocks("python.md")) > 15


@pytest.mark.e2e
@pytest.mark.science
@pytest.mark.timeout(180)
def test_the_training_example_of_the_python_page_runs(somewhere: Path) -> None:
    workers = [
        {"id": "trainer", "kinds": ["training"], "slots": "cpu=1"},
        {
            "id": "tester",
            "kinds": ["backtesting", "report", "check-lookahead", "check-warmup", "data-import", "data-check"],
            "slots": "cpu=1",
        },
    ]
    with LocalCluster(workers) as cluster, cluster.client() as client:
        perform("docs/python.md", blocks("python.md", "science"), {"client": client, "Path": Path})


@pytest.mark.e2e
def test_the_examples_of_the_handlers_page_run(somewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, use = blocks("handlers.md")
    (somewhere / "primes_module.py").write_text(module)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(somewhere), os.environ.get("PYTHONPATH", "")))))
    perform("docs/handlers.md", [use], {})


@pytest.mark.parametrize("page", ["python.md", "handlers.md"])
def test_what_is_not_run_is_python_at_least(page: str) -> None:
    for code in blocks(page, "no-run"):
        compile(code, page, "exec")
    fences = re.findall(r"^```python *([\w-]*)$", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert set(fences) <= {"", "science", "no-run"}


def test_every_public_name_is_on_the_python_page() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert [name for name in ktrdr_zmq.__all__ if name != "__version__" and f"`{name}`" not in page] == []


def test_every_method_of_the_client_is_on_the_python_page() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    for owner in (ktrdr_zmq.Client, ktrdr_zmq.Job):
        methods = [name for name, value in vars(owner).items() if not name.startswith("_") and callable(value)]
        assert [name for name in methods if not re.search(rf"\b{name}\(|`{name}`", page)] == []


def test_exit_codes_on_the_python_page_are_those_of_the_errors() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    for names, codes in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| .* \| ([\d, ]+) \|$", page, re.MULTILINE):
        expected = {getattr(ktrdr_zmq, name).exit_code for name in re.findall(r"\w+", names)}
        assert expected == {int(code) for code in codes.split(",")}, names


def test_the_contract_of_a_handler_is_on_its_page() -> None:
    page = (ROOT / "docs" / "handlers.md").read_text(encoding="utf-8")
    members = [*JobContext.__annotations__, *(name for name in vars(JobContext) if not name.startswith("_"))]
    quiet = {"job_id", "attempt"}  # what they are is in their names
    assert sorted(name for name in set(members) - quiet if name not in page) == []


# ---------------------------------------------------------------- docs/operations.md

OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def command_lines() -> list[str]:
    """Every command line of a daemon on the page."""
    return re.findall(r"^(?:ExecStart=\S*/)?(ktrdr-(?:broker|worker) .*)$", OPERATIONS, re.MULTILINE)


@pytest.mark.parametrize("line", command_lines())
def test_daemons_take_the_options_of_the_page(line: str) -> None:
    program, *words = shlex.split(line)
    options = {"ktrdr-broker": ktrdr_broker.__main__.parser, "ktrdr-worker": ktrdr_worker.__main__.parser}[program]().parse_args(words)
    assert options.log_format in (None, "journald")


def test_settings_on_the_operations_page_exist() -> None:
    files = {"broker.sqlite3", "broker.lock", "worker.json", "worker.lock"}
    named = set(re.findall(r"`((?:client|broker|worker|log)\.[a-z_0-9]+)`", OPERATIONS)) - files
    assert named
    assert named <= {setting.path for setting in SETTINGS}


@pytest.mark.e2e
def test_folders_and_status_are_as_the_operations_page_says(tmp_path: Path) -> None:
    with LocalCluster([{"id": "one", "kinds": ["echo"], "slots": "cpu=1"}], tmp_path) as cluster, cluster.client() as client:
        client.submit("echo", {}, inputs={"a": b"octets"}).result(timeout=30)
        for folder in ("broker", "one"):
            for name in os.listdir(tmp_path / folder):
                assert f"`{name}" in OPERATIONS, f"{folder}/{name} is not explained"
        status = client.status()
    for path in re.findall(r"^\| `([\w.]+)`(?:, `[\w.]+`)? \| (?:it|they|there)", OPERATIONS, re.MULTILINE):
        place: Any = status
        for key in path.split("."):
            assert key in place, path
            place = place[key]


@pytest.mark.e2e
def test_a_backup_made_as_the_page_says_is_a_broker_that_starts(tmp_path: Path) -> None:
    """While the broker runs and has committed things that are still in its write-ahead log."""
    (block,) = re.findall(r"^```bash backup\n(.*?)^```$", OPERATIONS, re.MULTILINE | re.DOTALL)
    copy = tmp_path / "copy" / "broker"
    copy.mkdir(parents=True)
    with LocalCluster([{"id": "one", "kinds": ["echo"], "slots": "cpu=1"}], tmp_path / "first") as cluster, cluster.client() as client:
        ended = client.submit("echo", {"n": 1}, inputs={"a": b"octets"})
        ended.wait(timeout=30)
        waiting = client.submit("noop", {}, queue=True)
        script = block.replace("python3", shlex.quote(sys.executable))
        env = {**os.environ, "DATA": str(tmp_path / "first" / "broker"), "COPY": str(copy)}
        done = subprocess.run(["sh", "-e", "-c", script], env=env, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        client.submit("echo", {"n": 2}).wait(timeout=30)
    with LocalCluster([{"id": "one", "kinds": ["noop"], "slots": "cpu=1"}], tmp_path / "copy") as cluster, cluster.client() as client:
        assert len(client.jobs()) == 2, "what came after the copy is not in it"
        assert client.job(ended.id).result(timeout=30)["n"] == 1
        assert client.get_artifact(ended_input(client, ended.id), tmp_path / "a").read_bytes() == b"octets"
        assert client.job(waiting.id).wait(timeout=30).state == "done"


def ended_input(client: ktrdr_zmq.Client, job_id: str) -> str:
    return client.job(job_id).status().inputs["a"]


# ---------------------------------------------------------------- ARCHITECTURE.md

ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def names_of_tests(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")}


def test_every_test_that_the_architecture_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", ARCHITECTURE)
    assert len(named) > 60
    assert [f"{file}::{name}" for file, name in named if not (ROOT / file).is_file() or name not in names_of_tests(ROOT / file)] == []
    assert ARCHITECTURE.count("::") == len(named), "a name that is not written like the others is not checked"


def test_every_promise_names_a_test_that_exists() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    promises = re.split(r"^\d+\. ", page.partition("## The promises")[2].partition("## What is not promised")[0], flags=re.MULTILINE)[1:]
    assert len(promises) > 10
    assert [promise.splitlines()[0] for promise in promises if "::test_" not in promise] == []
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert [f"{file}::{name}" for file, name in named if name not in names_of_tests(ROOT / file)] == []
    assert page.count("::") == len(named)


def test_every_invariant_names_a_test() -> None:
    page = ARCHITECTURE.partition("## Invariants")[2].partition("## What is not there")[0]
    entries = re.split(r"^- ", page, flags=re.MULTILINE)[1:]
    assert len(entries) > 30
    assert [entry.splitlines()[0] for entry in entries if "::test_" not in entry] == []


EVERYWHERE = ("errors", "config", "logs", "notify", "version", "views", "handles", "testing", "__init__", "__main__")
"""Modules that everybody uses, or that start a process."""

WITHIN = ("store", "model", "capabilities", "effects", "handler", "loading", "pipe", "processes", "state", "transfers")
"""Part of the room of the modules beside them."""


def test_every_module_is_in_a_room() -> None:
    """By its own name, by that of its folder, or beside a module that the table names."""
    rooms = re.findall(r"`([\w/.]+)`", ARCHITECTURE.partition("## Rooms")[2].partition("\n## ")[0])
    folders = tuple(room for room in rooms if room.endswith("/"))
    missing = []
    for package in ("ktrdr_zmq", "broker/ktrdr_broker", "worker/ktrdr_worker", "cli/ktrdr_cli"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            known = name in rooms or path.name in rooms or name.startswith((*folders, "ktrdr_zmq/samples/"))
            if not known and path.stem not in EVERYWHERE + WITHIN:
                missing.append(name)
    assert missing == []
