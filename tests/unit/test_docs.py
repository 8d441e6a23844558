"""What the documents say is so: generated parts are up to date, codes and numbers are those of the source, examples run."""

from __future__ import annotations

import ast
import re
import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ktrdr_broker.config import BrokerConfig
from ktrdr_broker.store import TOMBSTONE_US
from ktrdr_zmq import messages as m
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
