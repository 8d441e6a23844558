"""``ktrdr strategies``: the YAML files that say what to learn. Nothing here needs a broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ktrdr_cli.blocks import Column, Table
from ktrdr_cli.common import face, group
from ktrdr_cli.submitting import overrides
from ktrdr_zmq.errors import UsageError


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
    """Copy a strategy into ./strategies, to start one of your own."""
    from ktrdr_zmq.strategy import find_strategy

    text, source = find_strategy(strategy)
    target = to or Path(source).stem
    path = Path(target) if target.endswith((".yaml", ".yml")) else Path("strategies") / f"{target}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} exists already.", hint="Give another name, or overwrite it with --force.") from None
    said = f"Copied to {path}. Train with it: ktrdr models train --strategy {path.stem if path.parent == Path('strategies') else path}"
    face().out.show({"schema": 1, "path": str(path), "from": source}, said, essence=[str(path)])
