"""Apache Parquet: typed columns, read only where the contract names them."""

from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from wardround.protocol.errors import UsageError


def read_parquet(path: Path) -> pa.Table:
    """All columns with the types that the file gives them.

    Raises:
        UsageError: the file is missing or is not Parquet.
    """
    try:
        return parquet.read_table(path)
    except FileNotFoundError:
        raise UsageError(f"no file '{path.name}' in '{path.parent}'", "check 'path' of this site") from None
    except (pa.ArrowInvalid, OSError):
        raise UsageError(f"'{path.name}' is not a Parquet file", "check 'connector' and 'path' of this site") from None
