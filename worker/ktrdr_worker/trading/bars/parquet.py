"""Opens Parquet files, by pyarrow where that is installed: typed columns, or texts where a file has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from ktrdr_worker.trading.bars.table import DataError

MAGIC: Final = b"PAR1"


def is_parquet(path: Path) -> bool:
    """Whether a file says that it is Parquet."""
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def read_columns(path: Path, name: str) -> dict[str, Any]:
    """All columns by their names in small letters: texts as Series of str, moments with a zone as Series in UTC, those without as Series
    without, numbers as arrays of float64 (NaN where one is missing).

    Raises
    ------
    DataError
        When pyarrow is not installed, when the file is damaged, or has a column twice.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError(
            f"{name} is a Parquet file, and this worker cannot read any: pyarrow is not installed there.",
            hint="Install it on the workers with: pip install 'ktrdr-zmq[parquet]'",
        ) from None
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{name} is no readable Parquet file: {str(error).splitlines()[0][:200]}") from None
    found: dict[str, Any] = {}
    for label, column in zip(table.column_names, table.columns, strict=True):
        key = str(label).strip().lower()
        if key in found:
            raise DataError(f"{name} has the column {key} twice.")
        found[key] = _column(pa, column)
    return found


def _column(pa: Any, column: Any) -> Any:
    """A column as something that the rest can work with; None for a type that no bar has."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind, column = kind.value_type, column.cast(kind.value_type)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        moments = column.to_pandas(date_as_object=False)
        return moments.dt.tz_convert("UTC") if getattr(kind, "tz", None) else moments
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pd.Series(["" if text is None else text for text in column.to_pylist()], dtype=object).astype(str)
    return None
