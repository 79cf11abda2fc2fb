"""A hospital with a folder of its own: keys, two officers, a ledger and one domain with a granted plan."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from _postgres import Postgres, running

from wardround.client.governance import open_domain
from wardround.client.store.folder import SiteFolder
from wardround.client.store.ledger import Ledger
from wardround.privacy.budget import Refused
from wardround.protocol.events import DpEvent, PoissonGaussian
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import ApprovedFact, Grant, Release, Reserve, Start, approve

EVENT = PoissonGaussian(noise_multiplier=2.0, sampling_probability=0.25, steps=5, declared_patients=200)
OPENED = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)


@dataclass(slots=True)
class Hospital:
    """``now`` is the time on its clock."""

    folder: SiteFolder
    anna: Identity
    ben: Identity
    now: datetime = OPENED
    event: PoissonGaussian = EVENT
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> Ledger:
        """A new process: everything comes from the file."""
        self.ledger = self.folder.ledger(lambda: self.now)
        return self.ledger

    @property
    def key(self) -> str:
        return self.folder.identity().public.key.hex()

    def approved(self, fact: ApprovedFact, *officers: Identity) -> ApprovedFact:
        for officer in officers or (self.anna,):
            fact = approve(fact, self.key, officer)
        return fact

    def open(self, domain: str = "training", epsilon_cap: float = 8.0) -> None:
        self.ledger.record(self.approved(open_domain(domain, epsilon_cap, 1e-4)))

    def grant(self, plan: str = "plan", domain: str = "training", blocks: int = 100, event: DpEvent = EVENT) -> None:
        self.ledger.record(self.approved(Grant(domain=domain, plan=plan, event=event, blocks=blocks)))

    def reserve(
        self, block: str, plan: str = "plan", domain: str = "training", number: int | None = None
    ) -> Refused | None:
        """Reserve a block for round ``number``; None: a round that no block is of."""
        number = number or len(self.ledger.blocks()) + 1
        fact = Reserve(domain=domain, block=block, plan=plan, round_number=number, event=EVENT)
        return self.ledger.reserve(fact)

    def start(self, block: str) -> None:
        self.ledger.record(Start(block=block))

    def release(self, block: str, attempt: int = 1) -> None:
        self.ledger.record(Release(block=block, attempt=attempt, content="00" * 32))

    def later(self, **by: int) -> None:
        self.now += timedelta(**by)


@pytest.fixture
def bare(tmp_path: Path) -> Hospital:
    """A hospital whose officers have approved nothing yet."""
    anna, ben = Identity.generate("anna"), Identity.generate("ben")
    folder = SiteFolder.create(tmp_path / "north", "north", [anna.public, ben.public], lambda: OPENED)
    return Hospital(folder, anna, ben)


@pytest.fixture
def hospital(bare: Hospital) -> Hospital:
    """A hospital with a domain 'training' of cap 8, and a grant of 100 blocks for the plan 'plan'."""
    bare.open()
    bare.grant()
    return bare


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL of the tests' own."""
    with running() as found:
        yield found
