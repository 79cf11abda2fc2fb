"""``wardround data``: what a hospital does with its data before a study, and data for trying things."""

from pathlib import Path
from typing import Annotated

import typer


def add(data: typer.Typer) -> None:
    """Hang the commands below ``wardround data``."""
    _synthetic(data)


def _synthetic(data: typer.Typer) -> None:
    @data.command("make-cohort")
    def data_make_cohort(
        out: Annotated[Path, typer.Argument(help="A new folder; each hospital gets one in it.")],
        format: Annotated[
            str,
            typer.Option(
                help="csv, parquet, excel, sqlite, omop, fhir, fhir-bundles, hl7v2, dicom, nifti or png.",
            ),
        ] = "csv",
        kind: Annotated[
            str | None, typer.Option(help="emr, ct, xray or mri; left out: the first that the format holds.")
        ] = None,
        sites: Annotated[int, typer.Option(help="How many hospitals.")] = 4,
        patients: Annotated[int, typer.Option(help="How many patients in each.")] = 100,
        seed: Annotated[int, typer.Option(help="Public: the same seed makes the same patients.")] = 0,
    ) -> None:
        """Write synthetic hospitals with known effects; no person is behind any row or picture."""
        from wardround.console.commands.data_make import make_cohort_command

        make_cohort_command(out, format, kind, sites, patients, seed)
