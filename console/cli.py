"""The root of the command line. Sub-commands are loaded when they are called, so ``--help`` answers at once."""

import os
import sys
from time import perf_counter
from typing import Annotated, Final

import typer

from wardround.protocol.errors import WardroundError

STARTED: Final = perf_counter()
"""When this process began to work, for the time to the first round."""

INTERRUPTED: Final = 130
"""Exit code after Ctrl-C, as shells count signals."""

app = typer.Typer(
    name="wardround",
    help="Federated learning across hospitals: no raw data leaves a site.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def root() -> None:
    """Federated learning across hospitals: no raw data leaves a site."""


@app.command()
def simulate(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings as key=value, for example study=heart_disease rounds=10.")
    ] = None,
) -> None:
    """Run a study with every hospital in this process, and write a report.

    Groups: study, task, strategy, privacy, simulation. Every setting is in docs/configuration.md.
    """
    from wardround.console.commands.simulate import simulate_command

    simulate_command(overrides or [], STARTED)


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    typer.echo(installed("wardround"))


def main() -> None:
    """Run the command line; every failure ends in two lines and an exit code, never in a traceback."""
    if sys.platform == "win32":
        fail(WardroundError("Windows is not supported", "install WSL2 and run Wardround in a Linux shell there"))
    try:
        # Without standalone mode Typer returns an exit code where it would have ended the process: 130 for Ctrl-C.
        if ended := app(standalone_mode=False):
            _stop(int(ended))
    except WardroundError as error:
        fail(error)
    except (KeyboardInterrupt, typer.Abort):
        _stop(INTERRUPTED)
    except typer.Exit as ended:
        _stop(ended.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        _unexpected(error)


def _stop(code: int) -> None:
    if code == INTERRUPTED:
        hint = "an unfinished run goes on with: wardround simulate simulation.resume=FOLDER"
        fail(WardroundError("interrupted", hint), INTERRUPTED)
    sys.exit(code)


def fail(error: WardroundError, code: int = 2) -> None:
    """Print the two lines to standard error and end with ``code``."""
    print(error.lines(), file=sys.stderr)
    sys.exit(code)


def _unexpected(error: Exception) -> None:
    """Errors of the command line itself, of the machine, and defects; a defect's text may hold a patient's value."""
    import click

    if isinstance(error, click.ClickException):
        fail(WardroundError(error.format_message(), "wardround --help lists the commands"))
    if isinstance(error, OSError) and error.strerror:
        fail(WardroundError(f"{error.strerror}: {error.filename or 'the system'}", "check the disk and permissions"), 1)
    if os.environ.get("WARDROUND_DEBUG") == "1":
        raise error
    text = f"a defect in Wardround ({type(error).__name__})"
    fail(
        WardroundError(text, "run it again with WARDROUND_DEBUG=1 and report what it prints, without patients' data"),
        70,
    )


if __name__ == "__main__":
    main()
