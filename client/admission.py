"""From an approved plan to the hospital that answers its rounds: data, division, opt-outs, keys.

The division into training and test patients is the site's own, once for all studies (``store.members``). Patients whom
the site has not admitted take part in nothing.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from wardround.client.connectors import Cohort, make_cohort, read_table
from wardround.client.connectors.table import apply_contract
from wardround.client.consent import Consent
from wardround.client.secure import SecureSite
from wardround.client.settings import SiteSettings, opt_out_sources
from wardround.client.site import Site
from wardround.client.store.evidence import Evidence
from wardround.client.store.folder import SiteFolder
from wardround.client.store.ledger import Ledger
from wardround.client.store.members import Members, Part
from wardround.client.store.opt_outs import OptOuts
from wardround.client.store.replies import StoredReplies
from wardround.client.store.roster import PinnedRoster
from wardround.client.tasks import task_from
from wardround.privacy.secagg.scale import quantizer_for
from wardround.protocol.contract import DataContract
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.messages import Reply
from wardround.protocol.outgoing import Outgoing, outgoing
from wardround.protocol.plan import StudyPlan
from wardround.strategies import strategy_from

NOT_ADMITTED = "not admitted to a data domain"


def read_data(settings: SiteSettings, folder: Path, contract: DataContract) -> pa.Table:
    """The columns of the contract from every source of ``site.yaml``, one below the other.

    Raises:
        UsageError: there is no source, or one lacks a column.
        Unavailable: a file cannot be read.
    """
    if not settings.data:
        raise UsageError("the site names no data", "write 'data:' into site.yaml; docs/site.md shows how")
    tables = []
    for number, source in enumerate(settings.data, 1):
        table = read_table(source.connector, folder / source.path, source.options)
        missing = [name for name in contract.column_names if name not in table.column_names]
        if missing:
            raise UsageError(f"data source {number} has no column '{missing[0]}'", "check site.yaml and the export")
        tables.append(table.select(list(contract.column_names)))
    return pa.concat_tables(tables, promote_options="permissive")


def cohort_of(plan: StudyPlan, site: str, table: pa.Table, members: Members) -> Cohort:
    """The site's cohort under the plan's contract, divided as the site has divided its patients for all studies.

    Raises:
        UsageError: a cell breaks the contract, the plan names no patient column, or nobody here was admitted.
    """
    if plan.contract is None or plan.contract.patient_id is None:
        raise UsageError("the plan does not name the column of the patient's id", "ask for a plan that does")
    records = apply_contract(table, plan.contract, f"site '{site}'")
    ids = [str(patient) for patient in records.patients]
    parts = np.array([None if part is None else part.value for part in members.parts(ids)], object)
    known = parts != None  # noqa: E711 - elementwise
    excluded = dict(records.excluded)
    if not known.all():
        excluded[NOT_ADMITTED] = int((~known).sum())
    if not (parts == Part.TRAIN.value).any():
        raise UsageError(
            f"no patient of site '{site}' is admitted to a data domain", "run 'wardround site admit FOLDER' first"
        )
    return make_cohort(
        site,
        records.features[known],
        records.targets[known],
        test=parts[known] == Part.TEST.value,
        patients=np.asarray(ids, object)[known],
        excluded=excluded,
    )


def patients_in(folder: SiteFolder, settings: SiteSettings, id_column: str) -> list[str]:
    """The id of every patient in the site's data sources, each once. Raises UsageError without such a column."""
    found: dict[str, None] = {}
    for source in settings.data:
        table = read_table(source.connector, folder.path / source.path, source.options)
        if id_column not in table.column_names:
            raise UsageError(f"a data source has no column '{id_column}'", "name the column with the patient's id")
        found |= dict.fromkeys(str(cell).strip() for cell in table.column(id_column).to_pylist() if cell is not None)
    found.pop("", None)
    return list(found)


def admit(folder: SiteFolder, settings: SiteSettings, members: Members, id_column: str) -> int:
    """Every patient of the data sources into the site's domains; who is there stays. Returns how many are new."""
    return members.admit(patients_in(folder, settings, id_column), test_share=settings.test_share)


def open_hospital(
    plan: StudyPlan,
    folder: SiteFolder,
    settings: SiteSettings,
    ledger: Ledger,
    members: Members,
    roster: PinnedRoster,
    evidence: Evidence,
    stopped: Callable[[], bool],
) -> Site | SecureSite:
    """The hospital that answers rounds of ``plan``, with what a crash left open settled.

    Raises:
        WardroundError: its data cannot be read, do not meet the contract, or are not admitted.
    """
    cohort = cohort_of(plan, folder.site, read_data(settings, folder.path, plan.contract_or_fail), members)
    domains = members.domains(cohort.train_ids or ())
    consent = Consent(opt_out_sources(settings, folder.path), members, OptOuts(members), cohort.train_ids, domains)
    strategy = strategy_from(plan.strategy)
    replies = StoredReplies(members.store, folder.site, folder.replies_key())

    def make(seal: Callable[[Reply], Outgoing]) -> Site:
        return Site(
            plan,
            cohort,
            task_from(plan),
            strategy,
            ledger,
            domains=domains,
            replies=replies,
            consent=consent,
            stopped=stopped,
            seal=seal,
        )

    if not plan.privacy.secure_aggregation:
        made: Site | SecureSite = make(outgoing)
    else:
        if roster.held() is None:
            raise Unavailable("no roster is pinned here", "pin it: wardround site roster pin, or site join")
        quantizer = quantizer_for(plan, strategy.part_sizes(plan.layout.size))
        made = SecureSite(make, folder.identity(), roster, evidence, quantizer, folder.inputs_secret(), os.urandom)
    (made.site if isinstance(made, SecureSite) else made).recover()
    return made
