"""An officer's key is stolen while a study runs: the site stops within one message, until others have signed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from wardround.client.desk import Switches
from wardround.client.governance import grant_for
from wardround.client.office import Office
from wardround.protocol.identity import Identity
from wardround.protocol.incoming import Hello, Propose, Train, ask_bytes
from wardround.protocol.ledger import BlockState, Officers, Refuse, Suspend, Waive, approve
from wardround.protocol.messages import Greeting, Refusal, RefusalCode, Reply, Standing
from wardround.protocol.outgoing import bytes_to_send, parse_answer, parse_step
from wardround.protocol.plan import StudyPlan
from wardround.server.study import Study
from wardround.strategies import strategy_from

Planned = Callable[..., StudyPlan]


class Daemon:
    """What the office asks of the daemon, on the switches of a desk of this process."""

    def __init__(self, switches: Switches) -> None:
        self.interrupt = switches.stopped_plans.add
        self.let = switches.stopped_plans.discard


def whole(ask: Any) -> bytes:
    return b"".join(bytes(part) for part in ask_bytes(ask))


def test_a_running_study_stops_within_one_message_and_goes_on_when_it_is_signed_again(
    consortium: Any, make_plan_of: Planned
) -> None:
    plan = make_plan_of("rounds=2", "privacy=none", "local.epochs=50")
    folder, (anna, ben), carl = consortium.folders["va"], consortium.officers, Identity.generate("carl")
    key = folder.identity().public.key.hex()

    def signed(fact: Any, *officers: Identity) -> bytes:
        for officer in officers:
            fact = approve(fact, key, officer)
        content: bytes = fact.model_dump_json().encode()
        return content

    stolen = signed(Suspend(key=anna.public.key.hex(), reason="stolen"), ben)
    halts: list[str] = []

    class StolenInTheMiddle(Switches):
        """At the fourth step of the round that is to be broken off, ben reports anna's key, on the office's thread."""

        breaks = False

        def halt(self, plan: str) -> bool:
            if self.breaks:
                halts.append(plan)
                if len(halts) == 4:
                    office.record([stolen])
            return super().halt(plan)

    switches = StolenInTheMiddle()
    office = Office(folder, Daemon(switches))  # type: ignore[arg-type]
    names = {one.site: one.public.key.hex() for one in (anna, ben, carl)}
    office.record([signed(Officers(version=2, officers=names), anna, ben)])
    consortium.approve(plan, "va")
    desk = consortium.desk("va", switches)

    def say(exchange: str, ask: Any) -> Any:
        (answer,) = desk.answer(exchange, plan.digest, [whole(ask)])
        content = bytes_to_send(answer)
        return parse_step(content, "va")[0] if exchange == "query.hello" else parse_answer(content, "va")

    assert say("query.hello", Propose(plan.canonical.decode())).standing is Standing.APPROVED
    request = Study(plan, strategy_from(plan.strategy)).open_round(0.0).request
    switches.breaks = True
    broken = say("train.round", Train(request, None))
    assert isinstance(broken, Refusal) and broken.code is RefusalCode.UNAVAILABLE
    assert len(halts) == 4, "it went on after the key was suspended"
    assert [block.state for block in desk.ledger.state.blocks.values()] == [BlockState.ABANDONED]
    assert desk.ledger.charged(plan.digest) == 1, "what may have drawn patients stays charged"

    # What the coordinator hears is what it hears of any paused site.
    greeting = say("query.hello", Hello(plan.digest))
    assert isinstance(greeting, Greeting) and greeting.standing is Standing.PAUSED
    entries = len(desk.ledger.facts())
    again = say("train.round", Train(request, None))
    assert isinstance(again, Refusal) and again.code is RefusalCode.UNAVAILABLE
    added = desk.ledger.facts()[entries:]
    assert [type(fact) for fact in added] == [Refuse] and "key of 'anna'" in added[0].reason
    content = bytes_to_send(desk.answer("query.hello", plan.digest, [whole(Hello(plan.digest))])[0])
    assert not any(word in content for word in (b"suspend", b"stolen", b"anna"))
    assert office.study(plan.digest).standing is Standing.SUSPENDED
    assert [(one.officer, one.reason) for one in office.study(plan.digest).suspended_by] == [("anna", "stolen")]

    # A process that starts now finds it in the ledger.
    restarted = consortium.desk("va")
    assert restarted.standing(plan) is Standing.SUSPENDED

    # The waiver took two keys and had one left; ben and carl sign one again. The grant was ben's too, and stands.
    waiver = Waive(domain="training", plan=plan.digest, reason="public data of 1988, no patient at risk")
    office.record([signed(waiver, ben, carl)])
    assert say("query.hello", Hello(plan.digest)).standing is Standing.APPROVED
    switches.breaks = False
    version = desk.ledger.state.grants[plan.digest, "training"].fact.version
    more = grant_for(plan, "va", "training", 2).model_copy(update={"version": version + 1})
    office.record([signed(more, carl)])
    answered = say("train.round", Train(replace(request, attempt=2), None))
    assert isinstance(answered, Reply), answered
    assert desk.ledger.charged(plan.digest) == 2
    office.close()
