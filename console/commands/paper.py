"""``wardround site statement``, ``audit-report``, ``dpia``, and ``wardround report verify``."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import typer

from wardround.client.store.folder import SiteFolder
from wardround.client.store.keys import read_public_key
from wardround.console.new_files import write_new
from wardround.console.paper.as_json import MOST_BYTES, sign
from wardround.console.paper.check import Known, Result, Verdict, check, signed_in
from wardround.console.paper.gather import Source, audit_report, read_source, statement
from wardround.console.paper.model import Kind, Paper
from wardround.console.paper.sheets import SUFFIXES, language, render
from wardround.console.plan_words import plain
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.roster import MAX_ROSTER_BYTES, Roster


def statement_command(folder: Path, study: str, out: Path, tongue: str) -> None:
    """Write the privacy statement of a study at the site in ``folder``."""
    source = _source(folder, out, tongue)
    _write(source, statement(source, study, language=tongue), out)


def dpia_command(folder: Path, study: str, out: Path, tongue: str) -> None:
    """Write the DPIA annex of a study at the site in ``folder``."""
    source = _source(folder, out, tongue)
    _write(source, statement(source, study, kind=Kind.DPIA, language=tongue), out)


def audit_command(folder: Path, since: str, until: str, out: Path, former: Path | None, tongue: str) -> None:
    """Write the audit report of a period."""
    source = _source(folder, out, tongue)
    note = None if former is None else _former(former)
    _write(source, audit_report(source, _day(since), _day(until), former=note, language=tongue), out)


def verify_command(
    file: Path,
    key: str | None,
    fingerprint: str | None,
    roster: Path | None,
    checkpoints: list[Path],
    page: Path | None,
    as_json: bool,
) -> None:
    """Check a paper, say what was looked at, and end with 1 unless it is accepted."""
    known = Known(
        None if key is None else read_public_key(key),
        fingerprint,
        None if roster is None else Roster.parse(_read(roster, MAX_ROSTER_BYTES)),
        [_read(path, MOST_BYTES) for path in checkpoints],
    )
    if page is not None:
        _check_out(page)
    verdict = check(_read(file, 4 * MOST_BYTES), known)
    if as_json:
        typer.echo(json.dumps(_as_json(verdict), indent=2))
    else:
        for line in _in_words(verdict):
            typer.echo(plain(line))
    if page is not None:
        if not verdict.signed.holds(bytes.fromhex(verdict.signed.paper.key)):
            raise UsageError("no page is made of a content that nobody signed", "ask the site for the paper again")
        write_new(page, render(verdict.signed, page.suffix))
        typer.echo(f"{page}: made here of the signed content", err=as_json)
    if not verdict.accepted:
        raise typer.Exit(1)


def _source(folder: Path, out: Path, tongue: str) -> Source:
    """The folder's content, once it is sure that the paper can be written."""
    _check_out(out)
    language(tongue)
    return read_source(SiteFolder.open(folder))


def _write(source: Source, paper: Paper, out: Path) -> None:
    signed = sign(paper, source.identity)
    write_new(out, render(signed, out.suffix))
    typer.echo(f"{out}: signed content {signed.digest}")
    typer.echo("Whoever gets it checks it with: wardround report verify FILE --key " + paper.key)


def _check_out(out: Path) -> None:
    if out.suffix not in SUFFIXES:
        raise UsageError(f"a paper is not written as '{out.suffix}'", f"end the name with {', '.join(SUFFIXES)}")
    if out.exists():
        raise UsageError(f"'{out}' exists already", "a paper never takes another's place: choose a new name")


def _former(path: Path) -> bytes:
    """The checkpoint of a former report, or of a file that holds one."""
    data = _read(path, 4 * MOST_BYTES)
    if data.startswith((b"%PDF-", b"{", b"<!")):
        return signed_in(data).paper.anchor.note.encode()
    return data


def _read(path: Path, most: int) -> bytes:
    try:
        if path.stat().st_size > most:
            raise UsageError(f"'{path}' is too large for such a file", "check the path")
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(f"'{path}' cannot be read: {error.strerror}", "check the path") from error


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"'{text}' is no day", "write it as 2026-11-23") from None


def _in_words(verdict: Verdict) -> Iterator[str]:
    paper = verdict.signed.paper
    yield f"Paper: {paper.kind} of '{paper.site}', made {paper.made_at}, signed content {verdict.signed.digest}"
    for result in (Result.FAILS, Result.UNDONE, Result.HOLDS, Result.OPEN):
        for finding in verdict.findings:
            if finding.result is result:
                yield f"{result.value}: {finding.says}"
    if verdict.accepted:
        yield "All that was checked holds."
    else:
        yield "DO NOT RELY ON THIS PAPER."


def _as_json(verdict: Verdict) -> dict[str, object]:
    paper = verdict.signed.paper
    return {
        "kind": paper.kind.value,
        "site": paper.site,
        "key": paper.key,
        "made_at": paper.made_at,
        "content": verdict.signed.digest,
        "accepted": verdict.accepted,
        "findings": [{"result": one.result.name.lower(), "says": one.says} for one in verdict.findings],
    }
