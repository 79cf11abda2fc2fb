"""The real thing: processes, TLS, node authentication, and what happens when one of them is killed or cut off.

Three kills and one cut run here; ``make soak`` plays twenty-one kills at random points, and two hundred rounds.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wardround.client.link import Proxy
from wardround.client.store.database import open_copy
from wardround.client.store.ledger import Ledger
from wardround.client.store.witnessing import witnessing
from wardround.protocol.ledger import BlockState, Release
from wardround.protocol.plan import StudyPlan
from wardround.protocol.receipt import chain_fault
from wardround.server.store.studies import StudyFolder
from wardround.server.store.witness import kept_alarms

Planned = Callable[..., StudyPlan]
SOAK = os.environ.get("WARDROUND_SOAK") == "1"

pytestmark = pytest.mark.slow

THREE = ("cleveland", "hungarian", "va")
"""Hospitals of these tests: each is two processes, and a test machine may have two cores."""

ONLY_THREE = ("data.dataset=null", "+data.declared={cleveland:200,hungarian:200,va:100}")


def in_process(make_plan_of: Planned, consortium_of: Callable[..., Any], tmp: Path, plan: StudyPlan) -> str:
    """The model of the same plan when nothing goes wrong: the conductor and the desks in this process."""
    from wardround.server.conductor import Conductor, Wanted
    from wardround.simulations.desks import DeskCarrier

    made = consortium_of(tmp, sites=THREE)
    for site in made.folders:
        made.approve(plan, site)
    folder = StudyFolder.create(tmp / "hub", plan)
    carrier = DeskCarrier(plan.digest, {site: made.desk(site) for site in made.folders})
    Conductor(folder, made.coordinator, lambda: made.roster, carrier, lambda: Wanted.RUNNING).run()
    return folder.receipts()[-1].model_after


def check_ledgers(deployed: Any, plan: StudyPlan, folder: StudyFolder) -> None:
    """No block is left open, and every answer that is in a sum stands on a charge."""
    receipts = [receipt for receipt in folder.receipts() if receipt.state == "closed"]
    for site, place in deployed.consortium.folders.items():
        ledger = place.ledger()
        blocks = [block for block in ledger.state.blocks.values() if block.plan == plan.digest]
        open_ = [block.name for block in blocks if block.state in (BlockState.RESERVED, BlockState.RUNNING)]
        assert not open_, f"{site} left {open_}"
        in_sums = sum(receipt.line[site].outcome == "replied" for receipt in receipts)
        assert ledger.charged(plan.digest) >= in_sums, f"{site} is charged less than it gave"
        ledger.close()
        seen = witnessing(place.database, site)
        assert len(seen.own) >= 2 and "coordinator" in {one.witness for one in seen.own}, seen.own
        assert not seen.alarms, f"{site} accuses somebody of a restart or a kill: {seen.alarms}"
    assert kept_alarms(folder.witness) == []


def kill_while_running(deployed: Any, plan: StudyPlan, targets: list[str], pause: float) -> None:
    """Kill each target at a random moment of what is left of the study, and start daemons again."""
    for target in targets:
        time.sleep(random.uniform(0.0, pause))
        assert not deployed.state(plan), f"the study ended before {target} was killed"
        deployed.kill(target)
        if target.startswith("daemon:"):
            deployed.start(target.partition(":")[2])


@pytest.mark.parametrize("turn", range(7 if SOAK else 1))
def test_a_study_over_processes_survives_the_kill_of_a_daemon_the_superlink_and_the_serverapp(
    deploy: Callable[..., Any], make_plan_of: Planned, make_consortium_of: Callable[..., Any], tmp_path: Path, turn: int
) -> None:
    """Without noise the model must be the undisturbed one, bit for bit."""
    plan = make_plan_of(
        "rounds=5", "privacy=none", *ONLY_THREE, "deadline_seconds=240", f"must_include=[{','.join(THREE)}]"
    )
    expected = in_process(make_plan_of, make_consortium_of, tmp_path / "quiet", plan)
    deployed = deploy(THREE)
    folder = deployed.study(plan)
    deployed.start_all()
    deployed.until(150.0, lambda: len(folder.receipts()) >= 1, "no round ended")
    targets = ["serverapp", "superlink", "daemon:hungarian"]
    if SOAK:
        kinds = ["serverapp", "superlink", *(f"daemon:{site}" for site in THREE), "supernode:va"]
        targets = random.sample(kinds, 3)
    # A quiet machine needs 0.3 to 1 s for a round; four are left.
    kill_while_running(deployed, plan, targets, 1.0)
    deployed.finished(plan, 420.0)
    receipts = folder.receipts()
    assert chain_fault(receipts) is None
    assert [receipt.round_number for receipt in receipts if receipt.state == "closed"] == [1, 2, 3, 4, 5]
    assert receipts[-1].model_after == expected
    check_ledgers(deployed, plan, folder)


def test_a_hospital_that_is_cut_off_for_a_while_comes_back_and_the_study_goes_on(
    deploy: Callable[..., Any], make_plan_of: Planned
) -> None:
    """Its SuperNode is stopped as a dropped line would stop it: no packet goes, no connection is closed."""
    plan = make_plan_of(
        "rounds=6", "privacy.noise_multiplier=2.84", "deadline_seconds=20", "secagg=off", *ONLY_THREE, "min_sites=2"
    )
    deployed = deploy(THREE)
    for folder in deployed.consortium.folders.values():
        (folder.path / "policy.yaml").write_text("secure_aggregation_from: 10\n")
    study = deployed.study(plan)
    deployed.start_all()
    deployed.until(150.0, lambda: len(study.receipts()) >= 1, "no round ended")
    pid = deployed.pid("supernode:va")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(120.0 if SOAK else 30.0)
    finally:
        os.kill(pid, signal.SIGCONT)
    deployed.finished(plan, 300.0)
    outcomes = [receipt.line["va"].outcome for receipt in study.receipts()]
    assert "lost" in outcomes, "it was never away"
    assert all(receipt.state == "closed" for receipt in study.receipts()), "the others went on"
    assert study.receipts()[-1].line["va"].outcome == "replied" or outcomes.count("replied") >= 1
    check_ledgers(deployed, plan, study)


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_memory_of_every_process_and_the_disk_stay_flat_over_many_rounds(
    deploy: Callable[..., Any], make_plan_of: Planned
) -> None:
    """Twenty rounds here, two hundred in the soak: what a round leaves behind would show."""
    rounds = 200 if SOAK else 20
    plan = make_plan_of(
        f"rounds={rounds}",
        "privacy.noise_multiplier=8",
        "local.steps=1",
        "secagg=off",
        *ONLY_THREE,
        "deadline_seconds=60",
    )
    deployed = deploy(THREE)
    for folder in deployed.consortium.folders.values():
        (folder.path / "policy.yaml").write_text("secure_aggregation_from: 10\n")
    study = deployed.study(plan)
    deployed.start_all()
    names = ["superlink", "serverapp", *(f"{kind}:{site}" for kind in ("daemon", "supernode") for site in THREE)]

    def sizes() -> dict[str, float]:
        found = {name: deployed.pid(name) for name in names}
        return {name: resident_mib(pid) for name, pid in found.items() if pid is not None}

    warm = rounds // 4
    deployed.until(200.0 + 20.0 * warm, lambda: len(study.receipts()) >= warm, "no rounds")
    before, disk = sizes(), (deployed.hub.path / "superlink.sqlite").stat().st_size
    # Some rounds before the end: with the last one the ServerApp ends too.
    deployed.until(20.0 * rounds, lambda: len(study.receipts()) >= rounds - 4, "no more rounds")
    after = sizes()
    assert set(before) == set(after) == set(names)
    grown = {name: round(after[name] - before[name], 1) for name in names}
    # A leak of a tenth of a MiB a round would be 1.1 MiB here and 15 in the soak.
    assert all(size < 12.0 for size in grown.values()), grown
    deployed.finished(plan, 120.0)
    assert (deployed.hub.path / "superlink.sqlite").stat().st_size < disk + 4_000_000


@pytest.mark.server("squid")
def test_a_study_runs_through_a_proxy_with_a_password_and_a_private_ca(
    deploy: Callable[..., Any],
    make_plan_of: Planned,
    start_squid: Callable[[int], Any],
    proxy_login: tuple[str, str],
) -> None:
    """The SuperNode alone goes out, by CONNECT; the daemon opens no connection to the outside at all."""
    started: list[Any] = []

    def proxy(port: int) -> Proxy:
        started.append(start_squid(port))
        return Proxy(f"http://127.0.0.1:{started[0].port}", *proxy_login)

    only_va = ("data.dataset=null", "+data.declared={va:100}", "min_sites=1")
    plan = make_plan_of("rounds=2", "privacy.noise_multiplier=2.84", *only_va, "deadline_seconds=60")
    deployed = deploy(("va",), proxy=proxy)
    study = deployed.study(plan)
    deployed.start_all()
    deployed.finished(plan, 240.0)
    assert [receipt.state for receipt in study.receipts()] == ["closed", "closed"]
    # Squid writes of a tunnel when it has ended.
    deployed.close()
    deployed.until(60.0, lambda: "TCP_TUNNEL/200" in started[0].log.read_text(), "squid let nobody through")
    assert f"CONNECT localhost:{deployed.hub.about.public_port}" in started[0].log.read_text()


def test_a_stop_reaches_a_hospital_in_the_middle_of_its_training(
    deploy: Callable[..., Any], make_plan_of: Planned
) -> None:
    """The training would take many minutes; it ends at a step, its round stays charged, and nothing of it leaves."""
    only_va = ("data.dataset=null", "+data.declared={va:100}", "min_sites=1")
    long = ("rounds=2", "local.steps=500000", "privacy.noise_multiplier=900", "deadline_seconds=900")
    plan = make_plan_of(*long, *only_va)
    deployed = deploy(("va",))
    study, place = deployed.study(plan), deployed.consortium.folders["va"]
    deployed.start_all()

    def block() -> BlockState | None:
        """What the site's ledger says now of the one round that was begun; read beside the daemon."""
        state = Ledger(open_copy(place.database), "va", place.identity()).state
        return next((found.state for found in state.blocks.values() if found.plan == plan.digest), None)

    deployed.until(150.0, lambda: block() is BlockState.RUNNING, "the training did not begin")
    time.sleep(3.0)
    assert block() is BlockState.RUNNING and not study.receipts()
    deployed.registry.want(plan.digest, "stopped")
    deployed.until(120.0, lambda: deployed.state(plan) == "stopped", "the study did not stop")
    deployed.until(120.0, lambda: block() is BlockState.ABANDONED, "the hospital did not stop")
    deployed.close()
    ledger = place.ledger()
    assert ledger.charged(plan.digest) == 1 and not any(isinstance(fact, Release) for fact in ledger.facts())
    ledger.close()


def test_a_study_of_single_steps_with_noise_in_shares_ends_in_time(
    deploy: Callable[..., Any], make_plan_of: Planned
) -> None:
    """Mode dist takes one step a round, so its studies have many rounds: 80 of them within 12 minutes in the soak."""
    rounds = 80 if SOAK else 4
    terms = ("privacy=dist", "privacy.noise_multiplier=8", "consortium_cap=20", "deadline_seconds=120")
    plan = make_plan_of(f"rounds={rounds}", *terms)
    deployed = deploy()
    study, began = deployed.study(plan), time.monotonic()
    deployed.start_all()
    deployed.finished(plan, 720.0)
    receipts = study.receipts()
    assert [receipt.state for receipt in receipts] == ["closed"] * rounds and chain_fault(receipts) is None
    print(f"dist: {rounds} rounds at {len(plan.participants)} sites in {time.monotonic() - began:.0f} s")
    check_ledgers(deployed, plan, study)
