"""``wardround data make-cohort``: synthetic hospitals in any format, to try a connector without data."""

from pathlib import Path

import typer

from wardround.simulations.synthetic.cohort import make_cohort


def make_cohort_command(out: Path, format: str, kind: str | None, sites: int, patients: int, seed: int) -> None:
    """Write the hospitals and say what was written."""
    made = make_cohort(out, format=format, kind=kind, sites=sites, patients=patients, seed=seed)
    total = len(made.sites) * made.patients
    typer.echo(
        f"{total:,} synthetic patients ({made.kind}) of {len(made.sites)} hospitals as {made.format}: {made.files:,} "
        f"files, {made.bytes / 1e6:.1f} MB, {made.seconds:.1f} s, {total / made.seconds:,.0f} patients/s"
    )
    for site in made.sites:
        typer.echo(f"  {made.folder / site}: site.yaml says how it is read")
    typer.echo("No person is behind any row; docs/synthetic.md lists the true effects.")
