"""``wardround coordinator`` and ``wardround study``: what an operator and a researcher type."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from wardround.console import cli_console
from wardround.console.groups import group
from wardround.console.web.roles import Face

Hub: TypeAlias = Annotated[Path, typer.Argument(help="The coordinator's folder.")]
At: TypeAlias = Annotated[Path, typer.Option("--coordinator", help="The coordinator's folder.")]
Which: TypeAlias = Annotated[str, typer.Argument(help="The study's name, or the beginning of its plan's digest.")]
Settings: TypeAlias = Annotated[
    list[str] | None, typer.Argument(help="Settings as for simulate, for example study=heart_disease rounds=10.")
]


def add(app: typer.Typer) -> None:
    """Hang both groups below ``app``."""
    _coordinator(group("coordinator", "The coordinator: make it, run it, invite hospitals, keep the roster.", app))
    _study(group("study", "A study over hospitals: check, propose, start, watch, stop, fetch.", app))


def _coordinator(coordinator: typer.Typer) -> None:
    cli_console.add(coordinator, Face.COORDINATOR)
    roster = group("roster", "The roster that the coordinator works by; the officers sign it.", coordinator)

    @coordinator.command("init")
    def coordinator_init(
        folder: Annotated[Path, typer.Argument(help="The coordinator's folder; it must not exist yet.")],
        name: Annotated[str, typer.Option(help="What people call it.")],
        host: Annotated[str, typer.Option(help="The name under which sites reach it, for example hub.example.org.")],
        port: Annotated[int, typer.Option(help="The one port that sites reach.")] = 443,
        listen: Annotated[str, typer.Option(help="The address of this machine to listen at.")] = "0.0.0.0",
        certificate: Annotated[Path | None, typer.Option(help="A certificate (PEM); left out: one of its own.")] = None,
        key: Annotated[Path | None, typer.Option(help="The key of that certificate.")] = None,
        ca: Annotated[Path | None, typer.Option(help="The CA that issued it.")] = None,
    ) -> None:
        """Make a coordinator's folder with its keys, its own CA or the certificates given, and its database."""
        from wardround.console.commands.coordinator_enrol import init_command

        init_command(folder, name, host, port, certificate, key, ca, listen)

    @coordinator.command("renew")
    def coordinator_renew(
        folder: Hub,
        certificate: Annotated[
            Path | None, typer.Option(help="A new certificate (PEM), where it is not its own.")
        ] = None,
        key: Annotated[Path | None, typer.Option(help="The key of that certificate.")] = None,
        ca: Annotated[Path | None, typer.Option(help="The CA that issued it.")] = None,
    ) -> None:
        """Renew the certificate of the public listener; sites notice nothing."""
        from wardround.console.commands.coordinator_enrol import renew_command

        renew_command(folder, certificate, key, ca)

    @coordinator.command("start")
    def coordinator_start(
        folder: Hub,
        metrics: Annotated[
            str | None, typer.Option(help="Show measurements to your monitoring at this port or address:port.")
        ] = None,
    ) -> None:
        """Run the coordinator until Ctrl-C: SuperLink, public listener, and a process for each study."""
        from wardround.console.commands.coordinator import start_command

        start_command(folder, metrics)

    @coordinator.command("status")
    def coordinator_status(
        folder: Hub, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
    ) -> None:
        """Say whether it runs, which sites it hears, and what its studies do."""
        from wardround.console.commands.coordinator import status_command

        status_command(folder, as_json)

    @coordinator.command("weights")
    def coordinator_weights(
        folder: Hub, file: Annotated[Path, typer.Argument(help="A safetensors file that a plan starts from.")]
    ) -> None:
        """Install a weights file from which a study's first model is made."""
        from wardround.console.commands.weights import coordinator_weights_command

        coordinator_weights_command(folder, file)

    @coordinator.command("install-service")
    def coordinator_install_service(
        folder: Hub,
        root: Annotated[Path, typer.Option(help="Write below this folder instead of the system's root.")] = Path("/"),
        show: Annotated[bool, typer.Option("--show", help="Print the unit and write nothing.")] = False,
    ) -> None:
        """Write a systemd unit for the coordinator, with a user of its own."""
        from wardround.console.commands.coordinator_service import install_service_command

        install_service_command(folder, root, show)

    @coordinator.command("uninstall-service")
    def coordinator_uninstall_service(
        folder: Hub,
        root: Annotated[Path, typer.Option(help="As for install-service.")] = Path("/"),
    ) -> None:
        """Remove the unit; keys, receipts and databases stay."""
        from wardround.console.commands.coordinator_service import uninstall_service_command

        uninstall_service_command(folder, root)

    @coordinator.command("invite")
    def coordinator_invite(
        folder: Hub,
        site: Annotated[str, typer.Argument(help="The site's name: a-z, 0-9 and '-'.")],
        days: Annotated[int, typer.Option(help="Days for which the code is good.")] = 7,
    ) -> None:
        """Print a one-time code with which a site joins."""
        from wardround.console.commands.coordinator_enrol import invite_command

        invite_command(folder, site, days)

    @roster.command("show")
    def roster_show(folder: Hub) -> None:
        """Say which roster is in force, who has joined, and who is invited."""
        from wardround.console.commands.coordinator_enrol import roster_show_command

        roster_show_command(folder)

    @roster.command("propose")
    def roster_propose(
        folder: Hub, file: Annotated[Path, typer.Argument(help="The roster, signed by the officers.")]
    ) -> None:
        """Put a signed roster in force; it goes to every site, which checks it again."""
        from wardround.console.commands.coordinator_enrol import roster_propose_command

        roster_propose_command(folder, file)

    @roster.command("revoke")
    def roster_revoke(folder: Hub, site: Annotated[str, typer.Argument(help="The site's name.")]) -> None:
        """Talk to a site no more, from the next message on."""
        from wardround.console.commands.coordinator_enrol import roster_revoke_command

        roster_revoke_command(folder, site)


def _study(study: typer.Typer) -> None:
    @study.command("check")
    def study_check(overrides: Settings = None) -> None:
        """Make the plan, say what it would cost each hospital, and send nothing."""
        from wardround.console.commands.study import check_command

        check_command(overrides or [])

    @study.command("rehearse")
    def study_rehearse(
        overrides: Settings = None,
        sites: Annotated[int, typer.Option(help="Made-up hospitals, where the study declares none.")] = 4,
        patients: Annotated[int, typer.Option(help="Made-up patients at each.")] = 200,
        rounds: Annotated[int, typer.Option(help="How many rounds.")] = 2,
    ) -> None:
        """Run a study on hospitals that are made of its contract: edges, codes, missing values, one class."""
        from wardround.console.commands.study_rehearse import rehearse_command

        rehearse_command(overrides or [], sites, patients, rounds)

    @study.command("weights")
    def study_weights(
        file: Annotated[Path, typer.Argument(help="A safetensors file.")],
        folder: Annotated[Path, typer.Option(help="Where plans and simulations look: the setting 'weights'.")] = Path(
            "weights"
        ),
    ) -> None:
        """Install a weights file for your own plans and simulations, and print its SHA-256."""
        from wardround.console.commands.weights import study_weights_command

        study_weights_command(folder, file)

    @study.command("propose")
    def study_propose(coordinator: At, overrides: Settings = None) -> None:
        """Hand a plan to the coordinator, which proposes it to the plan's hospitals."""
        from wardround.console.commands.study import propose_command

        propose_command(coordinator, overrides or [])

    @study.command("list")
    def study_list(coordinator: At) -> None:
        """Every study of the coordinator, the newest first."""
        from wardround.console.commands.study import list_command

        list_command(coordinator)

    @study.command("start")
    def study_start(name: Which, coordinator: At) -> None:
        """Let the study begin as soon as enough hospitals have approved it."""
        from wardround.console.commands.study import start_command

        start_command(coordinator, name)

    @study.command("watch")
    def study_watch(
        name: Which, coordinator: At, once: Annotated[bool, typer.Option("--once", help="Print and end.")] = False
    ) -> None:
        """Show rounds, who answered, who did not and why, epsilon, and the time left, live."""
        from wardround.console.commands.study import watch_command

        watch_command(coordinator, name, once)

    @study.command("stop")
    def study_stop(name: Which, coordinator: At) -> None:
        """Stop the study; hospitals end their work at the next step, and what was charged stays charged."""
        from wardround.console.commands.study import stop_command

        stop_command(coordinator, name)

    @study.command("resume")
    def study_resume(name: Which, coordinator: At) -> None:
        """Go on where the study was."""
        from wardround.console.commands.study import resume_command

        resume_command(coordinator, name)

    @study.command("fetch")
    def study_fetch(
        name: Which, coordinator: At, out: Annotated[Path, typer.Option(help="A folder that does not exist yet.")]
    ) -> None:
        """Check the receipts and copy them with plan and model."""
        from wardround.console.commands.study import fetch_command

        fetch_command(coordinator, name, out)
