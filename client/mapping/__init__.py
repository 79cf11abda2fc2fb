"""From a hospital's own columns, codes and units to those of a study's contract, by rules that the hospital writes."""

from wardround.client.mapping.apply import local_columns, mapped, mapped_column
from wardround.client.mapping.rules import ColumnRule, Mapping, read_mapping

__all__ = ["ColumnRule", "Mapping", "local_columns", "mapped", "mapped_column", "read_mapping"]
