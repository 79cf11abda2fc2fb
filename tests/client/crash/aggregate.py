"""Secure aggregation under crashes: one process plays the coordinator and four hospitals, and dies as a whole.

North's folder and the coordinator's files are what survives. Every run asks the rounds that are left of other sites
than the run before, which is what a coordinator would do that is after the difference of two sums. What leaves north
is noted outside, as an observer of the network would.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hospital import ANNA, BEN, COHORT, TASK, TODAY, WIDTH, Log

from wardround.client.connectors.cohort import make_cohort
from wardround.client.governance import grant_for, open_domain
from wardround.client.secure import MAX_ATTEMPTS, SecureSite
from wardround.client.site import Site
from wardround.client.store.database import open_store
from wardround.client.store.evidence import Evidence
from wardround.client.store.folder import SiteFolder
from wardround.client.store.ledger import Ledger
from wardround.client.store.replies import StoredReplies
from wardround.client.store.roster import PinnedRoster
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.privacy.secagg.scale import quantizer_for
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import approve
from wardround.protocol.messages import Refusal
from wardround.protocol.outgoing import Outgoing, bytes_to_send, parse_answer
from wardround.protocol.owners import Governance, Owner, Party
from wardround.protocol.roster import Roster
from wardround.protocol.secagg import Proposal, Survivors
from wardround.server.exchange import begin, open_sum, set_up
from wardround.server.rounds import RoundState
from wardround.server.store.checkpoint import write_checkpoint
from wardround.server.study import Progress, Study
from wardround.server.sums import MaskedSum
from wardround.simulations.parties import asking
from wardround.strategies import strategy_from

ROUNDS, NORTH, PEERS = 2, "north", ("east", "south", "west")
PLAN = make_plan(
    parse_configuration(compose_configuration([f"rounds={ROUNDS}"])), dict.fromkeys((NORTH, *PEERS), 50), TODAY
)
STRATEGY = strategy_from(PLAN.strategy)
SIZES = STRATEGY.part_sizes(PLAN.layout.size)
KEYS = {
    name: Identity(name, Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)))
    for number, name in enumerate((*PEERS, "operator"), start=11)
}


def found(folder: Path, log: Log, point: Callable[[], None]) -> None:
    """North with its grant and its pinned roster, and the roster for the coordinator to carry."""
    site = SiteFolder.create(folder, NORTH, [ANNA.public, BEN.public])
    ledger, identity = site.ledger(), site.identity()
    key = identity.public.key.hex()
    ledger.record(approve(open_domain("training", 12.0, 1e-4), key, ANNA))
    ledger.record(approve(grant_for(PLAN, NORTH, attempts=MAX_ATTEMPTS), key, ANNA))
    owners = {name: {"legal_entity": name, "controlling_authority": name} for name in (NORTH, *PEERS, "operator")}
    until = TODAY + timedelta(days=300)
    parties = [
        Party(site=name, key=public.key.hex(), valid_from=TODAY, valid_until=until, **owners[name])
        for name, public in sorted({NORTH: identity.public, **{name: KEYS[name].public for name in PEERS}}.items())
    ]
    roster = Roster(
        consortium="crash",
        epoch=1,
        previous=None,
        issued=TODAY,
        expires=until,
        coordinator=Owner(key=KEYS["operator"].public.key.hex(), **owners["operator"]),
        parties=tuple(parties),
        governance=Governance(m=1, keys={ANNA.site: ANNA.public.key.hex()}),
    ).signed_by(ANNA)
    PinnedRoster(ledger._store, identity.public).pin(roster.canonical, roster.digest)
    (folder / "roster.json").write_bytes(roster.canonical)
    log.note(created=True)


class Watched:
    """North as the coordinator reaches it: every call is a point before and after, and what leaves is noted."""

    def __init__(self, site: SecureSite, log: Log, point: Callable[[], None]) -> None:
        self._site, self._log, self._point = site, log, point

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._site, name)

        def call(*arguments: Any) -> Any:
            self._point()
            made = method(*arguments)
            if isinstance(made, Outgoing):
                about = asked(*arguments) if name in ("consent", "open", "open_whole") else {}
                self._log.note(step=name, bytes=bytes_to_send(made).hex(), **about)
            self._point()
            return made

        return call


def asked(proposal: Proposal, *more: Any) -> dict[str, Any]:
    """Which attempt a message belongs to, and for a list of survivors who is on it."""
    about = {"session": proposal.session, "round": proposal.round_number, "attempt": proposal.attempt}
    return about | {"sites": [list(each.sites) for each in more if isinstance(each, Survivors)]}


def peer(name: str, roster: Roster) -> SecureSite:
    """A hospital that forgets everything when the process ends: it trains anew, with new noise, in every run."""
    store = open_store(None)
    ledger = Ledger(store, name)
    ledger.record(open_domain("training", 12.0, 1e-4))
    ledger.record(grant_for(PLAN, name, attempts=MAX_ATTEMPTS))
    draw = np.random.default_rng(len(name) + ord(name[0]))
    patients = make_cohort(name, draw.normal(size=(40, WIDTH)), draw.integers(0, 2, 40), test=np.arange(40) % 5 == 0)
    pinned = PinnedRoster(store, KEYS[name].public)
    pinned.pin(roster.canonical, roster.digest)
    replies = StoredReplies(store, name, bytes(32))
    return secure(lambda seal: Site(PLAN, patients, TASK, STRATEGY, ledger, replies=replies, seal=seal), KEYS[name],
                  pinned, bytes([7] * 32))  # fmt: skip


def secure(make: Callable[..., Site], identity: Identity, pinned: PinnedRoster, secret: bytes) -> SecureSite:
    evidence = Evidence(pinned._store, identity.site)
    return SecureSite(make, identity, pinned, evidence, quantizer_for(PLAN, SIZES), secret, os.urandom)


def watched(folder: Path) -> SecureSite:
    home = SiteFolder.open(folder)
    ledger = home.ledger()
    replies = StoredReplies(ledger._store, NORTH, home.replies_key())
    pinned = PinnedRoster(ledger._store, home.identity().public)
    made = secure(lambda seal: Site(PLAN, COHORT, TASK, STRATEGY, ledger, replies=replies, seal=seal), home.identity(),
                  pinned, home.inputs_secret())  # fmt: skip
    made.restart()
    return made


def aggregate(folder: Path, log: Log, point: Callable[[], None]) -> None:
    """A coordinator that reads what it has, and asks the rounds that are left until they are there."""
    roster = Roster.parse((folder / "roster.json").read_bytes())
    north = watched(folder)
    point()
    sites = {name: peer(name, roster) for name in PEERS} | {NORTH: north}
    parties: dict[str, Any] = {**sites, NORTH: Watched(north, log, point)}
    kept = folder / "progress.bin"
    study = Study(PLAN, STRATEGY, Progress.from_bytes(kept.read_bytes(), PLAN) if kept.exists() else None)
    while not study.finished:
        attempt = 1 + len(list(folder.glob("attempt-*")))
        (folder / f"attempt-{attempt}").touch()
        left = range(study.progress.rounds_done + 1, ROUNDS + 1)
        study.desk = set_up(PLAN, roster, KEYS["operator"], asking(parties, TODAY), list(parties),
                            name=f"attempt {attempt}", length=study.vector_length, rounds=left,
                            today=TODAY, attempts=MAX_ATTEMPTS)  # fmt: skip
        for party in parties.values():
            party.begin(begin(PLAN, study.desk).agreements)
        point()
        absent = (*PEERS, "nobody")[(attempt + 1) % 4]
        if one_round(study, sites, parties, absent, attempt, log, point):
            write_checkpoint(kept, study.progress.to_bytes())
            point()
    log.note(finished=True)


def one_round(
    study: Study,
    sites: dict[str, SecureSite],
    parties: dict[str, Any],
    absent: str,
    attempt: int,
    log: Log,
    point: Callable[[], None],
) -> bool:
    """One attempt at the next round without the site that is absent; whether its sum came out."""
    opened = study.open_round(0.0, 1 + (attempt - 1) % MAX_ATTEMPTS)
    assert isinstance(opened.sums, MaskedSum)
    for name in sites:
        if name == absent:
            opened.lost(name, 0.0)
            continue
        answer = answered(sites[name], opened, name == NORTH, point)
        if name == NORTH:
            refused = isinstance(parse_answer(answer, name), Refusal)
            log.note(step="refusal" if refused else "upload", bytes=answer.hex(), **asked(opened.sums.desk.proposal))
            point()
        opened.receive(parse_answer(answer, name), 0.0)
    opened.settle(0.0)
    open_sum(opened, asking(parties, TODAY))
    if opened.state is RoundState.VOID:
        return False
    study.close_round(opened)
    return True


def answered(site: SecureSite, opened: Any, noted: bool, point: Callable[[], None]) -> bytes:
    work = site.work(opened.request, opened.sums.desk.proposal, TODAY)
    while True:
        try:
            next(work)
            if noted:
                point()
        except StopIteration as ended:
            return bytes_to_send(ended.value)
