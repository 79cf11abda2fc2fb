"""Receipts and heads: what goes beside a study's rounds, costs no exchange of its own, and proves them later.

After each attempt the coordinator signs a receipt; sites countersign it with the next round. With its signature a site
gives the signed head of its ledger, which the coordinator and c + 1 other sites cosign, and keeps their signatures: the
witnesses against a ledger that is put back to an older copy. Which sites these are follows from the roster's names
and the round (``protocol.bulletin``). Bulletins go round in the same way, so that witnesses compare what they were
shown.
"""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final

from wardround.privacy.meaning import conditions
from wardround.protocol.bulletin import partners_of, witnesses_of
from wardround.protocol.errors import ProtocolViolation, WardroundError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.identity import Identity
from wardround.protocol.incoming import Ask, Cosign, Gossip, Keep, Recall, SignReceipt
from wardround.protocol.messages import Cosigned, Done, Gossiped, Recalled, Signed
from wardround.protocol.outgoing import Stored
from wardround.protocol.owners import COORDINATOR
from wardround.protocol.plan import StudyPlan
from wardround.protocol.receipt import FIRST, Receipt, ReceiptSignature, SiteLine, Witnessed
from wardround.protocol.roster import Roster
from wardround.protocol.secagg import colluding
from wardround.protocol.watch import Watch
from wardround.protocol.witness import NONCE_SIZE, SeenHead, checkpoint_of
from wardround.server.exchange import said
from wardround.server.store.studies import StudyFolder
from wardround.server.store.witness import CoordinatorWitness
from wardround.server.study import RoundRecord

UNPROTECTED: Final = "no differential privacy: no epsilon bounds what this study tells of a patient"

log = logging.getLogger(__name__)


class Recorder:
    """Makes the receipts of one study and collects their signatures."""

    def __init__(self, folder: StudyFolder, identity: Identity, roster: Callable[[], Roster | None]) -> None:
        self._folder = folder
        self._plan: StudyPlan = folder.plan
        self._identity = identity
        self._roster = roster
        self._receipts = folder.receipts()
        self._beside: dict[str, list[Ask]] = {site: [] for site in self._sites}
        self._under_way: set[tuple[str, str]] = set()
        self._kept: dict[str, dict[str, int]] = {}
        self._bulletins: dict[str, str] = {}
        self._witness = CoordinatorWitness(folder.witness, identity)
        self._curve = _curve_of(self._plan)
        for receipt in self._receipts[-1:]:
            self._spread(receipt)

    @property
    def _sites(self) -> list[str]:
        return [participant.site for participant in self._plan.participants]

    @property
    def watch(self) -> Watch:
        """What the coordinator has noticed of ledgers."""
        return self._witness.watch

    def record(self, record: RoundRecord, attempt: int) -> Receipt:
        """The signed receipt of an attempt, written down; sites are asked to sign it beside the next round."""
        if record.warning:
            log.warning("odd sum round=%d attempt=%d: %s", record.round_number, attempt, record.warning)
        roster = self._roster()
        before = self._receipts[-1] if self._receipts else None
        if before is not None and (before.round_number, before.attempt) == (record.round_number, attempt):
            return before
        asked = {} if before is None else {line.site: line.rounds_asked for line in before.sites}
        again = before is not None and before.round_number == record.round_number
        counted = 0 if again and self._plan.repeats_answers else 1
        lines = tuple(
            self._line(site, report.outcome.value, report.detail, asked.get(site, 0) + counted)
            for site, report in sorted(record.reports.items())
        )
        delta = self._plan.privacy.delta
        receipt = Receipt(
            study=self._plan.study,
            plan=self._plan.digest,
            roster=None if roster is None else roster.digest,
            roster_epoch=None if roster is None else roster.epoch,
            round_number=record.round_number,
            attempt=attempt,
            at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            state="closed" if record.state == "closed" else "void",
            model_before=record.model_before,
            model_after=record.model_after,
            sites=lines,
            voided_by=record.voided_by,
            conditions=UNPROTECTED if delta is None else conditions(delta),
            previous=FIRST if before is None else before.digest,
            witnessed=self._witnessed(),
            evaluated=record.evaluated,
        ).signed_by(self._identity)
        self._receipts.append(receipt)
        self._folder.keep_receipt(receipt)
        self._spread(receipt)
        return receipt

    def beside(self, site: str) -> list[Ask]:
        """What goes to ``site`` beside its next request. The same until it was answered."""
        return list(self._beside.get(site, ()))

    def take(self, site: str, asks: Sequence[Ask], answers: Sequence[bytes | Stored]) -> None:
        """The answers to ``asks``, of which those of ``beside`` are looked at; a bad one is asked for no more."""
        for ask, content in zip(asks, answers, strict=True):
            if ask not in self._beside[site]:
                continue
            self._beside[site].remove(ask)
            try:
                match ask:
                    case SignReceipt():
                        self._signed(said(content, site, Signed)[0])
                    case Cosign():
                        self._beside[ask.origin].append(Keep(site, said(content, site, Cosigned)[0].note))
                    case Recall():
                        self._recalled(ask.origin, said(content, site, Recalled)[0])
                    case Keep():
                        self._under_way.discard((site, ask.witness))
                        said(content, site, Done)
                        size = checkpoint_of(ask.note.encode(), site).head.size
                        self._kept.setdefault(site, {})[ask.witness] = size
                    case Gossip():
                        self._gossiped(said(content, site, Gossiped)[0])
            except WardroundError as error:
                log.warning("not signed site=%s what=%s reason=%r", site, type(ask).__name__, error.message)
                if isinstance(ask, Cosign):
                    # It may hold a head whose signature never came back, because this process had ended in between.
                    self._beside[site].append(Recall(ask.origin, os.urandom(NONCE_SIZE).hex()))

    def _spread(self, receipt: Receipt) -> None:
        """Ask every site of the plan that has not signed it."""
        content = receipt.canonical.decode()
        for site in self._sites:
            if site not in {one.site for one in receipt.signatures}:
                self._beside[site] = [ask for ask in self._beside[site] if not isinstance(ask, SignReceipt)]
                self._beside[site].append(SignReceipt(content))
        if (roster := self._roster()) is not None:
            self._gossip([site for site in self._sites if site in roster.identities])

    def _gossip(self, names: list[str]) -> None:
        """To each site the last bulletins of its partners in this step; it answers with its own."""
        for site in names:
            partners = partners_of(site, names, len(self._receipts) - 1)
            bulletins = tuple(self._bulletins[one] for one in partners if one in self._bulletins)
            self._beside[site] = [ask for ask in self._beside[site] if not isinstance(ask, Gossip)]
            self._beside[site].append(Gossip(bulletins))

    def _gossiped(self, gossiped: Gossiped) -> None:
        """The coordinator reads what it carries: an alarm is kept here too."""
        roster = self._roster()
        if roster is None:
            return
        for alarm in self._witness.hear(gossiped.bulletin, roster.identities):
            log.error(
                "ledger alarm kind=%s origin=%s by=%s sha256=%s", alarm.kind, alarm.origin, alarm.by, alarm.digest
            )
        self._bulletins[gossiped.site] = gossiped.bulletin

    def _witnessed(self) -> tuple[Witnessed, ...]:
        """For each ledger the newest head that another site has cosigned, and everybody who has signed as much."""
        found = []
        for site, sizes in sorted(self._kept.items()):
            newest = max((size for witness, size in sizes.items() if witness != COORDINATOR), default=0)
            if newest:
                witnesses = tuple(sorted(witness for witness, size in sizes.items() if size >= newest))
                found.append(Witnessed(site=site, size=newest, witnesses=witnesses))
        return tuple(found)

    def _signed(self, signed: Signed) -> None:
        number = next((i for i, known in enumerate(self._receipts) if known.digest == signed.receipt), None)
        if number is None:
            raise ProtocolViolation(signed.site, "it signed a receipt that it was not sent")
        receipt = self._receipts[number].with_signature(ReceiptSignature(site=signed.site, signature=signed.signature))
        if (roster := self._roster()) is not None:
            party = roster.identities.get(signed.site)
            if party is None or signed.site not in receipt.verified_signers({signed.site: party}):
                raise ProtocolViolation(signed.site, "its signature under the receipt does not hold")
            self._offer(signed, receipt, roster)
        self._receipts[number] = receipt
        self._folder.keep_receipt(receipt)

    def _offer(self, signed: Signed, receipt: Receipt, roster: Roster) -> None:
        """The head of a site's ledger to its witnesses of the round; the coordinator is always one."""
        names = sorted(set(receipt.line) & set(roster.identities))
        proofs = dict(signed.proofs)
        for witness in witnesses_of(signed.site, names, receipt.round_number, colluding(len(names)) + 1):
            # One head at a time: the proof for the next one begins at the signature that the site has kept.
            if (signed.site, witness) not in self._under_way:
                self._under_way.add((signed.site, witness))
                self._beside[witness].append(Cosign(signed.site, signed.checkpoint, proofs.get(witness, ())))
        if (signed.site, COORDINATOR) in self._under_way:
            return
        party, offered = roster.identities[signed.site], signed.checkpoint.encode()
        proof = [bytes.fromhex(step) for step in proofs.get(COORDINATOR, ())]
        note: bytes | None
        try:
            note = self._witness.cosign(offered, proof, party)
        except ProtocolViolation as error:
            log.warning("not cosigned site=%s reason=%r", signed.site, error.message)
            self._witness.watch.refused(offered, party)
            # The site may not know what the coordinator signed last, because this process had ended in between.
            note = self._witness.held(signed.site)
        if note is not None:
            self._under_way.add((signed.site, COORDINATOR))
            self._beside[signed.site].append(Keep(COORDINATOR, note.decode()))

    def _recalled(self, origin: str, recalled: Recalled) -> None:
        """A witness holds a head that the ledger's own site does not know it signed: bring it the signature."""
        try:
            note = SeenHead.model_validate_json(recalled.answer).note
        except ValueError:
            note = None
        if note is None:
            self._under_way.discard((origin, recalled.site))
        else:
            self._beside[origin].append(Keep(recalled.site, note))

    def _line(self, site: str, outcome: str, detail: str, asked: int) -> SiteLine:
        return SiteLine(
            site=site, outcome=outcome, detail=detail[:400], rounds_asked=asked, epsilon_at_most=self._epsilon(asked)
        )

    def _epsilon(self, rounds: int) -> float | None:
        """The epsilon of so many rounds of the plan, the same for every site: its event is the plan's.

        Of more rounds than there are charges it is that of all charges.
        """
        if self._curve is None or not rounds:
            return None if self._curve is None else 0.0
        curve = self._curve.result()
        return curve[min(rounds, len(curve)) - 1]


def _curve_of(plan: StudyPlan) -> "Future[list[float]] | None":
    """The epsilon of 1, 2, ... charges, computed beside the first round; None without differential privacy."""
    event, delta = plan.round_event(plan.participants[0].site), plan.privacy.delta
    if not isinstance(event, PoissonGaussian) or delta is None:
        return None
    most = plan.charges * (1 if plan.repeats_answers else plan.attempts)

    def compute() -> list[float]:
        from wardround.privacy.accounting import epsilon, epsilon_after_rounds

        # A campaign is charged whole with its first tick, and no later one adds to that.
        return [epsilon([event], delta)] if most == 1 else epsilon_after_rounds(event, most, delta)

    pool = ThreadPoolExecutor(1, "accounting")
    computed = pool.submit(compute)
    pool.shutdown(wait=False)
    return computed
