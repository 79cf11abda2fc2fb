"""From an approved plan to the hospital that answers its rounds: data or feeds, division, opt-outs, keys.

The division into training and test patients is the site's own, once for all studies (``store.members``). Patients whom
the site has not admitted take part in nothing.
"""

import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from wardround.client.answers import Answers, answers_from
from wardround.client.cache import CACHE, FeatureCache, source_state
from wardround.client.connectors import IMAGE_CONNECTORS, Cohort
from wardround.client.connectors.broken_off import read_whole
from wardround.client.connectors.table import Records
from wardround.client.consent import Consent
from wardround.client.counted import SitePatients
from wardround.client.feeds import open_feed
from wardround.client.feeds.settings import told_by
from wardround.client.governance import CONSORTIUM_DOMAIN
from wardround.client.imaging.kept import KeptPictures
from wardround.client.indicator_site import IndicatorSite
from wardround.client.plugins.task import site_task
from wardround.client.population import ids_of, parts_of, read_by
from wardround.client.reading import mapping_file, patients_in, read_records
from wardround.client.secure import SecureSite
from wardround.client.settings import SETTINGS, SiteSettings, opt_out_sources
from wardround.client.several_feeds import SeveralFeeds
from wardround.client.site import Seal, Site
from wardround.client.store.campaigns import CampaignSteps
from wardround.client.store.evidence import Evidence
from wardround.client.store.folder import SiteFolder
from wardround.client.store.ledger import Ledger, utc_now
from wardround.client.store.members import Members
from wardround.client.store.memory import SiteMemory
from wardround.client.store.opt_outs import OptOuts
from wardround.client.store.replies import StoredReplies
from wardround.client.store.roster import PinnedRoster
from wardround.client.tasks import Task, frozen_part, with_frozen_part
from wardround.privacy.secagg.scale import quantizer_for
from wardround.protocol.canonical import LABEL_DATA, digest, encode
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.indicators import Indicators
from wardround.protocol.outgoing import outgoing
from wardround.protocol.plan import StudyPlan
from wardround.protocol.statistics import Statistics
from wardround.strategies import strategy_for


def cohort_of(plan: StudyPlan, folder: SiteFolder, settings: SiteSettings, members: Members) -> Cohort:
    """The site's cohort under the plan's contract, divided as the site has divided its patients for all studies.

    Raises:
        UsageError: a cell breaks the contract, the plan names no patient column, or nobody here was admitted.
        Unavailable: a source cannot be read.
    """
    contract = plan.contract_or_fail
    if contract.patient_id is None:
        raise UsageError("the plan does not name the column of the patient's id", "ask for a plan that does")
    # What is frozen of the task is part of the way from a picture to its features.
    frozen = frozen_part(plan.task, folder.weights)
    name = digest(LABEL_DATA, contract.model_dump_json().encode(), b"" if frozen is None else encode(_task(plan)))
    state = digest(LABEL_DATA, *(part.encode() for part in _state(settings, folder.path)), members.state().encode())
    cache = FeatureCache(folder.path, folder.site)
    kept = KeptPictures(folder.path / CACHE, name, folder.pictures_key(), members.hashed)

    def records() -> Iterator[Records]:
        return with_frozen_part(read_records(settings, folder.path, contract, folder.site, kept), frozen)

    cohort = read_whole(lambda: cache.cohort(name, state, records, members))
    # Who trains and has nobody to test with adds noise alone to an evaluation: a refusal would say so to the others.
    if not (cohort.train.patients if plan.follows else read_by(plan.task, cohort).patients):
        raise UsageError(
            f"no patient of site '{folder.site}' is admitted to a data domain",
            "run 'wardround site admit FOLDER' first",
        )
    return cohort


def _granted(plan: StudyPlan, ledger: Ledger) -> tuple[str, ...]:
    """The domains of patients that officers have granted the plan: charged at a site that has nobody in them too."""
    return tuple(sorted(on for of, on in ledger.state.grants if of == plan.digest and on != CONSORTIUM_DOMAIN))


def _task(plan: StudyPlan) -> dict[str, Any]:
    return plan.task.model_dump(mode="json")


def _state(settings: SiteSettings, folder: Path) -> Iterator[str]:
    """What the features depend on at this site: each source's settings and what shows that it has changed."""
    for source in settings.data:
        yield source.model_dump_json()
        hours = source.keep_hours
        yield source_state(folder / source.path, str(int(time.time() // (3600 * hours))))
        if source.connector in IMAGE_CONNECTORS and "table" in source.options:
            yield source_state(folder / source.path / str(source.options["table"]), "")
        rules = mapping_file(source, folder)
        yield rules.read_text(encoding="utf-8", errors="replace") if rules.exists() else ""
        if source.labels is not None:
            yield source_state(folder / source.labels.path, "")


def admit(folder: SiteFolder, settings: SiteSettings, members: Members, id_column: str) -> int:
    """Every patient of the data sources into the site's domains; who is there stays. Returns how many are new."""
    found = read_whole(lambda: patients_in(settings, folder.path, id_column))
    return members.admit(found, test_share=settings.test_share)


def open_hospital(
    plan: StudyPlan,
    folder: SiteFolder,
    settings: SiteSettings,
    ledger: Ledger,
    members: Members,
    roster: PinnedRoster,
    evidence: Evidence,
    stopped: Callable[[], bool],
    clock: Callable[[], datetime] = utc_now,
) -> Site | IndicatorSite | SecureSite:
    """The hospital that answers rounds of ``plan``, with what a crash left open settled.

    Raises:
        WardroundError: its data or feeds cannot be read, do not meet the plan, or are not admitted.
    """
    make: Callable[[Seal], Site | IndicatorSite]
    if isinstance(plan.task, Indicators):
        make = _campaign(plan, plan.task, folder, settings, ledger, members, clock)
    else:
        make = _study(plan, folder, settings, ledger, members, stopped)
    if not plan.privacy.secure_aggregation:
        made: Site | IndicatorSite | SecureSite = make(outgoing)
    else:
        if roster.held() is None:
            raise Unavailable("no roster is pinned here", "pin it: wardround site roster pin, or site join")
        quantizer = quantizer_for(plan, strategy_for(plan).part_sizes(plan.layout.size))
        made = SecureSite(make, folder.identity(), roster, evidence, quantizer, folder.inputs_secret(), os.urandom)
    (made.site if isinstance(made, SecureSite) else made).recover()
    return made


def _study(
    plan: StudyPlan,
    folder: SiteFolder,
    settings: SiteSettings,
    ledger: Ledger,
    members: Members,
    stopped: Callable[[], bool],
) -> Callable[[Seal], Site]:
    """Makes the hospital of a plan that reads a table of patients."""
    cohort = cohort_of(plan, folder, settings, members)
    ids, parts = ids_of(plan.task, cohort), parts_of(plan.task)
    domains = members.domains(ids or ()) or _granted(plan, ledger)
    sources = opt_out_sources(settings, folder.path)
    consent = Consent(sources, members, OptOuts(members), ids, domains, parts=parts)
    task: Task | Answers = (
        answers_from(plan, folder.weights)
        if isinstance(plan.task, Statistics)
        else site_task(plan, folder, released=True)
    )
    replies = StoredReplies(members.store, folder.site, folder.replies_key())
    memory = SiteMemory(members.store, folder.site, folder.memory_key())

    def make(seal: Seal) -> Site:
        return Site(
            plan,
            cohort,
            task,
            strategy_for(plan),
            ledger,
            domains=domains,
            replies=replies,
            consent=consent,
            stopped=stopped,
            seal=seal,
            memory=memory,
        )

    return make


def _campaign(
    plan: StudyPlan,
    task: Indicators,
    folder: SiteFolder,
    settings: SiteSettings,
    ledger: Ledger,
    members: Members,
    clock: Callable[[], datetime],
) -> Callable[[Seal], IndicatorSite]:
    """Makes the hospital of a plan that reads the site's feeds. Nothing is read of them here."""
    check_feeds(task, settings)
    key = folder.feeds_key()
    feeds = {source.name: open_feed(source, folder.path, key, lambda: task.at(clock())) for source in settings.feeds}
    domains = granted(plan, ledger)
    patients = SitePatients(opt_out_sources(settings, folder.path), members, domains, settings.test_share, key)

    def make(seal: Seal) -> IndicatorSite:
        return IndicatorSite(
            folder.site,
            plan,
            SeveralFeeds(feeds),
            ledger,
            domains=domains,
            steps=CampaignSteps(members.store, folder.site, folder.replies_key()),
            replies=StoredReplies(members.store, folder.site, folder.replies_key()),
            patients=patients,
            now=clock,
            seal=seal,
        )

    return make


def check_feeds(task: Indicators, settings: SiteSettings) -> None:
    """Raise UsageError unless the site's feeds tell of every kind of event that ``task`` counts.

    A kind that no feed knows would be a figure of 0 that nobody can tell from a quiet day.
    """
    if not settings.feeds:
        raise UsageError("the site has no feed, and indicators are made of events", f"write 'feeds' in {SETTINGS}")
    known = {kind for source in settings.feeds for kind in told_by(source)}
    if missing := sorted(set(task.kinds) - known):
        raise UsageError(
            f"no feed of this site tells of '{missing[0]}', which the plan counts",
            f"add a feed that does, or the kind to 'kinds' of a view, in {SETTINGS}",
        )


def granted(plan: StudyPlan, ledger: Ledger) -> tuple[str, ...]:
    """The data domains on which officers have approved ``plan``, sorted. Raises UsageError where there is none."""
    grants = ledger.state.grants.items()
    found = sorted(domain for (of, domain), grant in grants if of == plan.digest and grant.fact.blocks)
    domains = tuple(domain for domain in found if domain != CONSORTIUM_DOMAIN)
    if not domains:
        raise UsageError("the plan is approved on no data domain here", "an officer of the site decides")
    return domains
