"""``wardround plugin``: what a researcher does with a plugin, and how anybody reads one."""

import json
from collections.abc import Sequence
from pathlib import Path

import typer

from wardround.console.commands.ledger import passphrase
from wardround.console.new_files import write_new
from wardround.console.plan_words import plain, shown_line
from wardround.protocol.errors import UsageError
from wardround.protocol.plugins import Kind, sign_plugin

FAILED = 1
"""Exit code of a check that a plugin did not pass."""


def new_command(name: str, kind: Kind, folder: Path) -> None:
    """Write a package, and say what comes next."""
    from wardround.simulations.plugins.new import new_plugin

    for path in new_plugin(name, kind, folder):
        typer.echo(path)
    word = "strategy" if kind == "strategy" else "task"
    typer.echo(f"Next: wardround plugin check {folder / name}")
    typer.echo(f"Then: wardround simulate study=heart_disease {word}={_path(folder / name)}")


def check_command(path: Path, as_json: bool) -> None:
    """Check, say what was found, and end with 1 where something failed."""
    from wardround.simulations.plugins.check import check_plugin

    found = check_plugin(path)
    manifest = found.source.plugin.manifest
    trials = {"own tests": found.own, "contract": found.contract}
    if as_json:
        shown = {
            **manifest.model_dump(),
            "digest": found.digest,
            "author": found.source.ref.author,
            "passed": found.passed,
            **{name: None if trial is None else trial.count for name, trial in trials.items()},
            "unfit": list(found.unfit),
            "reaches for": list(found.capabilities.said()),
        }
        typer.echo(json.dumps(shown, indent=2))
    else:
        typer.echo(f"{plain(manifest.kind)} {manifest.name} {manifest.version}: {plain(manifest.summary)}")
        typer.echo(f"digest       {found.digest}")
        for name, trial in trials.items():
            said = "none here" if trial is None else f"{'pass' if trial.passed else 'FAIL'}: {plain(trial.count)}"
            typer.echo(f"{name:<12} {said}")
        if manifest.kind != "strategy":
            typer.echo(
                f"privacy      {'FAIL: ' + plain('; '.join(found.unfit)) if found.unfit else 'pass: fit for it'}"
            )
        for number, line in enumerate(found.capabilities.said()):
            typer.echo(f"{'reaches for' if not number else '':<12} {shown_line(line)}")
        for trial in trials.values():
            if trial is not None and not trial.passed:
                typer.echo(trial.output)
    if not found.passed:
        raise typer.Exit(FAILED)


def sign_command(path: Path, key: Path, out: Path | None) -> None:
    """Sign, write the file, and say what people compare."""
    from wardround.client.store.keys import fingerprint, read_officer_key
    from wardround.simulations.plugins.source import read_source

    source = read_source(path)
    author = read_officer_key(key, passphrase(f"Passphrase of {key.name}"))
    signed = sign_plugin(source.plugin, author)
    manifest = source.plugin.manifest
    place = out or Path(f"{manifest.name}-{manifest.version}.plugin.json")
    write_new(place, signed.encoded)
    typer.echo(f"{place}: {manifest.kind} {manifest.name} {manifest.version}, signed by {signed.author}")
    typer.echo(f"digest       {source.plugin.digest}")
    typer.echo(f"author's key {fingerprint(author.public.key)}")
    typer.echo(f"A hospital installs it with this file and {signed.author}.pub; read them the line above by telephone.")


def show_command(path: Path, before: Path | None) -> None:
    """Print a plugin as an officer reads it."""
    from wardround.client.plugins.reading import reading
    from wardround.simulations.plugins.source import read_source

    source = read_source(path)
    old = None if before is None else read_source(before).plugin
    for line in reading(source.plugin, source.ref, old).lines():
        typer.echo(shown_line(line))


def task_command(path: Path, features: int, settings: Sequence[str]) -> None:
    """Print a plan's task in YAML."""
    import yaml

    from wardround.simulations.plugins.local import task_spec
    from wardround.simulations.plugins.source import read_source

    source = read_source(path)
    if source.signed is None:
        raise UsageError(
            "this plugin is not signed, so no hospital could install it", "wardround plugin sign makes the file to give"
        )
    spec = task_spec(source, features, dict(map(_setting, settings)))
    typer.echo(yaml.safe_dump({"task": spec.model_dump(mode="json")}, sort_keys=False), nl=False)


def _setting(word: str) -> tuple[str, float]:
    name, _, value = word.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise UsageError(f"'{word}' is no setting", "write NAME=NUMBER, for example width=32") from None


def _path(folder: Path) -> str:
    """``folder`` with a slash in it, as a setting has it."""
    return str(folder) if "/" in str(folder) else f"./{folder}"
