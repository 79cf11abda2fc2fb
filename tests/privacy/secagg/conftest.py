"""Hospitals on disk and a coordinator that may do anything to them: for the attacks.

``consortium()`` makes five real site folders with officers, grants, pinned rosters and stored answers. ``left`` holds
every byte that a site let go of; ``secrets`` what must not be in it: shares, own masks, keys of pairs.
"""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wardround.client.connectors.cohort import Cohort
from wardround.client.governance import CONSORTIUM_DOMAIN, grant_for, open_domain
from wardround.client.secure import SecureSite
from wardround.client.site import Site
from wardround.client.store.evidence import Evidence
from wardround.client.store.folder import SiteFolder
from wardround.client.store.ledger import Ledger
from wardround.client.store.replies import StoredReplies
from wardround.client.store.roster import PinnedRoster
from wardround.client.tasks import task_from
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.privacy.secagg.keys import own_mask_key, pair_mask_key
from wardround.privacy.secagg.scale import quantizer_for, session_for
from wardround.privacy.secagg.server import AttemptDesk, SetupDesk
from wardround.protocol.errors import WardroundError
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import Refuse, approve
from wardround.protocol.messages import LocalRule, RoundRequest
from wardround.protocol.outgoing import bytes_to_send, parse_answer, parse_step
from wardround.protocol.parameters import initial_weights, model_hash
from wardround.protocol.plan import StudyPlan
from wardround.protocol.roster import Roster
from wardround.protocol.secagg import Deal, Keys, Parcel, Proposal, Session, Survivors
from wardround.server.exchange import begin, set_up
from wardround.simulations.cohorts import synthetic_cohorts
from wardround.simulations.parties import asking
from wardround.strategies import strategy_from

TODAY = date(2026, 11, 23)
ANNA, BEN, OPERATOR = (Identity.generate(name) for name in ("anna", "ben", "operator"))
NAMES = ("aarau", "bergen", "cork", "delft", "evora")


@dataclass
class Hospital:
    """One site's folder and the process that works on it."""

    folder: Path
    plan: StudyPlan
    cohort: Cohort
    left: list[bytes] = field(default_factory=list)
    process: SecureSite = field(init=False)
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    @property
    def name(self) -> str:
        return self.folder.name

    def restart(self) -> None:
        """A new process: everything comes from the folder."""
        home = SiteFolder.open(self.folder)
        self.ledger = home.ledger()
        task, strategy = task_from(self.plan), strategy_from(self.plan.strategy)
        replies = StoredReplies(self.ledger._store, self.name, home.replies_key())
        identity, sizes = home.identity(), strategy.part_sizes(self.plan.layout.size)

        def make(seal: Callable[..., Any]) -> Site:
            return Site(self.plan, self.cohort, task, strategy, self.ledger, replies=replies, seal=seal)

        roster = PinnedRoster(self.ledger._store, identity.public)
        quantizer = quantizer_for(self.plan, sizes)
        evidence = Evidence(self.ledger._store, self.name)
        self.process = SecureSite(make, identity, roster, evidence, quantizer, home.inputs_secret(), os.urandom)
        self.process.site.recover()

    def __getattr__(self, step: str) -> Callable[..., Any]:
        """A step of the protocol; the bytes that it makes are kept."""
        method = getattr(self.process, step)

        def call(*arguments: Any) -> Any:
            made = method(*arguments)
            if step in ("keys", "deal", "agree", "answer", "consent", "open", "open_whole"):
                self.left.append(bytes_to_send(made))
            return made

        return call

    def said(self, step: str, *arguments: Any) -> Any:
        """The message that a step made."""
        data = bytes_to_send(getattr(self, step)(*arguments))
        return parse_answer(data, self.name) if step == "answer" else parse_step(data, self.name)[0]

    def refusals(self) -> list[tuple[int, str]]:
        """(round, reason) of every refusal in the ledger on disk."""
        facts = SiteFolder.open(self.folder).ledger().facts()
        return [(fact.round_number, fact.reason) for fact in facts if isinstance(fact, Refuse)]

    def secrets(self, proposal: Proposal) -> dict[str, list[bytes]]:
        """What an opening is made of, and may be in nothing else that leaves."""
        ready = self.process._playing()._ready
        slot = (proposal.round_number, proposal.attempt)
        return {
            "shares": [shares[slot][1] for shares in ready.held.values()],
            "seeds": [pair_mask_key(secret, proposal.hash) for secret in ready.pairs.values()],
            "own": [ready.own[slot], own_mask_key(ready.own[slot], proposal.hash)],
            "pairs": list(ready.pairs.values()),
        }

    def gave(self, kind: str, proposal: Proposal) -> int:
        """How many secrets of this kind are in what left, raw or in hex."""
        everything = b"\n".join(self.left)
        return sum(s in everything or s.hex().encode() in everything for s in self.secrets(proposal)[kind])


class Consortium:
    """The hospitals, and the powers of a coordinator."""

    officers, operator = (ANNA, BEN), OPERATOR

    def __init__(
        self, place: Path, sites: Sequence[str], rounds: int, owners: dict[str, str] | None, privacy: str
    ) -> None:
        settings = parse_configuration(compose_configuration([f"rounds={rounds}", f"privacy={privacy}"]))
        self.plan = make_plan(settings, dict.fromkeys(sites, 50), TODAY)
        width = len(self.plan.contract.feature_names) if self.plan.contract else 0
        cohorts = synthetic_cohorts(len(sites), (50, 50), width, seed=5)
        self.place, self.owners = place, owners or {}
        folders = {name: SiteFolder.create(place / name, name, [ANNA.public, BEN.public]) for name in sites}
        self.keys = {name: folder.identity().public for name, folder in folders.items()}
        self.roster = self.next_roster()
        for name, folder in folders.items():
            ledger, key = folder.ledger(), self.keys[name].key.hex()
            for domain in ("training", CONSORTIUM_DOMAIN) if privacy == "dist" else ("training",):
                ledger.record(approve(open_domain(domain, 12.0, 1e-4), key, ANNA))
                ledger.record(approve(grant_for(self.plan, name, domain, attempts=4), key, ANNA))
            PinnedRoster(ledger._store, self.keys[name]).pin(self.roster.canonical, self.roster.digest)
            ledger.close()
        self.sites = {
            name: Hospital(place / name, self.plan, replace(cohort, site=name))
            for name, cohort in zip(sites, cohorts, strict=True)
        }

    def next_roster(self, behind: Roster | None = None, **changes: Any) -> Roster:
        """Epoch 1, or the one behind; signed by both officers."""
        until = TODAY + timedelta(days=365)
        parties = [
            {"site": name, "key": key.key.hex(), "legal_entity": self.owners.get(name, f"hospital {name}"),
             "controlling_authority": f"county {name}", "valid_from": TODAY, "valid_until": until}
            for name, key in sorted(self.keys.items())
        ]  # fmt: skip
        keys = {officer.site: officer.public.key.hex() for officer in (ANNA, BEN)}
        fields = {"consortium": "attacked", "epoch": 1, "previous": None, "issued": TODAY, "expires": until,
                  "coordinator": {"legal_entity": "operator", "controlling_authority": "operator",
                                  "key": OPERATOR.public.key.hex()},
                  "parties": parties, "governance": {"m": 2, "keys": keys}}  # fmt: skip
        chain = {"epoch": behind.epoch + 1, "previous": behind.digest} if behind else {}
        return Roster.model_validate(fields | chain | changes).signed_by(ANNA).signed_by(BEN)

    def set_up(self, name: str = "first", attempts: int = 3, without: str = "") -> SetupDesk:
        """An honest session of all rounds."""
        asked = {site: hospital for site, hospital in self.sites.items() if site != without}
        desk = set_up(self.plan, self.roster, OPERATOR, asking(asked, TODAY), list(asked), name=name,
                      length=self.length, today=TODAY, rounds=range(1, self.plan.rounds + 1),
                      attempts=attempts)  # fmt: skip
        for hospital in asked.values():
            hospital.begin(begin(self.plan, desk).agreements)
        return desk

    def terms(self, name: str = "first", **changes: Any) -> Session:
        """What every site computes for itself, and what the coordinator makes of it."""
        own = session_for(self.plan, list(self.keys.values()), roster=self.roster.digest, name=name,
                          coordinator=OPERATOR.public, length=self.length, rounds=range(1, self.plan.rounds + 1),
                          attempts=3)  # fmt: skip
        return replace(own, **changes)

    def keyed(self, session: Session | None = None) -> list[Keys]:
        """S1 of every site."""
        return [site.said("keys", session or self.terms(), TODAY) for site in self.sites.values()]

    def dealt(self) -> tuple[list[Deal], dict[str, list[Parcel]]]:
        """S1 and S2 of every site: the deals, and the parcels by recipient."""
        keys = self.keyed()
        made = [parse_step(bytes_to_send(site.deal(keys)), name) for name, site in self.sites.items()]
        parcels = [parcel for _, sent in made for parcel in sent]
        return [deal for deal, _ in made], {
            name: [parcel for parcel in parcels if parcel.recipient == name] for name in self.sites
        }

    @property
    def length(self) -> int:
        return sum(strategy_from(self.plan.strategy).part_sizes(self.plan.layout.size).values())

    def request(self, number: int = 1, attempt: int = 1, shift: float = 0.0) -> RoundRequest:
        """A round request; later rounds start at another model, and ``shift`` shows a site a model of its own."""
        model = initial_weights(self.plan.layout, self.plan.model.scheme, self.plan.model.seed)
        model = model + np.float32(number - 1 + shift)
        rule = LocalRule(self.plan.local.learning_rate)
        return RoundRequest(self.plan.digest, number, attempt, model, model_hash(model), rule)

    def propose(self, desk: SetupDesk, number: int = 1, attempt: int = 1, **changes: Any) -> Proposal:
        model = self.request(number).model_hash
        return replace(desk.proposal(number, attempt, model, "contribution"), **changes).signed_by(OPERATOR)

    def listed(self, proposal: str, *uploads: Any) -> Survivors:
        """A list of survivors that the coordinator signs."""
        return Survivors(proposal, tuple(uploads)).signed_by(OPERATOR)

    def uploads(self, desk: SetupDesk, proposal: Proposal, sites: Sequence[str] = ()) -> AttemptDesk:
        """R1 of these sites, or of all who were proposed."""
        table = AttemptDesk(desk, proposal)
        for name in sites or proposal.participants:
            answer = self.sites[name].said(
                "answer", self.request(proposal.round_number, proposal.attempt), proposal, TODAY
            )
            table.add_upload(answer.upload, answer.vector)
        return table

    def consents(self, proposal: Proposal, survivors: Survivors, sites: Sequence[str] = ()) -> list[Any]:
        return [self.sites[name].said("consent", proposal, survivors) for name in sites or survivors.sites]

    def total(self, table: AttemptDesk, asked: Sequence[str] = ()) -> Any:
        """R2 and R3 without a lie: the integer sum."""
        survivors = table.survivors()
        for consent in self.consents(table.proposal, survivors):
            table.add_consent(consent)
        for name in asked or survivors.sites:
            table.add_opening(self.sites[name].said("open", table.proposal, table.consents()))
        return table.total()

    def whole(self, table: AttemptDesk, asked: Sequence[str] = ()) -> Any:
        """R2 and R3 at once, without a lie: the integer sum of everybody who was proposed."""
        survivors = table.survivors()
        for name in asked or survivors.sites:
            table.add_opening(self.sites[name].said("open_whole", table.proposal, survivors))
        return table.total()

    def nothing_left(self, proposal: Proposal, *sites: str) -> None:
        """No share, seed or own mask of the attempt left any of these sites, or any site at all."""
        for name in sites or self.sites:
            given = {kind: self.sites[name].gave(kind, proposal) for kind in ("shares", "seeds", "own", "pairs")}
            assert not any(given.values()), f"{name} let go of {given}"

    def refused(self, site: str, reason: str, number: int) -> None:
        """The site's ledger, on disk, says what the coordinator did."""
        told = self.sites[site].refusals()
        assert any(round_ == number and re.search(reason, why) for round_, why in told), told

    def attack(self, site: str, reason: str, number: int, step: str, *arguments: Any) -> None:
        """A step that must end in a refusal by name, an entry in the site's ledger, and nothing that leaves."""
        before = len(self.sites[site].left)
        with pytest.raises(WardroundError, match=reason):
            getattr(self.sites[site], step)(*arguments)
        assert len(self.sites[site].left) == before, "something left in a refusal"
        self.refused(site, reason, number)


@pytest.fixture
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Consortium]:
    """Makes hospitals: ``consortium(sites=5, rounds=2, owners={...})``."""

    def make(
        sites: int = 5, rounds: int = 2, owners: dict[str, str] | None = None, privacy: str = "local"
    ) -> Consortium:
        return Consortium(tmp_path_factory.mktemp("consortium"), NAMES[:sites], rounds, owners, privacy)

    return make


@pytest.fixture
def snapshot() -> Callable[[Hospital], Callable[[], None]]:
    """Copies a site's folder, and gives what puts it back, as a restored virtual machine would."""

    def take(hospital: Hospital) -> Callable[[], None]:
        kept = hospital.folder.with_name(hospital.folder.name + ".snapshot")
        shutil.copytree(hospital.folder, kept)

        def restore() -> None:
            hospital.ledger.close()
            shutil.rmtree(hospital.folder)
            shutil.copytree(kept, hospital.folder)
            hospital.restart()

        return restore

    return take
