"""Many processes and one budget: exactly what fits is admitted, however they interleave."""

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from wardround.client.store.folder import SiteFolder
from wardround.client.store.verify import verify_file
from wardround.privacy.budget import allowance, cost, fixed_order
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.ledger import Grant, Reserve

PROCESSES, REQUESTS, ROOM = 8, 1_000, 500
PLANS = ("one", "two")


def event_that_fits(times: int) -> PoissonGaussian:
    """An event of which a domain with cap 8 at delta 1e-4 holds exactly ``times``."""
    order = fixed_order(8.0, 1e-4)
    room = allowance(8.0, 1e-4, order)
    low, high = 1.0, 1000.0
    while True:
        event = PoissonGaussian(
            noise_multiplier=(low + high) / 2, sampling_probability=0.25, steps=1, declared_patients=50
        )
        fits = room // cost(event, order)
        if fits == times:
            return event
        low, high = ((low + high) / 2, high) if fits < times else (low, (low + high) / 2)


EVENT = event_that_fits(ROOM)


def ask(folder: Path, worker: int, at: float) -> tuple[int, int]:
    """(admitted, refused) of one process, which opens the ledger by itself and starts when all do."""
    ledger = SiteFolder.open(folder).ledger()
    plan, admitted = PLANS[worker % 2], 0
    time.sleep(max(0.0, at - time.time()))
    for number in range(worker * 1000 + 1, worker * 1000 + 1 + REQUESTS // PROCESSES):
        fact = Reserve(domain="training", block=f"{plan}/{number}", plan=plan, round_number=number, event=EVENT)
        admitted += ledger.reserve(fact) is None
    return admitted, REQUESTS // PROCESSES - admitted


def same_block(folder: Path, at: float) -> bool:
    """Whether this process got the one block that all of them want."""
    ledger = SiteFolder.open(folder).ledger()
    time.sleep(max(0.0, at - time.time()))
    fact = Reserve(domain="training", block="one/1", plan="one", round_number=1, event=EVENT)
    return ledger.reserve(fact) is None


@pytest.fixture
def granted(bare: Any) -> Any:
    bare.open()
    for plan in PLANS:
        bare.ledger.record(bare.approved(Grant(domain="training", plan=plan, event=EVENT, blocks=REQUESTS)))
    return bare


def test_two_studies_in_eight_processes_share_the_last_of_a_budget_exactly(granted: Any) -> None:
    at = time.time() + 2.0
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        answers = [pool.submit(ask, granted.folder.path, worker, at) for worker in range(PROCESSES)]
        counts = [future.result(600) for future in answers]
    assert sum(admitted for admitted, _ in counts) == ROOM
    assert sum(refused for _, refused in counts) == REQUESTS - ROOM
    spent, room = granted.restart().used("training")
    assert spent == ROOM * cost(EVENT, fixed_order(8.0, 1e-4)) <= room
    assert granted.ledger.charged("one") + granted.ledger.charged("two") == ROOM
    assert verify_file(granted.folder.database).domains[0].blocks == ROOM


def test_one_of_many_processes_gets_a_block_that_all_of_them_want(granted: Any) -> None:
    at = time.time() + 2.0
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        won = [pool.submit(same_block, granted.folder.path, at) for _ in range(PROCESSES)]
        assert sum(future.result(600) for future in won) == 1
    assert granted.restart().charged("one") == 1
