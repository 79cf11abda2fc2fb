"""Apache Parquet: typed columns, read only where the contract names them, one row group after the other."""

from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from wardround.client.connectors.table import BATCH_ROWS
from wardround.protocol.errors import UsageError


def read_parquet(path: Path, *, columns: Collection[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Batches with the types that the file gives its columns; at least one, which may be empty.

    Raises:
        UsageError: the file is missing, cut short, or is not Parquet.
    """
    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            names = [name for name in schema.names if columns is None or name in columns]
            yield pa.RecordBatch.from_pylist([], pa.schema([schema.field(name) for name in names]))
            yield from file.iter_batches(BATCH_ROWS, columns=names)
    except FileNotFoundError:
        raise UsageError(f"no file '{path.name}' in '{path.parent}'", "check 'path' of this site") from None
    except (pa.ArrowInvalid, OSError):
        raise UsageError(
            f"'{path.name}' is not a Parquet file, or not a whole one", "check 'connector' and 'path'; export it again"
        ) from None
