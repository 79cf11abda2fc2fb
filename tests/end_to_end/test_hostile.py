"""What a hostile coordinator, a stranger, or a revoked site can send: each is refused, recorded, and nothing runs."""

import hashlib
import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from flwr.supercore.fab import Fab
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.run import Run

from wardround.client.desk import Switches
from wardround.client.flower.executor import bundle_fault
from wardround.client.link import LinkFolder
from wardround.protocol.fab import FAB_NAME, PUBLISHER, fab_hash, thin_fab
from wardround.protocol.incoming import EXCHANGES, Finish, Hello, Stop, Train, ask_bytes
from wardround.protocol.ledger import Refuse
from wardround.protocol.messages import Refusal, RefusalCode
from wardround.protocol.outgoing import bytes_to_send, is_answer, parse_answer
from wardround.protocol.plan import StudyPlan
from wardround.server.study import Study
from wardround.strategies import strategy_from

Planned = Callable[..., StudyPlan]
DIGEST = "ab" * 32
CLOSED = (
    "/v1/control/list-runs",
    "/v1/runtime/acquire-task",
    "/docs",
    "/openapi.json",
    "/",
    "/v1/fleet/../control/list-runs",
)


def run_of(digest: str, **changes: Any) -> Run:
    """A run as the SuperNode hands it over."""
    run = Run.create_empty(1)
    run.fab_id, run.fab_version, run.fab_hash = f"{PUBLISHER}/{FAB_NAME}", "1.0.0", fab_hash(digest)
    for name, value in changes.items():
        setattr(run, name, value)
    return run


def fab_of(content: bytes) -> Fab:
    return Fab(hashlib.sha256(content).hexdigest(), content, {})


def test_the_one_bundle_of_a_plan_is_taken() -> None:
    assert bundle_fault(DIGEST, run_of(DIGEST), fab_of(thin_fab(DIGEST))) is None


@pytest.mark.parametrize(
    ("plan", "run", "content", "word"),
    [
        (DIGEST, {}, thin_fab("cd" * 32), "another hash"),
        (DIGEST, {"fab_hash": fab_hash("cd" * 32)}, thin_fab("cd" * 32), "not the one of the plan"),
        (DIGEST, {"override_config": {"plan": "other"}}, thin_fab(DIGEST), "overrides"),
        (DIGEST, {"fab_id": "somebody/else"}, thin_fab(DIGEST), "another app"),
        ("../../etc", {}, thin_fab(DIGEST), "names no plan"),
    ],
)
def test_a_bundle_with_other_bytes_another_hash_overrides_or_another_name_is_refused(
    plan: str, run: dict[str, Any], content: bytes, word: str
) -> None:
    assert word in (bundle_fault(plan, run_of(DIGEST, **run), fab_of(content)) or "")


def test_a_bundle_that_brings_code_is_refused_by_its_bytes_alone() -> None:
    """Nothing is unpacked: a module that would shadow ours makes it another bundle, and that is all that is seen."""
    import io
    import zipfile

    content = io.BytesIO(thin_fab(DIGEST))
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr("wardround/client/desk.py", "raise SystemExit('shadowed')")
    poisoned = content.getvalue()
    run = run_of(DIGEST, fab_hash=hashlib.sha256(poisoned).hexdigest())
    assert "not the one of the plan" in (bundle_fault(DIGEST, run, fab_of(poisoned)) or "")


@pytest.fixture
def working(consortium: Any, make_plan_of: Planned) -> tuple[Any, StudyPlan, Any]:
    """A desk with an approved plan, the plan, and a study whose first round is asked for."""
    plan = make_plan_of("rounds=2", "privacy=none")
    consortium.approve(plan, "va")
    desk = consortium.desk("va")
    from wardround.protocol.incoming import Propose

    desk.answer("query.hello", plan.digest, [whole(Propose(plan.canonical.decode()))])
    return desk, plan, Study(plan, strategy_from(plan.strategy)).open_round(0.0).request


def whole(ask: Any) -> bytes:
    return b"".join(bytes(part) for part in ask_bytes(ask))


def refused(desk: Any, exchange: str, plan: str, content: bytes) -> RefusalCode:
    """The word of the refusal; the ledger holds one more reason, and no block."""
    before = len(desk.ledger.state.blocks)
    (answer,) = desk.answer(exchange, plan, [content])
    assert len(desk.ledger.state.blocks) == before, "something ran"
    data = bytes_to_send(answer)
    assert is_answer(data, "va")
    found = parse_answer(data, "va")
    assert isinstance(found, Refusal)
    return found.code


def reasons(desk: Any) -> list[str]:
    from wardround.protocol.entry import parse_content

    rows = desk.members.store.execute("SELECT content FROM entries ORDER BY number").fetchall()
    facts = [parse_content(bytes(content)).fact for (content,) in rows]
    return [fact.reason for fact in facts if isinstance(fact, Refuse)]


def test_every_request_that_breaks_a_rule_is_refused_with_a_word_and_recorded_with_its_reason(working: Any) -> None:
    desk, plan, request = working
    good = whole(Train(request, None))
    hostile = [
        ("train.evil", plan.digest, good, "a type that this site does not know"),
        ("query.hello", plan.digest, good, "sent Train in the exchange"),
        ("train.round", "cd" * 32, good, "another plan than the bundle"),
        ("train.round", plan.digest, good[:-4], "layout"),
        ("train.round", plan.digest, b"\x00\x00\x00\x02{}", "no request of this protocol"),
        ("train.round", plan.digest, b"", "no request of this protocol"),
        ("train.round", plan.digest, whole(Train(replace(request, round_number=99), None)), "not in the plan"),
        ("train.round", plan.digest, whole(Train(replace(request, model_hash="0" * 64), None)), "hash names"),
        ("query.finish", plan.digest, whole(Finish(plan.digest, "0" * 64, request.model)), "final model"),
    ]
    for exchange, named, content, reason in hostile:
        assert refused(desk, exchange, named, content) in RefusalCode
        assert any(reason in known for known in reasons(desk)), (reason, reasons(desk))
    (answer,) = desk.answer("train.round", plan.digest, [good])
    assert not isinstance(parse_answer(bytes_to_send(answer), "va"), Refusal), "the honest request is answered"


def test_a_request_that_comes_again_is_answered_with_the_same_bytes_and_no_second_charge(working: Any) -> None:
    desk, plan, request = working
    first, second = (desk.answer("train.round", plan.digest, [whole(Train(request, None))])[0] for _ in range(2))
    assert bytes_to_send(first) == bytes_to_send(second)
    assert desk.ledger.charged(plan.digest) == 1


def test_a_plan_that_nobody_approved_and_one_that_was_revoked_get_nothing(
    consortium: Any, make_plan_of: Planned
) -> None:
    from wardround.protocol.incoming import Propose

    plan = make_plan_of("rounds=2", "privacy=none")
    desk = consortium.desk("va")
    request = Study(plan, strategy_from(plan.strategy)).open_round(0.0).request
    train = whole(Train(request, None))
    assert refused(desk, "train.round", plan.digest, train) is RefusalCode.POLICY
    desk.answer("query.hello", plan.digest, [whole(Propose(plan.canonical.decode()))])
    assert refused(desk, "train.round", plan.digest, train) is RefusalCode.POLICY
    assert "the plan is proposed here" in reasons(desk)[-1]


def test_a_site_that_is_paused_and_a_plan_that_its_people_stopped_are_not_worked_on(
    consortium: Any, make_plan_of: Planned
) -> None:
    from wardround.protocol.incoming import Propose

    plan = make_plan_of("rounds=2", "privacy=none")
    consortium.approve(plan, "va")
    switches = Switches(paused=True)
    desk = consortium.desk("va", switches)
    desk.answer("query.hello", plan.digest, [whole(Propose(plan.canonical.decode())), whole(Hello(plan.digest))])
    request = Study(plan, strategy_from(plan.strategy)).open_round(0.0).request
    assert refused(desk, "train.round", plan.digest, whole(Train(request, None))) is RefusalCode.UNAVAILABLE
    switches.paused = False
    switches.stopped_plans.add(plan.digest)
    assert refused(desk, "train.round", plan.digest, whole(Train(request, None))) is RefusalCode.POLICY


def test_a_stop_in_the_middle_of_training_ends_at_the_next_step_and_stays_charged(
    consortium: Any, make_plan_of: Planned
) -> None:
    from wardround.protocol.incoming import Propose
    from wardround.protocol.ledger import BlockState

    plan = make_plan_of("rounds=2", "privacy=none", "local.epochs=50")
    consortium.approve(plan, "va")
    asked = []

    class AfterThreeSteps(Switches):
        def halt(self, plan: str) -> bool:
            asked.append(plan)
            return len(asked) > 3

    desk = consortium.desk("va", AfterThreeSteps())
    desk.answer("query.hello", plan.digest, [whole(Propose(plan.canonical.decode()))])
    request = Study(plan, strategy_from(plan.strategy)).open_round(0.0).request
    (answer,) = desk.answer("train.round", plan.digest, [whole(Train(request, None))])
    found = parse_answer(bytes_to_send(answer), "va")
    assert isinstance(found, Refusal)
    assert len(asked) == 4, "it went on after the stop"
    assert [block.state for block in desk.ledger.state.blocks.values()] == [BlockState.ABANDONED]
    assert desk.ledger.charged(plan.digest) == 1
    desk.answer("query.stop", plan.digest, [whole(Stop(plan.digest))])


def test_every_kind_of_exchange_is_one_that_flower_carries() -> None:
    """Flower takes message types of the form train.x and query.x only; a typo would be an error in the hospital."""
    assert all(kind.partition(".")[0] in ("train", "query") and kind.partition(".")[2] for kind in EXCHANGES)


@pytest.mark.slow
def test_the_public_port_answers_no_control_path_and_no_stranger(
    deploy: Callable[..., Any],
) -> None:
    deployed = deploy(("va",))
    deployed.start("hub")
    address = f"https://localhost:{deployed.hub.about.public_port}"
    trusted = ssl.create_default_context(cafile=str(deployed.hub.ca))

    def listening() -> bool:
        try:
            return httpx.get(f"{address}/health", verify=trusted).status_code == 200
        except httpx.HTTPError:
            return False

    deployed.until(90.0, listening, "the public port does not answer")
    for path in CLOSED:
        for ask in (httpx.get, httpx.post):
            assert ask(f"{address}{path}", verify=trusted).status_code == 404, path
    stranger = {"content-type": PROTOBUF_MEDIA_TYPE, "accept": PROTOBUF_MEDIA_TYPE}
    for call in ("pull-messages", "register-node", "activate-node", "get-run"):
        answer = httpx.post(f"{address}/v1/fleet/{call}", content=b"", headers=stranger, verify=trusted)
        assert answer.status_code == 401, (call, answer.status_code)
        # The service on loopback has no guard for these paths, and so does not have the paths.
        inside = f"http://127.0.0.1:{deployed.hub.about.runtime_port}/v1/fleet/{call}"
        assert httpx.post(inside, content=b"", headers=stranger).status_code == 404, call
    other = LinkFolder.create(deployed.hub.path.parent / "stranger", "va", "localhost:1", deployed.hub.ca.read_bytes())
    assert other.node_key_line() != deployed.links["va"].node_key_line()
