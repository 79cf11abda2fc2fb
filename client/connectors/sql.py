"""A table or a query of a database: PostgreSQL and SQLite are tested, others go through their SQLAlchemy driver.

The path names a YAML file with the connection, so that no password lies in ``site.yaml``::

    url: postgresql+psycopg://reader@db.hospital:5432/emr
    password_file: emr.password      # beside this file, for its owner only
    timeout_seconds: 300
"""

from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa

from wardround.protocol.errors import UsageError


def read_sql(
    path: Path, *, columns: Collection[str] | None = None, table: str | None = None, query: str | None = None
) -> Iterator[pa.RecordBatch]:
    """Rows of a table (``schema.name`` or ``name``), or of a query, as text: what is a number the contract decides.

    Of a table only ``columns`` are asked for; a query says itself what it asks for.

    Raises:
        UsageError: the file, the table, the query or the rights are wrong.
        Unavailable: the database cannot be reached, or broke off.
    """
    if (table is None) == (query is None):
        raise UsageError("a database source reads a table or a query", "give one of the options 'table' and 'query'")
    # SQLAlchemy takes a moment to import, and most sites have files.
    from wardround.client.connectors.database import rows_of

    yield from rows_of(path, table, query, columns)
