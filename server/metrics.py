"""What the coordinator tells its operators' monitoring: sites, studies and rounds. It knows nothing of a patient."""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC
from typing import Final

from cryptography.x509 import load_pem_x509_certificates

from wardround.conf.monitoring import Measurement, Value
from wardround.server.folder import CoordinatorFolder
from wardround.server.store.registry import Registry
from wardround.server.store.studies import StudyFolder

_LIST: Final = (
    Measurement("wardround_coordinator_info", "Name of the coordinator.", labels=("name",)),
    Measurement("wardround_coordinator_sites", "Sites that joined, by state.", labels=("state",)),
    Measurement("wardround_coordinator_roster_epoch", "Epoch of the roster in force."),
    Measurement("wardround_coordinator_study_state", "1 for a study's state.", labels=("study", "plan", "state")),
    Measurement("wardround_coordinator_study_rounds", "Rounds that a study has.", labels=("study", "plan")),
    Measurement("wardround_coordinator_study_round", "The round that a study is in.", labels=("study", "plan")),
    Measurement(
        "wardround_coordinator_rounds_total", "Rounds with a receipt, by how they ended.", "counter",
        ("study", "plan", "outcome"),
    ),
    Measurement("wardround_coordinator_certificate_expires_seconds", "When the certificate ends, since 1970."),
    Measurement("wardround_coordinator_disk_free_bytes", "Free where the coordinator's folder lies."),
)  # fmt: skip
MEASUREMENTS: Final = {each.name: each for each in _LIST}
"""All that can be read there, in this order."""


def coordinator_values(folder: CoordinatorFolder) -> Iterator[Value]:
    """The values now."""
    registry = Registry(folder.database)
    sites = registry.sites()
    yield Value("wardround_coordinator_info", 1.0, (folder.about.name,))
    for state, revoked in (("joined", False), ("revoked", True)):
        yield Value("wardround_coordinator_sites", float(sum(site.revoked is revoked for site in sites)), (state,))
    if (roster := registry.roster()) is not None:
        yield Value("wardround_coordinator_roster_epoch", float(roster.epoch))
    for row in registry.studies():
        named = (row.plan.study, row.plan.digest[:12])
        yield Value("wardround_coordinator_study_state", 1.0, (*named, row.state or row.wanted))
        yield Value("wardround_coordinator_study_rounds", float(row.plan.rounds), named)
        place = StudyFolder.create(folder.studies, row.plan)
        yield Value("wardround_coordinator_study_round", _round_of(place), named)
        receipts = place.receipts()
        for outcome in ("closed", "void"):
            count = sum(receipt.state == outcome for receipt in receipts)
            yield Value("wardround_coordinator_rounds_total", float(count), (*named, outcome))
    yield Value("wardround_coordinator_certificate_expires_seconds", _expires(folder))
    yield Value("wardround_coordinator_disk_free_bytes", float(shutil.disk_usage(folder.path).free))


def _round_of(place: StudyFolder) -> float:
    try:
        return float(json.loads((place.path / "status.json").read_bytes()).get("round_number", 0))
    except (OSError, ValueError):
        return 0.0


def _expires(folder: CoordinatorFolder) -> float:
    """The first of the listener's chain to end, in seconds since 1970."""
    chain = load_pem_x509_certificates((folder.path / "tls" / "server.pem").read_bytes())
    return min(each.not_valid_after_utc for each in chain).astimezone(UTC).timestamp()
