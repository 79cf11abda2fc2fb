"""``wardround data``: what a hospital does with its data before a study, and data for trying things."""

from pathlib import Path
from typing import Annotated

import typer


def add(data: typer.Typer) -> None:
    """Hang the commands below ``wardround data``."""
    _synthetic(data)
    _readiness(data)


def _readiness(data: typer.Typer) -> None:
    @data.command("check")
    def data_check(
        folder: Annotated[Path, typer.Argument(help="The site's folder.")],
        study: Annotated[str, typer.Argument(help="The name or digest of a study that was proposed here.")],
        for_consortium: Annotated[
            Path | None, typer.Option(help="Also write the part that others may see: thresholded counts, as JSON.")
        ] = None,
        threshold: Annotated[int, typer.Option(help="Counts below it are suppressed there; at least 10.")] = 10,
        as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
        html: Annotated[
            Path | None, typer.Option(help="Also write all findings as one HTML page, for the site's own people.")
        ] = None,
    ) -> None:
        """Look at the site's data before round 1: columns, units, labels, patients. Nothing is sent or charged."""
        from wardround.console.commands.data_check import check_command

        check_command(folder, study, for_consortium, threshold, as_json, html)

    @data.command("map")
    def data_map(
        folder: Annotated[Path, typer.Argument(help="The site's folder.")],
        study: Annotated[str, typer.Argument(help="The name or digest of a study that was proposed here.")],
        source: Annotated[int, typer.Option(help="Which data source of site.yaml, counted from 1.")] = 1,
        out: Annotated[Path | None, typer.Option(help="A new file; left out: the screen.")] = None,
    ) -> None:
        """Propose a mapping.yaml for the site's own columns, with a reason for every line."""
        from wardround.console.commands.data_map import map_command

        map_command(folder, study, source, out)


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
            str | None, typer.Option(help="emr, ct, ct-series, xray or mri; left out: the first that the format holds.")
        ] = None,
        sites: Annotated[int, typer.Option(help="How many hospitals.")] = 4,
        patients: Annotated[int, typer.Option(help="How many patients in each.")] = 100,
        seed: Annotated[int, typer.Option(help="Public: the same seed makes the same patients.")] = 0,
    ) -> None:
        """Write synthetic hospitals with known effects; no person is behind any row or picture."""
        from wardround.console.commands.data_make import make_cohort_command

        make_cohort_command(out, format, kind, sites, patients, seed)
