"""``wardround site start|link|admit|report``: run a hospital's daemon, and look at what a study left there."""

import json
import logging
from pathlib import Path

import typer

from wardround.client.store.folder import SiteFolder
from wardround.protocol.errors import Unavailable


def start_command(folder: Path, link: bool) -> None:
    """Run the daemon of the site in ``folder`` until a signal; with ``link`` its SuperNode too."""
    from wardround.client.daemon import SiteDaemon, log_to, stop_on_signals

    opened = SiteFolder.open(folder)
    daemon = SiteDaemon(opened, own_link=link)
    log_to(opened)
    stop_on_signals(daemon)
    typer.echo(f"Site '{opened.site}': daemon starts; Ctrl-C stops it. Log: {opened.path / 'logs' / 'daemon.log'}")
    daemon.run()


def link_command(folder: Path) -> None:
    """Keep the SuperNode of a link folder running, as a service of its own user."""
    from wardround.client.link_process import run_link

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    run_link(folder, end_with_parent=False)


def admit_command(folder: Path, column: str, test_ids: Path | None) -> None:
    """Take the patients of the site's data into its data domains, for training or for testing, once for all studies."""
    from wardround.client.admission import admit
    from wardround.client.governance import TEST_DOMAIN, TRAINING_DOMAIN
    from wardround.client.reading import patients_in
    from wardround.client.settings import read_settings
    from wardround.client.store.database import open_store
    from wardround.client.store.members import Members, Part

    opened = SiteFolder.open(folder)
    settings, store = read_settings(opened.path), open_store(opened.database)
    members = Members(store, opened.patients_key())
    if test_ids is None:
        admit(opened, settings, members, column)
    else:
        try:
            testing = {line.strip() for line in test_ids.read_text(encoding="utf-8").splitlines() if line.strip()}
        except (OSError, UnicodeDecodeError):
            raise Unavailable(f"'{test_ids}' cannot be read", "give a text file with one id on each line") from None
        everybody = patients_in(settings, opened.path, column)
        members.enrol([id_ for id_ in everybody if id_ not in testing], TRAINING_DOMAIN, Part.TRAIN)
        members.enrol([id_ for id_ in everybody if id_ in testing], TEST_DOMAIN, Part.TEST)
    store.close()
    typer.echo("Every patient of the site's data is admitted; who was there before stays where they were.")


def report_command(folder: Path, study: str, as_json: bool) -> None:
    """The site's own report of a finished study: its own model and the shared one on its own test patients."""
    from wardround.client.released import site_report
    from wardround.client.settings import read_settings
    from wardround.client.store.database import open_store
    from wardround.client.store.ledger import Ledger
    from wardround.client.store.members import Members
    from wardround.client.store.receipts import Receipts
    from wardround.client.store.studies import Studies
    from wardround.console.reports.benefits import sentences, site_words

    opened = SiteFolder.open(folder)
    store = open_store(opened.database)
    plan = Studies(store).named(study).plan
    receipts = [receipt for receipt in Receipts(store).of(plan.digest) if receipt.state == "closed"]
    in_sum = sum(receipt.line[opened.site].outcome == "replied" for receipt in receipts)
    parts = (Ledger(store, opened.site, opened.identity()), Members(store, opened.patients_key()))
    found = site_report(opened, plan, read_settings(opened.path), *parts, in_sum)
    if as_json:
        typer.echo(found.model_dump_json())
        return
    typer.echo(f"Study {plan.study} at {found.site}; nothing on this page leaves the site.")
    for name in found.shared.metrics:
        own, shared, gain = (part.get(name) for part in (found.own.metrics, found.shared.metrics, found.gain))
        typer.echo(json.dumps({"metric": name, "own": _number(own), "shared": _number(shared), "gain": _number(gain)}))
    if said := sentences(site_words(found)):
        typer.echo(said)


def _number(estimate: object) -> object:
    value = getattr(estimate, "value", None)
    low, high = getattr(estimate, "low", None), getattr(estimate, "high", None)
    return None if value is None else {"value": round(value, 4), "low": low, "high": high}
