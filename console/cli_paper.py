"""What an officer hands out and an auditor checks: ``wardround site statement`` and its like, ``wardround report``."""

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from wardround.console.groups import group
from wardround.protocol.errors import UsageError

Folder: TypeAlias = Annotated[Path, typer.Argument(help="The site's folder.")]
Study: TypeAlias = Annotated[str, typer.Argument(help="The study's name, or the beginning of its plan's digest.")]
Out: TypeAlias = Annotated[Path, typer.Option(help="A new file: .pdf, .html or .json.")]
Language: TypeAlias = Annotated[str, typer.Option(help="The paper's language: en or fr.")]


def add(site: typer.Typer, app: typer.Typer) -> None:
    """Hang the commands below ``wardround site`` and ``wardround report``."""
    _papers(site)
    _report(group("report", "Papers that a hospital has signed: check one, without a network.", app))


def _commands() -> Any:
    """The commands, loaded when one is called. Raises UsageError where the libraries for pages are not installed."""
    try:
        return import_module("wardround.console.commands.paper")
    except ModuleNotFoundError as error:
        why = f"papers need '{error.name}', which is not installed here"
        raise UsageError(why, "install wardround with its extra: wardround[paper]") from error


def _papers(site: typer.Typer) -> None:
    @site.command("statement")
    def site_statement(folder: Folder, study: Study, out: Out, language: Language = "en") -> None:
        """Write a study's privacy statement: what is read, what left, epsilon, who approved."""
        _commands().statement_command(folder, study, out, language)

    @site.command("audit-report")
    def site_audit_report(
        folder: Folder,
        since: Annotated[str, typer.Option("--from", help="The first day, for example 2026-01-01 (UTC).")],
        until: Annotated[str, typer.Option("--to", help="The last day.")],
        out: Out,
        former: Annotated[
            Path | None,
            typer.Option(help="The report before, or its checkpoint: this one then proves that it goes on."),
        ] = None,
        language: Language = "en",
    ) -> None:
        """Write the audit report of a period: ledger, budgets, refusals, recoveries, with proofs."""
        _commands().audit_command(folder, since, until, out, former, language)

    @site.command("dpia")
    def site_dpia(folder: Folder, study: Study, out: Out, language: Language = "en") -> None:
        """Write the annex to a data protection impact assessment: facts, and blanks for people."""
        _commands().dpia_command(folder, study, out, language)


def _report(report: typer.Typer) -> None:
    @report.callback()
    def about() -> None:
        """Papers that a hospital has signed: check one, without a network."""

    @report.command("verify")
    def report_verify(
        file: Annotated[Path, typer.Argument(help="The paper: .pdf, .html or .json.")],
        key: Annotated[str | None, typer.Option(help="The site's public key, 64 hex digits, as you know it.")] = None,
        fingerprint: Annotated[
            str | None, typer.Option(help="The key's fingerprint, eight groups, as an officer read it out.")
        ] = None,
        roster: Annotated[
            Path | None, typer.Option(help="A roster that names the site's key, as you trust it.")
        ] = None,
        checkpoint: Annotated[
            list[Path] | None, typer.Option(help="A checkpoint of the site's ledger that others have kept; repeat.")
        ] = None,
        page: Annotated[
            Path | None, typer.Option(help="Make a page of the signed content into this new file, to read that one.")
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    ) -> None:
        """Check signature, checkpoint, proofs, figures and page of a paper, and say what was not checked."""
        _commands().verify_command(file, key, fingerprint, roster, checkpoint or [], page, as_json)
