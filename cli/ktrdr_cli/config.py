"""``ktrdr config``: every setting with its value and where that came from, and the folders in use."""

from __future__ import annotations

from typing import Any

from ktrdr_cli.blocks import Column, Fields, Table
from ktrdr_cli.common import face, group
from ktrdr_cli.texts import as_text
from ktrdr_zmq.errors import ConfigError


@group("config")
def config() -> None:
    """Show the settings and where they come from."""


@config.command("show")
def show() -> None:
    """Show every setting with its source, and the folders.

    An option comes before an environment variable, a variable before the configuration file, the file before the default. Mistakes are
    told, and the exit code is 2 then; what is mistaken is shown with its default.
    """
    from ktrdr_zmq.config import CONFIG_VARIABLE, SETTINGS, find_broker, folders, read_settings, replaced_variables, up_file

    shown = face()
    settings, problems = read_settings({"client.broker": shown.broker})
    try:
        broker: str | None = str(find_broker(shown.broker, settings=settings))
    except ConfigError as error:
        if error.code != "NO_BROKER":
            problems.append(error.message)
        broker = None
    places = folders()
    where = {
        "config": str(places.config), "data": str(places.data), "state": str(places.state), "cache": str(places.cache),
        "runtime": str(places.runtime), "broker_data": settings["broker.data_dir"] or str(places.data / "broker"),
        "up_data": str(places.data / "up"), "up_file": str(up_file()),
    }  # fmt: skip
    entries: list[dict[str, Any]] = [
        {
            "path": setting.path, "value": settings[setting.path], "source": settings.sources[setting.path], "variable": setting.variable,
            "meaning": setting.meaning,
        }
        for setting in SETTINGS
    ]  # fmt: skip
    old = replaced_variables()
    document = {
        "schema": 1, "file": str(settings.file) if settings.file else None, "broker": broker, "settings": entries, "folders": where,
        "replaced": old, "problems": problems,
    }  # fmt: skip
    table = Table(
        [Column("SETTING", whole=True), Column("VALUE"), Column("SOURCE"), Column("VARIABLE")],
        [[entry["path"], as_text(entry["value"]), entry["source"], entry["variable"]] for entry in entries],
    )  # fmt: skip
    file = (
        str(settings.file)
        if settings.file
        else f"none (named by {CONFIG_VARIABLE}, or {places.config / 'config.yaml'}, or /etc/ktrdr/config.yaml)"
    )
    general = Fields([("configuration file", file), ("broker in use", broker or "none: no setting, and no running 'ktrdr up'")])
    names = {"broker_data": "broker's data", "up_data": "data of 'ktrdr up'", "up_file": "running 'ktrdr up'"}
    folder_rows = Fields([(names.get(name, name), path) for name, path in where.items()], title="Folders and files")
    essence = [f"{entry['path']}={as_text(entry['value'])}" for entry in entries]
    shown.out.show(document, general, table, folder_rows, "\n".join(old), essence=essence)
    if problems:
        raise ConfigError("The configuration is wrong:\n  " + "\n  ".join(problems))
