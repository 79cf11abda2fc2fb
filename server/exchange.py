"""The coordinator's part of secure aggregation besides adding up: set-up of a session, and opening of a round.

``Asking`` is how the sites are reached: in this process, or behind a transport. What comes back is bytes of the one
type that may leave a site; what does not come, or breaks a rule, drops that site by name.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Protocol, TypeVar

from wardround.privacy.secagg.scale import session_for
from wardround.privacy.secagg.server import SetupDesk
from wardround.protocol.errors import ProtocolViolation, Unavailable, WardroundError
from wardround.protocol.identity import Identity
from wardround.protocol.incoming import Ask, AskAgreement, AskConsent, AskDeal, AskKeys, AskOpening, AskWhole, Begin
from wardround.protocol.messages import Cosigned, Done, Gossiped, Greeting, Recalled, Signed
from wardround.protocol.outgoing import Stored, is_answer, parse_answer, parse_step
from wardround.protocol.plan import StudyPlan
from wardround.protocol.roster import Roster, session_members
from wardround.protocol.secagg import Agreement, Consent, Deal, Keys, Opening, Parcel
from wardround.server.rounds import Round, RoundState
from wardround.server.sums import MaskedSum


class Asking(Protocol):
    """Asks sites one thing each and yields, as they come, what each has said (bytes), or why it did not."""

    def __call__(self, kind: str, asks: Mapping[str, Ask]) -> Iterator[tuple[str, bytes | Stored | WardroundError]]: ...


Said = TypeVar("Said", Keys, Deal, Agreement, Consent, Opening, Done, Greeting, Recalled, Signed, Cosigned, Gossiped)


class SiteFailed(Unavailable):
    """A site did not take part in a set-up; ``site`` names it. Others may begin anew without it."""

    def __init__(self, site: str, reason: str) -> None:
        super().__init__(f"site '{site}' did not take part in the set-up: {reason}", "set up without it, or mend it")
        self.site = site


def set_up(
    plan: StudyPlan,
    roster: Roster,
    coordinator: Identity,
    asking: Asking,
    sites: Sequence[str],
    *,
    name: str,
    length: int,
    rounds: Sequence[int],
    today: date,
    attempts: int = 1,
) -> SetupDesk:
    """A new session with ``sites``, for so many attempts at ``rounds``. No name is used twice.

    The sites still have to be told to begin: ``begin`` does, or the transport sends ``Begin`` with the first round.

    Raises:
        SiteFailed: a site did not answer; the session does not come about.
        ProtocolViolation: a site broke a rule of the set-up; it is named, and the session does not come about.
        Unavailable: fewer sites than the threshold took part.
    """
    sites = sorted(sites)
    session = session_for(
        plan,
        session_members(roster, sites, today),
        roster=roster.digest,
        name=name,
        length=length,
        rounds=rounds,
        attempts=attempts,
        coordinator=coordinator.public,
    )
    desk = SetupDesk(session, coordinator)
    for keys, _ in _heard(asking("query.keys", dict.fromkeys(sites, AskKeys(session))), Keys):
        desk.add_keys(keys)
    for deal, parcels in _heard(asking("query.deal", dict.fromkeys(sites, AskDeal(plan.digest, desk.keys()))), Deal):
        desk.add_deal(deal, parcels)
    agree = {site: AskAgreement(plan.digest, desk.deals(), desk.parcels_for(site)) for site in sites}
    for agreement, _ in _heard(asking("query.agree", agree), Agreement):
        desk.add_agreement(agreement)
    return desk


def begin(plan: StudyPlan, desk: SetupDesk) -> Begin:
    """What tells a site that the set-up is over."""
    return Begin(plan.digest, desk.agreements())


def open_sum(opened: Round, asking: Asking) -> None:
    """R2 and R3 of a closed round: afterwards its total can be taken, or it is void and says why.

    One exchange where everybody's vector came, and two otherwise. Who is silent once is asked no more; others may
    still open the sum.
    """
    sums, plan = opened.sums, opened.request.plan
    if opened.state is not RoundState.CLOSED or not isinstance(sums, MaskedSum):
        return
    desk = sums.desk
    try:
        survivors = desk.survivors()
        asks: dict[str, Ask]
        if desk.whole:
            asks = {site: AskWhole(plan, desk.proposal, survivors) for site in survivors.sites}
        else:
            asks = {site: AskConsent(plan, desk.proposal, survivors) for site in survivors.sites}
            for site, said in asking("query.consent", asks):
                if (consent := _taken(opened, site, said, Consent)) is not None:
                    with _Named(opened, site):
                        desk.add_consent(consent)
            consents = desk.consents()
            asks = {site: AskOpening(plan, desk.proposal, consents) for site in _speaking(opened)}
        for site, said in asking("query.open", asks):
            if (opening := _taken(opened, site, said, Opening)) is not None:
                with _Named(opened, site):
                    desk.add_opening(opening)
        sums.open()
    except Unavailable as error:
        opened.void(error.message)


def said(content: bytes | Stored, site: str, kind: type[Said]) -> tuple[Said, tuple[Parcel, ...]]:
    """The message of this kind in ``content`` that came from ``site``.

    Raises:
        ProtocolViolation: it is another message; a refusal is named by its word.
    """
    if not isinstance(content, bytes):
        raise ProtocolViolation(site, "it sent more than anybody asked for")
    if is_answer(content, site):
        answer = parse_answer(content, site)
        word = getattr(answer, "code", None)
        raise ProtocolViolation(site, f"it refused: {word.value}" if word else "it sent a vector that nobody asked for")
    found, parcels = parse_step(content, site)
    if type(found) is not kind:
        raise ProtocolViolation(site, f"it sent {type(found).__name__} where {kind.__name__} was asked for")
    return found, parcels


def _heard(
    outcomes: Iterator[tuple[str, bytes | Stored | WardroundError]], kind: type[Said]
) -> list[tuple[Said, tuple[Parcel, ...]]]:
    """Every site's message of this kind, in the order of the sites' names."""
    heard = {}
    for site, content in outcomes:
        if isinstance(content, ProtocolViolation):
            raise content
        if isinstance(content, WardroundError):
            raise SiteFailed(site, content.message) from content
        heard[site] = said(content, site, kind)
    return [heard[site] for site in sorted(heard)]


def _speaking(opened: Round) -> list[str]:
    assert isinstance(opened.sums, MaskedSum)
    return [site for site in opened.sums.desk.survivors().sites if site not in opened.silent]


def _taken(opened: Round, site: str, content: bytes | Stored | WardroundError, kind: type[Said]) -> Said | None:
    """The message, or None: then the site is silent from now on, and the round's report says why."""
    with _Named(opened, site):
        if isinstance(content, WardroundError):
            raise content
        return said(content, site, kind)[0]
    return None


class _Named:
    """A site that breaks a rule here, finds that the coordinator did, or cannot write, is silent; others may do."""

    def __init__(self, opened: Round, site: str) -> None:
        self._opened, self._site = opened, site

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, WardroundError):
            return False
        self._opened.silent.add(self._site)
        self._opened.note(self._site, error.message)
        return True
