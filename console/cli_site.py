"""``wardround site``, the part that hospital IT and officers type beside a running daemon."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from wardround.console import cli_console
from wardround.console.groups import group
from wardround.console.web.roles import Face

Folder: TypeAlias = Annotated[Path, typer.Argument(help="The site's folder.")]
Keys: TypeAlias = Annotated[list[Path], typer.Option("--officer-key", help="An officer's key file; repeat.")]
Which: TypeAlias = Annotated[str, typer.Argument(help="The study's name, or the beginning of its plan's digest.")]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add(site: typer.Typer) -> None:
    """Hang the commands below ``wardround site``."""
    _running(site)
    _control(site)
    _data(site)
    _keeping(site)
    cli_console.add(site, Face.SITE)
    _studies(group("study", "Plans that were proposed here: read, approve, refuse, revoke.", site))
    _feeds(group("feed", "Sources of live indicators, tailed from a watermark.", site))
    _domains(group("domain", "Budgets of the site's patient populations.", site))
    _officers(group("officer", "Whose keys may sign here, and what is done when one is lost or stolen.", site))


def _running(site: typer.Typer) -> None:
    @site.command("join")
    def site_join(
        folder: Folder,
        code: Annotated[str, typer.Argument(help="The code of the invitation; '-' reads it from standard input.")],
        link: Annotated[Path | None, typer.Option(help="The link folder; left out: FOLDER-link.")] = None,
        proxy: Annotated[str | None, typer.Option(help="http://<host>:<port> of the hospital's proxy.")] = None,
        proxy_user: Annotated[str | None, typer.Option(help="The proxy's user.")] = None,
        proxy_password_file: Annotated[Path | None, typer.Option(help="A file with its password.")] = None,
        roster_fingerprint: Annotated[
            str | None, typer.Option(help="The roster's sixteen groups, as an officer read them out.")
        ] = None,
    ) -> None:
        """Join a coordinator: keys are made here, only public ones are sent, and a fingerprint is shown."""
        from wardround.console.commands.site_join import join_command

        join_command(folder, code, link, proxy, proxy_user, proxy_password_file, roster_fingerprint)

    @site.command("start")
    def site_start(
        folder: Folder,
        link: Annotated[
            bool, typer.Option("--link/--no-link", help="Start the SuperNode too; not where it is a service.")
        ] = True,
    ) -> None:
        """Run the site's daemon until Ctrl-C."""
        from wardround.console.commands.site_daemon import start_command

        start_command(folder, link)

    @site.command("doctor")
    def site_doctor(
        folder: Annotated[
            Path | None, typer.Argument(help="The site's folder; the SuperNode's user leaves it out.")
        ] = None,
        link: Annotated[
            Path | None, typer.Option(help="The link folder; left out: the one that the site names.")
        ] = None,
        as_json: AsJson = False,
        out: Annotated[Path | None, typer.Option(help="Write the report into this new file.")] = None,
    ) -> None:
        """Examine this machine and the way to the coordinator; the report may be sent by e-mail."""
        from wardround.console.commands.site_doctor import doctor_command

        doctor_command(folder, link, as_json, out)

    @site.command("link")
    def site_link(folder: Annotated[Path, typer.Argument(help="The link folder.")]) -> None:
        """Keep the SuperNode running, apart from data and keys: the one part that goes out."""
        from wardround.console.commands.site_daemon import link_command

        link_command(folder)


def _data(site: typer.Typer) -> None:
    @site.command("weights")
    def site_weights(
        folder: Folder, file: Annotated[Path, typer.Argument(help="A safetensors file that a plan names.")]
    ) -> None:
        """Install a weights file that people brought: nothing is fetched because a plan names it."""
        from wardround.console.commands.weights import site_weights_command

        site_weights_command(folder, file)

    @site.command("admit")
    def site_admit(
        folder: Folder,
        column: Annotated[str, typer.Option(help="The column with the patient's id.")],
        test_ids: Annotated[
            Path | None, typer.Option(help="Who tests, one id a line; left out: by keyed hash, as site.yaml says.")
        ] = None,
    ) -> None:
        """Take the patients of the site's data into its data domains; who is there stays where they are."""
        from wardround.console.commands.site_daemon import admit_command

        admit_command(folder, column, test_ids)

    @site.command("report")
    def site_report(
        folder: Folder,
        study: Annotated[str, typer.Argument(help="The study's name or digest.")],
        as_json: AsJson = False,
    ) -> None:
        """What a finished study is worth here: the own model and the shared one on the site's own test patients."""
        from wardround.console.commands.site_daemon import report_command

        report_command(folder, study, as_json)

    @site.command("dry-run")
    def site_dry_run(
        folder: Folder,
        study: Which,
        rounds: Annotated[int, typer.Option(help="How many rounds to try, one after the other.")] = 1,
        as_json: AsJson = False,
    ) -> None:
        """Try a study's rounds on the site's own data: nothing is released, so nothing is charged."""
        from wardround.console.commands.site_dry_run import dry_run_command

        dry_run_command(folder, study, rounds, as_json)


def _control(site: typer.Typer) -> None:
    @site.command("notify")
    def site_notify(
        folder: Folder,
        once: Annotated[
            bool, typer.Option("--once", help="Look once and end; 1 if somebody could not be told.")
        ] = False,
        show: Annotated[bool, typer.Option("--show", help="Print what there is now, and send nothing.")] = False,
    ) -> None:
        """Tell people by e-mail or webhook what they must hear without looking, until Ctrl-C."""
        from wardround.console.commands.site_notify import notify_command

        notify_command(folder, once, show)

    @site.command("status")
    def site_status(folder: Folder, as_json: AsJson = False) -> None:
        """Say how the daemon stands: state, link, last message."""
        from wardround.console.commands.site_control import status_command

        status_command(folder, as_json)

    @site.command("pause")
    def site_pause(folder: Folder, reason: Annotated[str, typer.Option(help="Why, for others who ask.")]) -> None:
        """Answer no round until resumed; a round that runs is finished."""
        from wardround.console.commands.site_control import pause_command

        pause_command(folder, reason)

    @site.command("resume")
    def site_resume(folder: Folder) -> None:
        """Answer rounds again."""
        from wardround.console.commands.site_control import resume_command

        resume_command(folder)

    @site.command("stop")
    def site_stop(folder: Folder) -> None:
        """End the daemon at its next step."""
        from wardround.console.commands.site_control import stop_command

        stop_command(folder)


def _studies(study: typer.Typer) -> None:
    @study.command("list")
    def study_list(folder: Folder) -> None:
        """Every plan that was proposed to this site, and how it stands."""
        from wardround.console.commands.site_study import list_command

        list_command(folder)

    @study.command("show")
    def study_show(folder: Folder, plan: Which, as_json: AsJson = False) -> None:
        """A plan in words, and what changed since the last one that was approved here."""
        from wardround.console.commands.site_study import show_command

        show_command(folder, plan, as_json)

    @study.command("request")
    def study_request(
        folder: Folder,
        plan: Which,
        domain: Annotated[str, typer.Option(help="The data domain of the patients.")] = "training",
        attempts: Annotated[int, typer.Option(help="How often a round may be charged.")] = 1,
        reason: Annotated[str | None, typer.Option(help="For a plan without differential privacy.")] = None,
        revoke: Annotated[bool, typer.Option("--revoke", help="Ask for the signature that takes it back.")] = False,
        out: Annotated[Path | None, typer.Option(help="A new file; left out: the screen.")] = None,
    ) -> None:
        """Write what an officer signs on a machine of her own, with 'wardround officer sign'."""
        from wardround.console.commands.site_study import request_command

        request_command(folder, plan, domain, attempts, reason, revoke, out)

    @study.command("record")
    def study_record(
        folder: Folder, file: Annotated[Path, typer.Argument(help="What 'wardround officer sign' wrote.")]
    ) -> None:
        """Append facts that an officer has signed elsewhere."""
        from wardround.console.commands.site_study import record_command

        record_command(folder, file)

    @study.command("approve")
    def study_approve(
        folder: Folder,
        plan: Which,
        officer_key: Keys,
        domain: Annotated[str, typer.Option(help="The data domain of the patients.")] = "training",
        attempts: Annotated[int, typer.Option(help="How often a round may be charged.")] = 1,
        reason: Annotated[str | None, typer.Option(help="For a plan without differential privacy.")] = None,
        yes: Yes = False,
    ) -> None:
        """Show a plan and its cost, ask, and sign it with the officer's key."""
        from wardround.console.commands.site_study import approve_command

        approve_command(folder, plan, officer_key, domain, attempts, reason, yes)

    @study.command("refuse")
    def study_refuse(folder: Folder, plan: Which, reason: Annotated[str, typer.Option(help="Why.")]) -> None:
        """Say no to a plan; the reason stays here."""
        from wardround.console.commands.site_study import refuse_command

        refuse_command(folder, plan, reason)

    @study.command("revoke")
    def study_revoke(folder: Folder, plan: Which, officer_key: Keys) -> None:
        """Take an approval back, at once."""
        from wardround.console.commands.site_study import revoke_command

        revoke_command(folder, plan, officer_key)


def _feeds(feed: typer.Typer) -> None:
    @feed.command("check")
    def site_feed_check(
        folder: Folder,
        name: Annotated[str, typer.Argument(help="The feed's name in site.yaml.")],
        as_json: AsJson = False,
    ) -> None:
        """Poll a feed once, keep nothing, and print how many events of which kind there are: no patient's value."""
        from wardround.console.commands.site_feed import check_command

        check_command(folder, name, as_json)


def _domains(domain: typer.Typer) -> None:
    @domain.command("open")
    def domain_open(
        folder: Folder,
        name: Annotated[str, typer.Argument(help="The domain's name, for example training.")],
        patients: Annotated[int, typer.Option(help="About how many patients it holds; fixes delta.")],
        officer_key: Keys,
        epsilon_cap: Annotated[float, typer.Option(help="Lifetime budget over all studies.")] = 8.0,
        yes: Yes = False,
    ) -> None:
        """Give a patient population its lifetime budget, for ever."""
        from wardround.console.commands.site_study import domain_open_command

        domain_open_command(folder, name, epsilon_cap, patients, officer_key, yes)


def _officers(officer: typer.Typer) -> None:
    @officer.command("list")
    def officer_list(folder: Folder) -> None:
        """Every officer's key, how it stands, and what it has signed."""
        from wardround.console.commands.site_officer import list_command

        list_command(folder)

    @officer.command("suspend")
    def officer_suspend(
        folder: Folder,
        key: Annotated[str, typer.Option(help="The key: a card's file, its fingerprint, or the officer's name.")],
        reason: Annotated[Literal["lost", "stolen"], typer.Option(help="What happened to it.")],
        officer_key: Annotated[Path, typer.Option(help="The key file of any officer of the site.")],
        note: Annotated[str, typer.Option(help="What the record should say; nothing of a patient.")] = "",
        yes: Yes = False,
    ) -> None:
        """Stop a key at once and for ever: all that rests on it waits until it is signed again."""
        from wardround.console.commands.site_officer import suspend_command

        suspend_command(folder, key, reason, note, officer_key, yes)

    @officer.command("name")
    def officer_name(
        folder: Folder,
        officer: Annotated[list[Path], typer.Option(help="The card of each officer from now on; repeat.")],
        officer_key: Keys,
        yes: Yes = False,
    ) -> None:
        """Replace the list of officers, with the signatures of two of the present one."""
        from wardround.console.commands.site_officer import name_command

        name_command(folder, officer, officer_key, yes)


def _keeping(site: typer.Typer) -> None:
    @site.command("install-service")
    def site_install_service(
        folder: Folder,
        data: Annotated[
            Path | None, typer.Option(help="One more folder that the link may not see, beside those of site.yaml.")
        ] = None,
        root: Annotated[Path, typer.Option(help="Write below this folder instead of the system's root.")] = Path("/"),
        show: Annotated[bool, typer.Option("--show", help="Print the units and write nothing.")] = False,
    ) -> None:
        """Write systemd units for daemon and link, each with a user of its own."""
        from wardround.console.commands.site_keeping import install_service_command

        install_service_command(folder, data, root, show)

    @site.command("uninstall-service")
    def site_uninstall_service(
        folder: Folder,
        root: Annotated[Path, typer.Option(help="As for install-service.")] = Path("/"),
        purge: Annotated[
            bool, typer.Option("--purge", help="Remove what Wardround made in the folder too, after the site has left.")
        ] = False,
    ) -> None:
        """Remove the units; data, keys and ledger stay."""
        from wardround.console.commands.site_keeping import uninstall_service_command

        uninstall_service_command(folder, root, purge)

    @site.command("backup")
    def site_backup(folder: Folder, out: Annotated[Path, typer.Argument(help="A new file.")]) -> None:
        """Ledger, keys and settings in one file, sealed with a passphrase; the daemon may run."""
        from wardround.console.commands.site_keeping import backup_command

        backup_command(folder, out)

    @site.command("restore")
    def site_restore(
        file: Annotated[Path, typer.Argument(help="The backup.")],
        folder: Annotated[Path, typer.Argument(help="The site's folder; it must not exist yet.")],
    ) -> None:
        """Make a site's folder anew from a backup; its ledger is then an older copy of itself."""
        from wardround.console.commands.site_keeping import restore_command

        restore_command(file, folder)

    @site.command("witnessed")
    def site_witnessed(
        folder: Folder,
        site: Annotated[
            str | None,
            typer.Argument(help="A site whose ledger was put back from a backup: print its last signed head."),
        ] = None,
        as_json: AsJson = False,
    ) -> None:
        """Who has witnessed which ledger, and the alarms; with a SITE the last head of it that this site has signed."""
        from wardround.console.commands.site_keeping import witnessed_command
        from wardround.console.commands.site_witnessed import witnessing_command

        if site is None:
            witnessing_command(folder, as_json)
        else:
            witnessed_command(folder, site)

    @site.command("leave")
    def site_leave(
        folder: Folder,
        out: Annotated[Path, typer.Option(help="A new folder for the exported ledger.")],
        yes: Annotated[str | None, typer.Option(help="The site's name, instead of typing it.")] = None,
    ) -> None:
        """Leave the federation: the ledger is exported, the keys are destroyed."""
        from wardround.console.commands.site_keeping import leave_command

        leave_command(folder, out, yes)

    @site.command("upgrade")
    def site_upgrade(
        folder: Folder,
        check: Annotated[bool, typer.Option("--check", help="Say what an upgrade means; it changes nothing.")] = True,
    ) -> None:
        """Say what the installed version means for the site's studies and its database."""
        from wardround.console.commands.site_keeping import upgrade_command

        upgrade_command(folder)
