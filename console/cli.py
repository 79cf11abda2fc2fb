"""The root of the command line. Sub-commands are loaded when they are called, so ``--help`` answers at once."""

import os
import sys
from pathlib import Path
from time import perf_counter
from typing import Annotated, Final

import typer

from wardround.console import cli_coordinator, cli_data, cli_live, cli_paper, cli_plugin, cli_site, cli_stats
from wardround.console.groups import group
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


privacy = group("privacy", "Ask before you spend: what a study costs, what an epsilon means.", app)
ledger = group("ledger", "A hospital's privacy ledger: check it, read it, let it go on after a restored backup.", app)
officer = group("officer", "An officer's own key.", app)
data = group("data", "Data before a study: synthetic hospitals to try connectors with.", app)
site = group("site", "A hospital's own folder: make it, and answer a patient's question.", app)
patient = group("patient", "One patient's question; for officers, on this machine only.", site)
roster = group("roster", "Which hospitals' keys a site believes: pinned once, then followed epoch by epoch.", site)
governance = group("governance", "The consortium's roster: make it, read it, sign it.", app)
cli_data.add(data)
cli_site.add(site)
cli_paper.add(site, app)
cli_coordinator.add(app)
cli_plugin.add(app, site)
cli_stats.add(app)
cli_live.add(app)


@app.callback()
def root() -> None:
    """Federated learning across hospitals: no raw data leaves a site."""


@app.command()
def simulate(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings as key=value, for example study=heart_disease rounds=10.")
    ] = None,
    track: Annotated[
        str | None, typer.Option(metavar="mlflow[:FILE]", help="Tell a tracker on this machine of every round.")
    ] = None,
) -> None:
    """Run a study with every hospital in this process, and write a report.

    Groups: study, task, strategy, privacy, simulation. Every setting is in docs/configuration.md.
    """
    from wardround.console.commands.simulate import simulate_command

    simulate_command(overrides or [], STARTED, track)


@app.command()
def sweep(
    words: Annotated[
        list[str] | None,
        typer.Argument(help="Settings as for simulate; a list of values varies: strategy=fedavg,fedprox seed=0..9."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where the sweep goes; with a folder that is there, it goes on.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes at a time; left out: one for each core.")] = None,
    metric: Annotated[str | None, typer.Option(help="The metric to compare by, for example accuracy.")] = None,
    track: Annotated[
        str | None, typer.Option(metavar="mlflow[:FILE]", help="Tell a tracker on this machine of every run.")
    ] = None,
) -> None:
    """Run every combination of the listed values, each once, in parallel, and compare them on one page.

    A sweep that was stopped goes on with: wardround sweep --folder FOLDER.
    """
    from wardround.console.commands.sweep import sweep_command

    sweep_command(words or [], folder, jobs, metric, track)


@app.command()
def demo(
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings of the study, for example rounds=5.")] = None,
    out: Annotated[Path, typer.Option(help="Where the demo's folder goes.")] = Path("runs"),
) -> None:
    """Run one coordinator and four hospitals as processes of this machine, from invitation to released model."""
    from wardround.console.commands.demo import demo_command

    demo_command(overrides or [], out)


@app.command()
def audit(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings as for simulate, for example study=heart_disease.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer shadow models and steps.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Attack a study with its own training code: lower bounds on epsilon beside the accounted one."""
    from wardround.console.commands.audit import audit_command

    audit_command(overrides or [], quick, as_json)


@privacy.command()
def epsilon(
    event: Annotated[
        list[str], typer.Option(metavar="SIGMA,Q,STEPS", help="Noise multiplier, sampling probability, steps; repeat.")
    ],
    delta: Annotated[float, typer.Option(help="The probability that epsilon leaves out.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """The epsilon of releases with Gaussian noise on Poisson samples, all together."""
    from wardround.console.commands.privacy import epsilon_command

    epsilon_command(event, delta, as_json)


@privacy.command()
def explain(
    epsilon: Annotated[float, typer.Argument(help="The epsilon to explain.")],
    delta: Annotated[float, typer.Option(help="The probability that epsilon leaves out.")],
) -> None:
    """Say in words what an epsilon allows an attacker."""
    from wardround.console.commands.privacy import explain_command

    explain_command(epsilon, delta)


@privacy.command()
def plan(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings as for simulate, for example study=heart_disease rounds=10.")
    ] = None,
    attempts: Annotated[int, typer.Option(help="How often a round may be tried; each attempt is charged.")] = 1,
    ledger: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A site's ledger, for what is left there; repeat.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What a study would cost each hospital, what would fit, and which noise a target needs. Runs nothing."""
    from wardround.console.commands.privacy import plan_command

    plan_command(overrides or [], attempts, as_json, ledger or [])


@ledger.command()
def verify(
    file: Annotated[Path, typer.Argument(help="The ledger's file, or a copy of it: ledger.sqlite.")],
    key: Annotated[str | None, typer.Option(help="The site's public key, 64 hex digits, as you know it.")] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="A checkpoint of this ledger that others have kept; repeat.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check chain, signatures, tree and epsilon arithmetic; say in one sentence what is wrong and where."""
    from wardround.console.commands.ledger import verify_command

    verify_command(file, key, against or [], as_json)


@ledger.command()
def show(file: Annotated[Path, typer.Argument(help="The ledger's file, or a copy of it.")]) -> None:
    """Print every entry as a line of JSON, unchecked."""
    from wardround.console.commands.ledger import show_command

    show_command(file)


@ledger.command()
def checkpoint(folder: Annotated[Path, typer.Argument(help="The site's folder.")]) -> None:
    """Print the signed head of a site's ledger, for others to keep."""
    from wardround.console.commands.ledger import checkpoint_command

    checkpoint_command(folder)


@ledger.command()
def recover(
    folder: Annotated[Path, typer.Argument(help="The site's folder.")],
    seen: Annotated[Path, typer.Option(help="The checkpoint that a witness holds.")],
    witness: Annotated[str, typer.Option(help="Who holds it.")],
    reason: Annotated[str, typer.Option(help="Why the ledger was put back.")],
    officer_key: Annotated[list[Path] | None, typer.Option(help="An officer's key file; two are needed.")] = None,
) -> None:
    """Let a ledger that was put back to an older copy go on: two officers charge what may have run in between."""
    from wardround.console.commands.ledger import recover_command

    recover_command(folder, seen, witness, reason, officer_key or [])


@officer.command("init")
def officer_init(
    name: Annotated[str, typer.Argument(help="The officer's name: a-z, 0-9 and '-'.")],
    folder: Annotated[Path, typer.Option(help="Where the two files go.")] = Path(),
) -> None:
    """Make a private key, sealed with a passphrase, and a card for the sites. On the officer's own machine."""
    from wardround.console.commands.officer import init_command

    init_command(name, folder)


@officer.command("sign")
def officer_sign(
    request: Annotated[Path, typer.Argument(help="What 'wardround site study request' wrote.")],
    officer_key: Annotated[list[Path] | None, typer.Option(help="An officer's key file; repeat.")] = None,
    out: Annotated[Path | None, typer.Option(help="A new file; left out: the screen.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Read a plan in words, with its digest computed here, and sign it. On the officer's own machine."""
    from wardround.console.commands.officer_sign import sign_command

    sign_command(request, officer_key or [], out, yes)


@site.command("init")
def site_init(
    folder: Annotated[Path, typer.Argument(help="The site's folder; it must not exist yet.")],
    name: Annotated[str, typer.Option(help="The site's name in studies: a-z, 0-9 and '-'.")],
    officer: Annotated[list[Path], typer.Option(help="An officer's card, NAME.pub; repeat.")],
) -> None:
    """Make a site's folder with its keys and a ledger that names its officers."""
    from wardround.console.commands.site import init_command

    init_command(folder, name, officer)


# Too many words, or one that looks like an option, are refused by the command itself: click would repeat them.
@patient.command("show", context_settings={"ignore_unknown_options": True})
def patient_show(
    id_: Annotated[
        list[str], typer.Argument(metavar="ID", help="As in the site's table; '-' reads it from standard input.")
    ],
    folder: Annotated[Path, typer.Option(help="The site's folder.")],
    officer_key: Annotated[Path, typer.Option(help="The asking officer's key file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What the ledger says of one patient: domains, rounds that could have drawn them, what left, epsilon."""
    from wardround.console.commands.site import patient_show_command

    patient_show_command(id_, folder, officer_key, as_json)


@site.command("evidence")
def site_evidence(
    folder: Annotated[Path, typer.Argument(help="The site's folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print each whole, with its signatures.")] = False,
) -> None:
    """Show what others signed and could not have signed honestly: two rosters, two requests."""
    from wardround.console.commands.site_evidence import evidence_command

    evidence_command(folder, as_json)


@roster.command("show")
def roster_show(folder: Annotated[Path, typer.Argument(help="The site's folder.")]) -> None:
    """Say which roster is in force at the site, and who directs whom."""
    from wardround.console.commands.site_roster import show_command

    show_command(folder)


@roster.command("pin")
def roster_pin(
    folder: Annotated[Path, typer.Argument(help="The site's folder.")],
    file: Annotated[Path, typer.Argument(help="The first roster, as the coordinator brought it.")],
    fingerprint: Annotated[str, typer.Option(help="All sixteen groups, as an officer reads them out.")],
) -> None:
    """Take the site's first roster, if it is the one that an officer has read out."""
    from wardround.console.commands.site_roster import pin_command

    pin_command(folder, file, fingerprint)


@roster.command("next")
def roster_next(
    folder: Annotated[Path, typer.Argument(help="The site's folder.")],
    file: Annotated[Path, typer.Argument(help="The roster of the next epoch.")],
) -> None:
    """Follow the roster in force by the next epoch, which its officers have countersigned."""
    from wardround.console.commands.site_roster import next_command

    next_command(folder, file)


@governance.command("new")
def governance_new(
    file: Annotated[Path, typer.Argument(help="Sites, officers and coordinator as YAML; docs/roster.md shows one.")],
    out: Annotated[Path, typer.Option(help="Where the roster goes, for example epoch-2.json.")],
    previous: Annotated[Path | None, typer.Option(help="The roster of the epoch before; left out: epoch 1.")] = None,
) -> None:
    """Make a roster that nobody has signed yet."""
    from wardround.console.commands.governance import new_command

    new_command(file, out, previous)


@governance.command("show")
def governance_show(
    file: Annotated[Path, typer.Argument(help="The roster's file.")],
    previous: Annotated[Path | None, typer.Option(help="The roster of the epoch before, to say what changes.")] = None,
) -> None:
    """Say in words what is in a roster, what changes, and who has signed."""
    from wardround.console.commands.governance import show_command

    show_command(file, previous)


@governance.command("sign")
def governance_sign(
    file: Annotated[Path, typer.Argument(help="The roster's file; the signature is added to it.")],
    key: Annotated[Path, typer.Option(help="Your key file, for example anna.key.")],
    previous: Annotated[
        Path | None, typer.Option(help="The roster of the epoch before, as you have it; needed from epoch 2 on.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A new file for the signed roster; left out: the same file.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Show a roster, ask, and sign it. On the officer's own machine."""
    from wardround.console.commands.governance import sign_command

    sign_command(file, key, previous, out, yes)


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
        hint = "run it again; an unfinished simulation goes on with: wardround simulate simulation.resume=FOLDER"
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
