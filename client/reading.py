"""From the sources of ``site.yaml`` to records under the plan's contract, some at a time, in the sources' order."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from wardround.client.connectors import IMAGE_CONNECTORS, list_pictures, picture_patients, read_batches, read_table
from wardround.client.connectors.mask_files import masks_below
from wardround.client.connectors.table import Records, apply_contract
from wardround.client.imaging.kept import KeptPictures
from wardround.client.imaging.picture import each_once
from wardround.client.imaging.records import Labels, picture_records
from wardround.client.mapping import Mapping, local_columns, mapped, mapped_column, read_mapping
from wardround.client.mapping.rules import MAPPING
from wardround.client.settings import DataSource, SiteSettings
from wardround.protocol.contract import DataContract
from wardround.protocol.errors import UsageError
from wardround.protocol.labels import MaskLabel


def read_records(
    settings: SiteSettings, folder: Path, contract: DataContract, site: str, kept: KeptPictures | None = None
) -> Iterator[Records]:
    """Records of every source, one source after the other; at least one batch, which may be empty.

    ``kept``: where pictures that are made already are found and new ones put. Patients are then named by hash.

    Raises:
        UsageError: there is no source, one lacks a column, or a cell breaks the contract.
        Unavailable: a source cannot be reached, or broke off.
    """
    if not settings.data:
        raise UsageError("the site names no data", "write 'data:' into site.yaml; docs/site.md shows how")
    first = 0
    for number, source in enumerate(settings.data, 1):
        last = 0
        for records in _of(source, folder, contract, f"site '{site}', data source {number}", kept):
            yield replace(records, rows=records.rows + first)
            last = max(last, int(records.rows[-1]) + 1 if len(records.rows) else 0)
        first += last
    if kept is not None:
        kept.drop_former_sources()


def _of(
    source: DataSource, folder: Path, contract: DataContract, name: str, kept: KeptPictures | None
) -> Iterator[Records]:
    path = folder / source.path
    if contract.image is not None:
        if source.connector not in IMAGE_CONNECTORS:
            raise UsageError(f"{name} holds no pictures, and the plan asks for them", "name a source of pictures")
        if source.labels is None:
            raise UsageError(f"{name} names no table of labels", "write 'labels:' beside its path; docs/imaging.md")
        listed = list_pictures(source.connector, path, contract.image, source.options)
        labels = labels_of(source, folder, contract)
        # A picture and its mask are two files, and what is kept knows one: such a study reads them together each time.
        if kept is None or isinstance(contract.label, MaskLabel):
            masks = masks_below(folder / (source.labels.masks or source.path))
            yield from picture_records(each_once(each.load() for each in listed), labels, contract, name, masks)
            return
        about = "\n".join((source.connector, str(path), json.dumps(source.options, sort_keys=True, default=str)))
        # As for the cache: changes of a running system cannot be seen.
        lasts = source.keep_hours * 3600 if path.suffix in (".yaml", ".yml") else None
        with kept.of(about, contract, lasts) as store:
            hidden = {store.hidden(key): row for key, row in labels.items()}
            opened = (store.opened(each, hidden) for each in listed)
            yield from picture_records(each_once(opened), hidden, contract, name)
            store.drop_unlisted()
        return
    first, rules = 0, mapping_of(source, folder)
    for batch in read_batches(source.connector, path, source.options, local_columns(rules, contract.column_names)):
        yield apply_contract(mapped(batch, rules, contract, name, first), contract, name, first)
        first += batch.num_rows


def mapping_file(source: DataSource, folder: Path) -> Path:
    """Where the rules for a source lie, whether or not there are any."""
    return folder / (source.mapping or MAPPING)


def mapping_of(source: DataSource, folder: Path) -> Mapping:
    """The rules for a source; none where the site wrote none. Raises UsageError for a wrong file."""
    path = mapping_file(source, folder)
    if source.mapping is not None and not path.exists():
        raise UsageError(f"no file '{path.name}' in '{path.parent}'", "check 'mapping' in site.yaml")
    return read_mapping(path) if path.exists() else Mapping()


def labels_of(source: DataSource, folder: Path, contract: DataContract) -> Labels:
    """The rows of a source's label table by the key of their picture, by the site's rules as any table.

    Raises:
        UsageError: a column is missing, a rule does not cover a value, or a key comes twice.
    """
    assert source.labels is not None
    table, rules = source.labels, mapping_of(source, folder)
    wanted = [name for name in contract.column_names if name != contract.patient_id]
    found = read_table(
        table.connector, folder / table.path, table.options, [table.key, *local_columns(rules, wanted)]
    ).combine_chunks()
    there = [name for name in wanted if set(local_columns(rules, [name])) <= set(found.column_names)]
    missing = (
        [table.key] if table.key not in found.column_names else [n for n in contract.label.columns if n not in there]
    )
    if missing:
        raise UsageError(f"the table of labels has no column '{missing[0]}'", "check 'labels' in site.yaml")
    keys = [str(cell).strip() for cell in found.column(table.key).to_pylist()]
    if len(set(keys)) < len(keys):
        raise UsageError(
            f"the table of labels names {len(keys) - len(set(keys))} picture(s) twice", "give each picture one row"
        )
    rows = pa.RecordBatch.from_pydict({name: found.column(name).combine_chunks() for name in found.column_names})
    cells = {name: mapped_column(name, rows, rules, contract, "the table of labels") for name in there}
    return dict(zip(keys, pa.table(cells).to_pylist() if cells else [{} for _ in keys], strict=True))


def patients_in(settings: SiteSettings, folder: Path, id_column: str) -> list[str]:
    """The id of every patient in the site's data sources, each once.

    Args:
        id_column: the column of tables with the patient's id; pictures bring their own.

    Raises:
        UsageError: a table has no such column.
    """
    found: dict[str, None] = {}
    for source in settings.data:
        found |= dict.fromkeys(_patients(source, folder, id_column))
    found.pop("", None)
    return list(found)


def _patients(source: DataSource, folder: Path, id_column: str) -> Iterator[str]:
    path = folder / source.path
    if source.connector in IMAGE_CONNECTORS:
        yield from (patient.strip() for patient in picture_patients(source.connector, path, source.options))
        return
    for batch in read_batches(source.connector, path, source.options, [id_column]):
        if id_column not in batch.schema.names:
            raise UsageError(f"a data source has no column '{id_column}'", "name the column with the patient's id")
        ids = batch.column(id_column)
        text = ids if pa.types.is_string(ids.type) else ids.cast(pa.string())
        yield from (str(cell).strip() for cell in text.to_pylist() if cell is not None)
