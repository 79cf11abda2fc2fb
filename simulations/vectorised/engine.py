"""A study with every hospital in one computation: the round of ``simulations.federation`` without its parties.

What is the same for all sites is decided once a round; what differs is an array with a place for each site. Sites are
trained in chunks, whose contributions go into the sum at once, so that memory is that of a chunk. The rules
are those of the hospitals: ``client.policy`` decides, ``privacy.budget`` prices a round and compares it with what the
domain has left, ``strategies`` makes contributions, ``server.study`` steps the model. Left out is what proves something
to somebody else: entries, signatures, masks (which cancel in the sum) and messages.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from wardround.client.answers import Answers
from wardround.client.connectors import Cohort
from wardround.client.fall_back import for_rounds
from wardround.client.governance import CONSORTIUM_DOMAIN, TRAINING_DOMAIN, charge_for
from wardround.client.learning import weight_of
from wardround.client.own_model import own_schedule
from wardround.client.personal import without_own_layers
from wardround.client.policy import Denied, decide
from wardround.client.tasks import Task
from wardround.client.tasks.dense import DenseTask
from wardround.client.training import shuffle_seed, steps_of
from wardround.client.training import train_plain as train_plain_alone
from wardround.privacy.budget import allowance, cost, delta_for, fixed_order
from wardround.privacy.secagg.scale import quantizer_for
from wardround.protocol.errors import ProtocolViolation, Unavailable, UsageError
from wardround.protocol.events import PoissonGaussian
from wardround.protocol.messages import (
    LocalRule,
    Masked,
    RefusalCode,
    Reply,
    RoundRequest,
    join_contribution,
    split_contribution,
)
from wardround.protocol.parameters import Total, Update, Vector
from wardround.protocol.plan import PrivacyMode
from wardround.server.rounds import Outcome, Report, Round
from wardround.server.study import RoundRecord, Study
from wardround.server.sums import NOT_FINITE
from wardround.simulations.running import run_rounds
from wardround.simulations.single_updates import RobustStudy
from wardround.simulations.site_by_site import Terms
from wardround.simulations.vectorised.draws import Draw, keystream
from wardround.simulations.vectorised.memories import Memories
from wardround.simulations.vectorised.networks import networks_for, small_pictures
from wardround.simulations.vectorised.stack import Stack
from wardround.simulations.vectorised.training import Many, Own, train_plain, train_private
from wardround.strategies.base import Memory

Units: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]


NUMBERS_OF_A_CHUNK: Final = 1 << 24
"""Parameters of all sites of a chunk: 128 MiB of float64, of which a step holds a few."""


def unfit(task: Task, cohorts: Sequence[Cohort]) -> str | None:
    """Why this study has to go site by site, in words; None: it can be computed at once."""
    if not isinstance(task, DenseTask) and not small_pictures(task):
        return "the model is neither of dense layers nor the small network on 2D pictures"
    if any(not cohort.train.one_record_each for cohort in cohorts):
        return "patients have several records"
    if any(isinstance(cohort.train.features, np.memmap) for cohort in cohorts):
        return "the features lie on disk"
    return None


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Sites next to each other that are trained together."""

    sites: slice
    many: Many


@dataclass(slots=True)
class _Domain:
    """A data domain at every site (S,): rounds charged; price of a round, room and spent in units of 1e-12.

    ``room`` None: a plan without protection, of which rounds are counted and cost nothing.
    """

    rounds: Units
    price: Units | int = 0
    room: Units | None = None
    spent: Units | int = 0


class Vectorised:
    """The sites of a study as one computation.

    Args:
        draw: random bytes of all sites; left out: of the operating system. Only tests give them.
        memories: what ``ledgers`` gave, of an interrupted run that goes on.
        threads: that share the groups of a chunk; they change no bit.
        numbers_of_a_chunk: parameters of all sites that are trained together.
    """

    def __init__(
        self,
        terms: Terms,
        study: Study,
        draw: Draw | None = None,
        memories: bytes | None = None,
        threads: int = 1,
        numbers_of_a_chunk: int = NUMBERS_OF_A_CHUNK,
    ) -> None:
        plan, strategy, self.study = terms.plan, terms.strategy, study
        self._plan, self._strategy, self._today = plan, strategy, terms.today
        self._cohorts = sorted(terms.cohorts, key=lambda cohort: cohort.site)
        self._drawn = [for_rounds(plan, cohort) for cohort in self._cohorts]
        assert not isinstance(terms.task, Answers), "a statistics study goes site by site"
        self._task = terms.task
        self._chunks = list(self._chunked(threads, max(1, numbers_of_a_chunk // plan.layout.size)))
        self._memories = Memories(plan, strategy, memories)
        self._draw = keystream() if draw is None else draw
        caps = {TRAINING_DOMAIN: terms.epsilon_cap}
        if plan.privacy.mode is PrivacyMode.DIST:
            caps[CONSORTIUM_DOMAIN] = terms.consortium_cap
        charged = study.progress.rounds_done  # without faults every round charges every site
        self._domains = {name: self._opened(name, cap, charged) for name, cap in caps.items()}
        sizes = strategy.part_sizes(plan.layout.size)
        self._quantizer = quantizer_for(plan, sizes) if plan.privacy.secure_aggregation else None

    def _chunked(self, threads: int, sites_at_once: int) -> Iterator[_Chunk]:
        networks = networks_for(self._task)
        pool = ThreadPoolExecutor(threads) if threads > 1 and networks.several_threads else None
        for first in range(0, len(self._cohorts), sites_at_once):
            sites = slice(first, min(first + sites_at_once, len(self._cohorts)))
            stack = Stack(self._drawn[sites], networks.width, networks.values_at_once)
            yield _Chunk(sites, Many(networks, stack, pool))

    @cached_property
    def names(self) -> list[str]:
        """Of the sites, sorted."""
        return [cohort.site for cohort in self._cohorts]

    def charged(self) -> dict[str, int]:
        """Rounds that each site was charged for."""
        return dict(zip(self.names, self._domains[TRAINING_DOMAIN].rounds.tolist(), strict=True))

    def spent(self) -> dict[str, tuple[int, int | None]]:
        """(spent, allowance) of each site's training domain, as ``client.store.ledger.Ledger.used``."""
        domain = self._domains[TRAINING_DOMAIN]
        if domain.room is None:
            return dict.fromkeys(self.names, (0, None))
        spent = np.broadcast_to(domain.spent, domain.room.shape).tolist()
        return dict(zip(self.names, zip(spent, domain.room.tolist(), strict=True), strict=True))

    def ledgers(self) -> bytes:
        """The memories of the sites: what was charged follows from the rounds that are done."""
        return self._memories.to_bytes()

    def memory(self, site: str) -> Memory | None:
        """What a site remembers after the rounds that are done."""
        return self._memories.of(site)

    def step(self) -> RoundRecord:
        """One round of every site."""
        request = self.study.request()
        state = self._strategy.init(request.model).under(self._plan)
        expected = self._strategy.local_rule(state, self._plan.local.learning_rate)
        decision = decide(self._plan, request, expected, self._today)
        if isinstance(decision, Denied):
            reports, sums = dict.fromkeys(self.names, _refused(decision.code)), Formed()
        else:
            admitted = self._charge()
            reports, sums = self._sum(request, self._train(request), admitted)
            self._memories.learned(sums.sites)
        names = tuple(self.names)
        opened = Round(request, names, sums, self._plan.quorum, self._plan.deadline_seconds, self._plan.must_include)
        opened.restore(reports)
        opened.settle(0.0)
        record = self.study.close_round(opened)
        self._memories.settle(record.model_after != record.model_before)
        return record

    def run(self, after_round: Callable[[RoundRecord], None] = lambda record: None) -> list[RoundRecord]:
        """Every round that is left; see ``simulations.running``."""
        _keep_freed_memory()
        return run_rounds(self.study, self.step, after_round)

    def _opened(self, name: str, cap: float, charged: int) -> _Domain:
        rounds = np.full(len(self._cohorts), charged, np.int64)
        if self._plan.privacy.mode is PrivacyMode.NONE:
            return _Domain(rounds)
        prices, rooms = [], []
        known: dict[int, int] = {}
        for cohort in self._cohorts:
            delta = delta_for(cohort.declared_patients)
            order = fixed_order(cap, delta)
            known.setdefault(order, cost(charge_for(self._plan, cohort.site, name), order))
            prices.append(known[order])
            rooms.append(_room(cap, delta, order))
        price = np.array(prices, np.int64)
        return _Domain(rounds, price, np.array(rooms, np.int64), price * charged)

    def _charge(self) -> Flags:
        """Charge a round to every site that has room for it in every domain; which those are, shape (S,)."""
        admitted = np.ones(len(self._cohorts), bool)
        for domain in self._domains.values():
            if domain.room is not None:
                admitted &= domain.spent + domain.price <= domain.room
        for domain in self._domains.values():
            domain.rounds += admitted
            domain.spent = domain.spent + admitted.astype(np.int64) * domain.price
        return admitted

    def _train(self, request: RoundRequest) -> Iterator[Update]:
        """Each site's update, of which nothing that is its own is left; its next memory waits for the round's end."""
        for chunk in self._chunks:
            names, weights = self.names[chunk.sites], self._weights[chunk.sites]
            begins, linear, shared = self._memories.begin(request, names)
            rule = replace(request.rule, head=shared.layers, head_steps=shared.head_steps)
            models = self._trained(replace(request, rule=rule), chunk, Own(begins, linear))
            starts = itertools.repeat(request.model) if begins is None else begins
            steps = [steps_of(self._plan.local, count) for count in chunk.many.stack.patients.tolist()]
            updates = [
                Update(without_own_layers(shared.layers, model - start), weight, taken)
                for model, start, weight, taken in zip(models, starts, weights, steps, strict=False)
            ]
            self._memories.learn(request, names, updates, models)
            if shared.pull is not None:
                rule = LocalRule(self._plan.local.learning_rate, proximal_mu=shared.pull)
                self._memories.learn_models(names, self._own_models(request, chunk, rule))
            yield from updates

    def _own_models(self, request: RoundRequest, chunk: _Chunk, rule: LocalRule) -> Vector:
        """A round of each site's own model beside the shared one (Ditto)."""
        cohorts, own = self._drawn[chunk.sites], []
        begins = self._memories.own_models(request.model, [cohort.site for cohort in cohorts])
        for begin, cohort in zip(begins, cohorts, strict=True):
            schedule = own_schedule(self._plan, cohort.site, rounds=1)
            seed = shuffle_seed(self._plan.model.seed, cohort.site, request.round_number)
            engine = self._task.engine
            own.append(train_plain_alone(engine, request.model, cohort.train, rule, schedule, seed, begin=begin))
        return np.stack(own)

    def _trained(self, request: RoundRequest, chunk: _Chunk, own: Own) -> Vector:
        names, many = self.names[chunk.sites], chunk.many
        if self._plan.privacy.mode is not PrivacyMode.NONE:
            events = [event for name in names if isinstance(event := self._plan.round_event(name), PoissonGaussian)]
            assert len(events) == len(names), "a private plan has an event for each site"
            clip_norm = self._plan.privacy.clip_norm

            def draw(sites: Units, sizes: Units) -> bytes:
                return self._draw(sites + chunk.sites.start, sizes)

            return train_private(many, request.model, request.rule, events, clip_norm, draw, own)
        seeds = [shuffle_seed(self._plan.model.seed, name, request.round_number) for name in names]
        return train_plain(many, request.model, request.rule, self._plan.local, seeds, own)

    def _sum(
        self, request: RoundRequest, updates: Iterable[Update], admitted: Flags
    ) -> tuple[dict[str, Report], "Formed"]:
        """What became of each site, and the sum of the contributions of those that replied."""
        reports: dict[str, Report] = {}
        kept: list[Any] = []  # for a rule that is no function of a sum
        summed: Any = None  # one after the other, in the order of the sites' names
        for name, update, may in zip(self.names, updates, admitted, strict=True):
            if not may:
                reports[name] = _refused(RefusalCode.POLICY)
                continue
            vector: Any = join_contribution(self._strategy.contribute(update))
            if self._quantizer is not None:
                try:
                    vector = self._quantizer.quantize(vector, os.urandom(32))
                except UsageError:
                    reports[name] = _refused(RefusalCode.UNAVAILABLE)
                    continue
            elif not np.isfinite(vector).all():
                reports[name] = Report(Outcome.VIOLATED, NOT_FINITE)
                continue
            reports[name] = _REPLIED
            if isinstance(self.study, RobustStudy):
                kept.append(vector)
            elif summed is None:
                summed = vector.copy()
            else:
                summed += vector
        replied = tuple(name for name, report in reports.items() if report.outcome is Outcome.REPLIED)
        if not replied:
            return reports, Formed()
        if isinstance(self.study, RobustStudy):
            summed = self.study.combined(kept)
        elif self._quantizer is not None:
            summed = self._quantizer.dequantize(summed)
        sizes = self._strategy.part_sizes(self._plan.layout.size)
        return reports, Formed(replied, Total(split_contribution(summed, sizes), len(replied)))

    @cached_property
    def _weights(self) -> list[float]:
        return [weight_of(self._plan, one.site, self._strategy, one.train.patients) for one in self._drawn]


@dataclass(frozen=True, slots=True)
class Formed:
    """A sum that is there already, as ``server.rounds`` wants it."""

    sites: tuple[str, ...] = ()
    formed: Total | None = None

    def add(self, answer: Reply | Masked) -> None:
        raise ProtocolViolation(answer.site, "the sum is formed already")

    def total(self) -> Total:
        if self.formed is None:
            raise Unavailable("no site is in the sum", "bring the sites back and resume")
        return self.formed

    def totals(self, size: int) -> Iterator[tuple[slice, Total]]:
        yield slice(0, size), self.total()

    def spare(self, size: int) -> Vector | None:
        return None


def _keep_freed_memory() -> None:
    """Let this process keep what arrays of a step have freed for those of the next.

    glibc asks the kernel for every block above a threshold, and gives it back when it is freed: new pages, and so half
    of the time of a round of 100 sites. Freeing one block just below 32 MiB moves the threshold there for good
    (mallopt(3), M_MMAP_THRESHOLD). Elsewhere this does nothing.
    """
    np.empty(_LARGEST_KEPT, np.uint8)


_LARGEST_KEPT: Final = (32 << 20) - (64 << 10)

_REPLIED: Final = Report(Outcome.REPLIED)


def _refused(code: RefusalCode) -> Report:
    return Report(Outcome.REFUSED, code.value)


@lru_cache(maxsize=256)
def _room(cap: float, delta: float, order: int) -> int:
    return allowance(cap, delta, order)
