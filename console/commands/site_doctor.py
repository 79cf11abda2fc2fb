"""``wardround site doctor``: examine a site and the way to its coordinator; a report that can be sent by e-mail."""

import json
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any, Final

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from wardround.client.doctor import NETWORK, Finding, State, examined_from, run_all
from wardround.console.new_files import write_new
from wardround.protocol.errors import UsageError

FOUND_FAILED: Final = 1

_STYLES: Final = {State.OK: "green", State.WARNING: "yellow", State.FAILED: "bold red"}
_SAFE: Final = "No password, key or patient's data is in this report: it may be sent by e-mail."
_FILE_WIDTH: Final = 100


def doctor_command(site_folder: Path | None, link_folder: Path | None, as_json: bool, out: Path | None) -> None:
    """Print what was found, or write it into the new file ``out``; exit code 1 when a check failed.

    ``site_folder`` may be left out by the SuperNode's user, who may not look into it.
    """
    for folder in (site_folder, link_folder):
        if folder is not None and not folder.is_dir():
            raise UsageError(f"there is no folder '{folder}'", "name the folder that 'wardround site init' made")
    if site_folder is None and link_folder is None:
        raise UsageError("there is nothing to examine", "name the site's folder, or the link folder with --link")
    if out is not None and out.exists():
        raise UsageError(f"'{out}' exists already", "name a new file")
    examined = examined_from(link_folder, site_folder)
    if out is None and not as_json and sys.stdout.isatty():
        with Console(stderr=True).status("Examining; at most a minute"):
            found = run_all(examined)
    else:
        found = run_all(examined)
    about = _about(examined.site)
    if as_json:
        text = json.dumps(_as_data(about, found), indent=2) + "\n"
        write_new(out, text.encode()) if out else typer.echo(text, nl=False)
    elif out is not None:
        page = Console(file=StringIO(), width=_FILE_WIDTH, color_system=None)
        page.print(report(about, found))
        assert isinstance(page.file, StringIO)
        write_new(out, page.file.getvalue().encode())
    else:
        Console().print(report(about, found))
    if out is not None:
        typer.echo(f"{count(found)} The report is in '{out}'.")
    if worst(found) is State.FAILED:
        raise typer.Exit(FOUND_FAILED)


def worst(found: Sequence[Finding]) -> State:
    """The state of the whole: that of the worst finding."""
    return max((finding.state for finding in found), key=list(State).index, default=State.OK)


def count(found: Sequence[Finding]) -> str:
    """How many of each, in a sentence; without those that there are none of."""
    numbers = {state: sum(finding.state is state for finding in found) for state in reversed(State)}
    words = {State.FAILED: "failed", State.WARNING: "warning" + "s" * (numbers[State.WARNING] > 1), State.OK: "ok"}
    return ", ".join(f"{number} {words[state]}" for state, number in numbers.items() if number) + "."


def report(about: dict[str, str], found: Sequence[Finding]) -> RenderableType:
    """The report: one line a finding, its cure below it, the way to the coordinator first."""
    made = f"{about['at']} · Wardround {about['version']} · Python {about['python']} · {about['system']}"
    parts: list[RenderableType] = [Text(f"Site {about['site']}", "bold"), Text(made, "dim")]
    way = [finding for finding in found if finding.check in NETWORK]
    for title, part in (("The way to the coordinator", way), ("This machine", [f for f in found if f not in way])):
        if part:
            parts += [Text(), Text(title, "bold"), _lines(part)]
    return Group(*parts, Text(), Text(count(found)), Text(_SAFE, "dim"))


def _lines(found: Sequence[Finding]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, min_width=len(State.WARNING))
    grid.add_column(no_wrap=True, min_width=13)
    grid.add_column(overflow="fold")
    for finding in found:
        said = Text(finding.sentence)
        if finding.cure:
            said.append(f"\n{finding.cure}", "italic")
        grid.add_row(Text(finding.state, _STYLES[finding.state]), Text(finding.check, "dim"), said)
    return grid


def _about(site: str | None) -> dict[str, str]:
    return {
        "site": site or "unknown",
        "version": version("wardround"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }


def _as_data(about: dict[str, str], found: Sequence[Finding]) -> dict[str, Any]:
    findings = [{"check": f.check, "state": f.state, "sentence": f.sentence, "cure": f.cure} for f in found]
    return {"format": "wardround/doctor/1", **about, "state": worst(found), "findings": findings}
