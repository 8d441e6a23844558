"""``ktrdr strategies``: the YAML files that say what to learn. Nothing here needs a broker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ktrdr_cli.blocks import Column, Fields, Table
from ktrdr_cli.common import face, group
from ktrdr_cli.submitting import overrides
from ktrdr_zmq.errors import UsageError

if TYPE_CHECKING:
    from ktrdr_zmq.strategy.indicator import Indicator


@group("strategies")
def strategies() -> None:
    """List, show, validate and copy strategies.

    A strategy is found by its path, or by its name in ./strategies, in the folder of KTRDR_STRATEGIES, or among the built-in ones, in this
    order.
    """


@strategies.command("list")
def list_() -> None:
    """List the strategies that can be named."""
    from ktrdr_zmq.strategy import list_strategies

    found = list_strategies()
    rows = [
        [info.name, info.origin, f"NOT VALID: {_first_line(info.error)}" if info.error else _first_line(info.description)] for info in found
    ]
    documents = [
        {"name": info.name, "description": info.description, "origin": info.origin, "path": str(info.path), "error": info.error}
        for info in found
    ]
    columns = [Column("STRATEGY", whole=True), Column("FROM", whole=True), Column("WHAT IT IS")]
    face().out.show({"schema": 1, "strategies": documents}, Table(columns, rows), essence=[info.name for info in found])


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


@strategies.command("show")
@click.argument("strategy")
def show(strategy: str) -> None:
    """Print a strategy's YAML."""
    from ktrdr_zmq.strategy import find_strategy

    shown = face()
    text, source = find_strategy(strategy)
    if shown.json:
        shown.out.show({"schema": 1, "strategy": strategy, "path": source, "text": text})
    else:
        shown.out.raw(text)


@strategies.command("validate")
@click.argument("strategies", nargs=-1, required=True, metavar="STRATEGY...")
@click.option("--set", "set_", metavar="KEY=VALUE", multiple=True, help="Set a value first, for example training.epochs=5.")
def validate(strategies: tuple[str, ...], set_: tuple[str, ...]) -> None:
    """Check strategies, and show every mistake with its line."""
    from ktrdr_zmq.strategy import StrategyInvalid, find_strategy, parse_strategy

    shown = face()
    values = overrides(set_)
    documents: list[dict[str, Any]] = []
    errors: list[UsageError] = []
    lines = []
    for ref in strategies:
        try:
            text, source = find_strategy(ref)
            parsed = parse_strategy(text, source, dict(values))
        except StrategyInvalid as error:
            errors.append(error)
            documents.append({"strategy": ref, "valid": False, "problems": [str(problem) for problem in error.problems]})
        else:
            documents.append({"strategy": ref, "path": source, "name": parsed.name, "valid": True, "problems": []})
            lines.append(f"{ref} is valid.")
    if lines or shown.json:
        shown.out.show({"schema": 1, "strategies": documents}, *lines, essence=[d["strategy"] for d in documents if d["valid"]])
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise UsageError("\n".join(error.message for error in errors), hint=errors[0].hint, code=errors[0].code)


@strategies.command("copy")
@click.argument("strategy")
@click.argument("to", required=False, metavar="[NAME|FILE]")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def copy(strategy: str, to: str | None, force: bool) -> None:
    """Copy a strategy into ./strategies, to start one of your own. Given a new name, the copy says it too: its models are called by it."""
    from ktrdr_zmq.strategy import find_strategy

    text, source = find_strategy(strategy)
    target = to or Path(source).stem
    path = Path(target) if target.endswith((".yaml", ".yml")) else Path("strategies") / f"{target}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(_renamed(text, path.stem) if to else text)
    except FileExistsError:
        raise UsageError(f"{path} exists already.", hint="Give another name, or overwrite it with --force.") from None
    said = f"Copied to {path}. Train with it: ktrdr models train --strategy {path.stem if path.parent == Path('strategies') else path}"
    face().out.show({"schema": 1, "path": str(path), "from": source}, said, essence=[str(path)])


def _renamed(text: str, name: str) -> str:
    """The text of a strategy with another name, and nothing else changed; as it is if that can be no name."""
    from ktrdr_zmq.strategy.parsing import NAME

    plain = NAME.fullmatch(name) and name.lower() not in ("true", "false", "null")
    return re.sub(r"(?m)^name:.*$", f"name: {name}", text, count=1) if plain else text


@strategies.command("indicators")
@click.argument("name", required=False)
def indicators(name: str | None) -> None:
    """List the indicators that a strategy can use, or explain one: its parameters, outputs, and the bars it needs first."""
    from ktrdr_zmq.strategy.catalogue import CATALOGUE, meant_by
    from ktrdr_zmq.strategy.problems import did_you_mean

    if name is None:
        families: dict[str, list[list[str]]] = {}
        for kind, known in CATALOGUE.items():
            families.setdefault(known.family, []).append([kind, known.meaning])
        columns = [Column("INDICATOR", whole=True), Column("WHAT IT IS")]
        tables = [Table(columns, rows, title=family) for family, rows in families.items()]
        document = {"schema": 1, "indicators": [_described(kind, known) for kind, known in CATALOGUE.items()]}
        face().out.show(document, *tables, essence=list(CATALOGUE))
        return
    if name not in CATALOGUE:
        meant = meant_by(name)
        raise UsageError(
            f"There is no indicator {name!r}{f'; did you mean {meant}?' if meant else did_you_mean(name, CATALOGUE) or '.'}",
            hint="List all: ktrdr strategies indicators",
        )
    known = CATALOGUE[name]
    described = _described(name, known)
    keys = ["source"] * known.sourced + list(known.parameters)
    fields = [
        ("indicator", name),
        ("family", known.family),
        ("what it is", known.meaning),
        ("outputs", ", ".join(known.outputs) + (f" (a bare id means {known.outputs[0]})" if known.bare else "")),
        ("bars before", f"{described['bars_before']} with the defaults, in general {known.formula}"),
        ("unstable", {True: "yes: more history changes its values", False: "no", "average": "if its average is"}[known.unstable]),
        ("needs volume", "yes" if known.volume else "no"),
        ("TA-Lib", ", ".join(known.talib) or "-"),
        ("write", f"my_{name}: {{type: {name}{''.join(f', {key}: {p.default}' for key, p in known.parameters.items())}}}"),
    ]
    table = Table(
        [Column("PARAMETER", whole=True), Column("DEFAULT", whole=True), Column("VALUES"), Column("MEANING")],
        [_parameter_row(key, known) for key in keys],
        empty="It has no parameters.",
    )
    face().out.show({"schema": 1, **described}, Fields(fields), table, essence=[f"{name}.{output}" for output in known.outputs])


def _described(name: str, known: Indicator) -> dict[str, Any]:
    """An indicator as ``--json`` has it."""
    defaults = {key: parameter.default for key, parameter in known.parameters.items()}
    parameters = {
        key: {"default": p.default, "meaning": p.meaning, **({"choices": p.choices} if p.choices else {"from": p.low, "to": p.high})}
        for key, p in known.parameters.items()
    }
    return {
        "name": name, "family": known.family, "meaning": known.meaning, "parameters": parameters, "source": known.sourced,
        "outputs": known.outputs, "bare_output": known.outputs[0] if known.bare else None, "bars_before": known.warmup(defaults),
        "bars_before_formula": known.formula, "unstable": known.is_unstable(defaults), "volume": known.volume, "talib": known.talib,
    }  # fmt: skip


def _parameter_row(key: str, known: Indicator) -> list[str]:
    if key == "source":
        from ktrdr_zmq.strategy.indicator import SOURCES

        return [key, "close", " ".join(SOURCES), "What it is computed from."]
    parameter = known.parameters[key]
    if parameter.choices:
        return [key, str(parameter.default), " ".join(parameter.choices), parameter.meaning]
    values = f"{parameter.low:g} to {parameter.high:g}{', whole' if parameter.whole else ''}"
    return [key, f"{parameter.default:g}", values, parameter.meaning]
