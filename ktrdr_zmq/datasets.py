"""Files of bars that jobs can name: one's own, those that were imported into the cluster, the built-in ones; and the jobs that import and
check them. Parsing is a worker's work: here files are names and octets. No sockets.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from ktrdr_zmq.errors import UsageError
from ktrdr_zmq.handles import JobRequest
from ktrdr_zmq.results import Document
from ktrdr_zmq.samples import list_samples
from ktrdr_zmq.strategy.formats import BarFormat
from ktrdr_zmq.strategy.timeframes import MINUTES, can_derive, parse_timeframe

if TYPE_CHECKING:
    from ktrdr_zmq.client import AsyncClient
    from ktrdr_zmq.views import JobInfo

IMPORT: Final = "data-import"
CHECK: Final = "data-check"
BARS: Final = "bars"
"""The artifact of an import: the canonical file. A job that carries it is kept until it is removed by name."""
LARGEST_FILE: Final = 2 << 30
SYMBOL: Final = r"[A-Za-z0-9._^=-]{1,32}"
ENDINGS: Final = (".csv", ".parquet")
ORIGINS: Final = ("data-dir", "cluster", "built-in")
"""Where bars come from, in the order in which they are looked for."""


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """A file of bars that jobs can name.

    Attributes
    ----------
    symbol, timeframe : str
    origin : str
        ``data-dir``, ``cluster`` or ``built-in``.
    filename : str
        What messages call it.
    size : int
        Octets.
    path : str
        Where it is on this machine; empty for those in the cluster.
    digest, job_id : str
        Of those in the cluster: the SHA-256 in hex, and the import that made it.
    version : int
        Of those in the cluster: 1 for the first import of this name. The newest is used.
    current : bool
        Whether jobs that name symbol and timeframe get this one among those of its origin.
    imported : datetime, optional
    about : str
        Where it came from.
    licence : str
        The path of its licence.
    """

    symbol: str
    timeframe: str
    origin: str
    filename: str
    size: int
    path: str = ""
    digest: str = ""
    job_id: str = ""
    version: int = 0
    current: bool = True
    imported: dt.datetime | None = None
    about: str = ""
    licence: str = ""

    @property
    def name(self) -> str:
        """``SYMBOL_TIMEFRAME``."""
        return f"{self.symbol}_{self.timeframe}"

    @property
    def source(self) -> Path | str:
        """What a job takes as its input: a file, or the digest of what is stored already."""
        return self.digest or Path(self.path)


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """A place where bars are missing: opens of the bars beside it, and how many would fit."""

    after: str
    before: str
    bars: int


class Derived(msgspec.Struct, frozen=True, kw_only=True):
    """How many bars of a coarser timeframe can be made; ``why_not`` is empty where that works."""

    timeframe: str
    bars: int
    why_not: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something wrong in a file, how often, and in which row first (0: in the file as a whole)."""

    code: str
    row: int
    times: int
    text: str
    hint: str


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a file of bars has. ``first`` and ``last`` are opens (ISO 8601, UTC); ``gaps`` counts places, ``missing_bars`` bars."""

    bars: int
    first: str
    last: str
    gaps: int
    missing_bars: int
    largest_gaps: list[Gap]
    derived: list[Derived]


class ImportResult(Document, frozen=True, kw_only=True):
    """What an import returns; the canonical file is the artifact ``bars`` with the digest ``digest``.

    ``changed`` counts what was done to rows. ``source_digest`` is that of the file as it was submitted, ``format`` what was said of it.
    """

    KIND: ClassVar[str] = IMPORT

    symbol: str
    timeframe: str
    filename: str
    digest: str
    source_digest: str
    format: dict[str, Any]
    summary: Summary
    changed: dict[str, int]
    ignored_columns: list[str]
    duration_s: float
    warnings: list[str]


class CheckResult(Document, frozen=True, kw_only=True):
    """What a check returns: every kind of problem, and what the file has if there is none."""

    KIND: ClassVar[str] = CHECK

    symbol: str
    timeframe: str
    filename: str
    digest: str
    good: bool
    problems: list[Problem]
    summary: Summary | None
    duration_s: float


DOCUMENTS: Final[Mapping[str, type[Document]]] = {cls.KIND: cls for cls in (ImportResult, CheckResult)}


def check_symbol(symbol: str) -> None:
    """Refuse what is no symbol.

    Raises
    ------
    UsageError
    """
    if not re.fullmatch(SYMBOL, symbol):
        raise UsageError(f"{symbol!r:.40} is no symbol: letters, digits and . _ ^ = - only, at most 32.")


# ---------------------------------------------------------------- what there is


def own(folder: str | Path | None) -> list[Dataset]:
    """The files of bars in a folder, by their names.

    Raises
    ------
    UsageError
        When there is no such folder, or it has the same bars twice.
    """
    if folder is None:
        return []
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise UsageError(f"The data folder {place} does not exist.")
    found: dict[str, Dataset] = {}
    for path in sorted(place.iterdir()):
        symbol, _, timeframe = path.stem.rpartition("_")
        if path.suffix not in ENDINGS or timeframe not in MINUTES or not re.fullmatch(SYMBOL, symbol) or not path.is_file():
            continue
        if path.stem in found:
            raise UsageError(f"{place} has {path.stem} twice: {found[path.stem].filename} and {path.name}.", hint="Keep one of them.")
        found[path.stem] = Dataset(
            symbol=symbol, timeframe=timeframe, origin="data-dir", filename=path.name, size=path.stat().st_size, path=str(path)
        )
    return list(found.values())


def of_cluster(infos: Sequence[JobInfo]) -> list[Dataset]:
    """What was imported, from the imports that are done, the newest first."""
    count: dict[str, int] = {}
    found = []
    for info in reversed(infos):
        symbol, _, timeframe = info.name.rpartition("_")
        artifact = next((artifact for artifact in info.artifacts if artifact.name == BARS), None)
        if artifact is None or timeframe not in MINUTES:
            continue
        count[info.name] = count.get(info.name, 0) + 1
        found.append(
            Dataset(
                symbol=symbol,
                timeframe=timeframe,
                origin="cluster",
                filename=f"{info.name}.csv",
                size=artifact.size,
                digest=artifact.digest,
                job_id=info.id,
                version=count[info.name],
                imported=info.finished,
                about=f"imported by {info.submitter}",
            )
        )
    return [msgspec.structs.replace(each, current=each.version == count[each.name]) for each in reversed(found)]


def built_in() -> list[Dataset]:
    """What comes with the package."""
    return [
        Dataset(
            symbol=sample.symbol, timeframe=sample.timeframe, origin="built-in", filename=sample.path.name,
            size=sample.path.stat().st_size, path=str(sample.path), about=sample.source, licence=str(sample.licence),
        )
        for sample in list_samples()
    ]  # fmt: skip


async def known_to(client: AsyncClient) -> list[Dataset]:
    """What was imported into a client's cluster, the newest first."""
    return of_cluster(await client.jobs(states=["done"], kinds=[IMPORT], limit=10_000))


def find(symbol: str, timeframes: Sequence[str], data_dir: str | Path | None, known: Sequence[Dataset] = ()) -> Dataset:
    """The file from which bars can be made: one's own, then those in the cluster, then the built-in ones; of each the coarsest.

    Parameters
    ----------
    symbol : str
    timeframes : sequence of str
        All of them must be makeable.
    data_dir : Path, optional
        One's own folder.
    known : sequence of Dataset
        Those in the cluster.

    Raises
    ------
    NoBars
        When there is none; it says what there is.
    UsageError
        When a symbol or timeframe is none, or a file is too large.
    """
    for timeframe in timeframes:
        parse_timeframe(timeframe)
    check_symbol(symbol)
    for place in (own(data_dir), known, built_in()):
        fitting = [
            each
            for each in place
            if each.symbol == symbol and each.current and all(can_derive(each.timeframe, timeframe) for timeframe in timeframes)
        ]
        if fitting:
            best = max(fitting, key=lambda each: MINUTES[each.timeframe])
            if best.size > LARGEST_FILE:
                raise UsageError(f"{best.path or best.filename} is larger than {LARGEST_FILE:,} octets.")
            return best
    wanted, shortest = " and ".join(timeframes), min(timeframes, key=MINUTES.__getitem__)
    there = ", ".join(f"{each.symbol} {each.timeframe}" for each in built_in())
    where = [f"in {data_dir}"] * (data_dir is not None) + ["among the imported ones", f"among the built-in ones ({there})"]
    raise NoBars(
        f"There are no bars for {symbol} from which {wanted} can be made {', '.join(where[:-1])} or {where[-1]}.",
        hint=f"Import them with: ktrdr data import FILE --symbol {symbol} --timeframe {shortest}; or put {symbol}_{shortest}.csv "
        "into a folder and name it with --data-dir.",
    )


class NoBars(UsageError):
    """There are no such bars."""

    code = "NO_BARS"


# ---------------------------------------------------------------- the jobs


def importing(file: str | Path, symbol: str, timeframe: str, form: Mapping[str, Any] | None = None, **options: Any) -> JobRequest:
    """An import of a file into the cluster.

    Parameters
    ----------
    file : Path
        CSV or Parquet.
    symbol, timeframe : str
        What it has.
    form : dict, optional
        How it is written, as far as it is no canonical file: the fields of `BarFormat`.
    options
        Anything else that `JobRequest` takes.

    Raises
    ------
    UsageError
        When something of this makes no sense.
    """
    parse_timeframe(timeframe)
    check_symbol(symbol)
    path = readable(file)
    return _request(IMPORT, path, path.name, symbol, timeframe, form, options)


def checking(
    source: Path | str, filename: str, symbol: str, timeframe: str, form: Mapping[str, Any] | None = None, **options: Any
) -> JobRequest:
    """A check of a file, or of what is stored under a digest; see `importing`."""
    parse_timeframe(timeframe)
    return _request(CHECK, source, filename, symbol, timeframe, form, options)


def to_check(
    source: str, symbol: str, timeframe: str, there: Sequence[Dataset], form: Mapping[str, Any] | None = None, **options: Any
) -> JobRequest:
    """A check of a file, whose name may say what it has, or of the first set of bars of a name.

    Raises
    ------
    UsageError
        When there is neither, or it is not said what the file has.
    """
    if not (Path(source).suffix in ENDINGS or "/" in source or Path(source).is_file()):
        found = named(f"{source}_{timeframe}" if timeframe and source.rpartition("_")[2] not in MINUTES else source, there)[0]
        return checking(found.source, found.filename, found.symbol, found.timeframe, form, **options)
    path = readable(source)
    named_symbol, _, named_timeframe = path.stem.rpartition("_")
    if not timeframe and named_timeframe not in MINUTES:
        raise UsageError(f"The name {path.name} does not say what bars it has; say it.", hint="Use --timeframe, and --symbol.")
    told = symbol or (named_symbol if named_timeframe in MINUTES else path.stem)
    return checking(path, path.name, told, timeframe or named_timeframe, form, **options)


def _request(
    kind: str, source: Path | str, filename: str, symbol: str, timeframe: str, form: Mapping[str, Any] | None, options: dict[str, Any]
) -> JobRequest:
    said = BarFormat.read(form or {})
    body = {"schema": 1, "symbol": symbol, "timeframe": timeframe, "filename": filename, "format": msgspec.to_builtins(said)}
    return JobRequest(kind=kind, body=body, inputs={"data": source}, name=f"{symbol}_{timeframe}", **{"device": "cpu", **options})


def readable(file: str | Path) -> Path:
    """A file of a person's.

    Raises
    ------
    UsageError
        When there is none, or it is too large.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise UsageError(f"There is no file {path}.")
    if path.stat().st_size > LARGEST_FILE:
        raise UsageError(f"{path} is larger than {LARGEST_FILE:,} octets.")
    return path


def named(text: str, there: Sequence[Dataset]) -> list[Dataset]:
    """The sets of bars that a person means by SYMBOL_TIMEFRAME, SYMBOL_TIMEFRAME@N, SYMBOL, or an import's id; those in use first.

    Raises
    ------
    NoBars
        When there are none.
    """
    name, _, version = text.partition("@")
    if version and not version.isdigit():
        raise UsageError(f"{text!r} is no set of bars: a version is a whole number from 1, as in {name}@1.")
    found = [
        each
        for each in there
        if (name in (each.name, each.symbol) or (len(text) >= 4 and each.job_id.startswith(text)))
        and (not version or each.version == int(version))
    ]
    if not found:
        raise NoBars(f"There are no bars {text!r}.", hint="See them with: ktrdr data list")
    return found
