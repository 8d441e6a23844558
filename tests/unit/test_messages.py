"""The structs of the wire: verbs, positions, and what may change within a major version."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from ktrdr_zmq import jobs
from ktrdr_zmq import messages as m
from tests.unit.samples import BARE, FULL
from tests.unit.vectors.generate import TABLES

KINDS = sorted(m.VERBS, key=lambda kind: kind.__name__)


def test_every_message_class_has_a_verb() -> None:
    classes = {kind for kind in vars(m).values() if isinstance(kind, type) and issubclass(kind, m.Message)} - {m.Message}
    assert classes == set(m.VERBS)


def test_a_verb_means_one_thing_only() -> None:
    """Have, HaveReply and Nack go several ways, with the same verb on each."""
    meanings: dict[int, set[type[m.Message]]] = {}
    for table in TABLES.values():
        for verb, kind in table.items():
            meanings.setdefault(verb, set()).add(kind)
    assert [verb for verb, kinds in meanings.items() if len(kinds) > 1] == []
    assert all(0 < verb < 256 for verb in meanings)


def test_what_comes_in_and_what_goes_out_share_no_verb() -> None:
    for inward, outward in ((m.FROM_WORKER, m.TO_WORKER), (m.FROM_CLIENT, m.TO_CLIENT), (m.BULK_TO_BROKER, m.BULK_FROM_BROKER)):
        assert inward.keys().isdisjoint(outward)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_messages_are_positional_and_say_what_they_are_for(kind: type[m.Message]) -> None:
    assert kind.__struct_config__.array_like
    assert kind.__doc__
    required = [field.required for field in msgspec.structs.fields(kind)]
    assert required == sorted(required, reverse=True), "what may be left out stands at the end"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_only_views_and_introductions_are_maps(kind: type[m.Message]) -> None:
    """They are for people, and may grow anywhere; everything else is counted in octets."""

    def inside(hint: Any) -> set[type]:
        found = {hint} if isinstance(hint, type) and issubclass(hint, msgspec.Struct) else set()
        return found.union(*map(inside, getattr(hint, "__args__", ())), *(inside(part) for part in found_hints(found)))

    def found_hints(structs: set[type]) -> list[Any]:
        return [field.type for struct in structs for field in msgspec.structs.fields(struct)]

    maps = {struct for struct in inside(kind) if not struct.__struct_config__.array_like}
    assert maps <= {m.WorkerInfo, m.ClientInfo, m.Device, m.JobView, m.WorkerView}


def test_every_message_has_a_sample() -> None:
    assert {type(message) for message, _ in FULL} == set(m.VERBS)


@pytest.mark.parametrize("message", [message for message, _ in FULL], ids=lambda message: type(message).__name__)
def test_full_samples_leave_nothing_at_its_default(message: m.Message) -> None:
    """Otherwise a field could lose its place unnoticed."""
    same = []
    for field in msgspec.structs.fields(type(message)):
        value = getattr(message, field.name)
        standard = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        if not field.required and value == standard:
            same.append(field.name)
    assert set(same) <= {"dropped", "on"}  # a result that is there is not dropped; a drain that is on is the default


def test_every_message_with_something_to_leave_out_has_a_bare_sample() -> None:
    optional = {kind for kind in m.VERBS if not all(field.required for field in msgspec.structs.fields(kind))}
    assert optional <= {type(message) for message, _ in BARE}


def test_defaults_are_not_shared_between_messages() -> None:
    first, second = m.WorkerPing(1, 1), m.WorkerPing(1, 1)
    first.tokens.append(5)
    assert second.tokens == []


def test_structs_of_jobs_that_are_kept_and_sent_are_positional() -> None:
    for kind in (jobs.JobSpec, jobs.Artifact, jobs.Failure, jobs.Attempt):
        assert kind.__struct_config__.array_like
        required = [field.required for field in msgspec.structs.fields(kind)]
        assert required == sorted(required, reverse=True)


def test_names_that_go_over_the_wire_are_plain() -> None:
    """Field names of maps are part of the wire: short, lower case, and no name twice in different spelling."""
    names = list(
        itertools.chain.from_iterable(kind.__struct_fields__ for kind in (m.WorkerInfo, m.ClientInfo, m.Device, m.JobView, m.WorkerView))
    )
    assert all(name.isascii() and name == name.lower() and len(name) <= 20 for name in names)
