"""The engine "flower": a study's hospitals train on Ray workers, which Flower's own simulation feeds.

The same parties as in ``site_by_site`` keep ledger, memory and keys in this process; Flower carries one message to each
hospital's ClientApp per round, and Ray says on which machine it runs. Ray's actors keep nothing between rounds that
matters: what a hospital knows comes with the message, its patients lie in Ray's object store.

Flower's simulation is for research: patients' records and updates before they are summed pass between the processes of
one person (docs/scale-out.md).
"""

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from queue import Empty, Queue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from safetensors.numpy import load
from threadpoolctl import threadpool_limits

from wardround.client.answers import Answers
from wardround.client.fall_back import for_rounds
from wardround.client.learning import Learner
from wardround.client.tasks import Task, task_from
from wardround.privacy.gradients import Examples
from wardround.protocol.canonical import encode
from wardround.protocol.errors import Unavailable, UsageError, WardroundError
from wardround.protocol.incoming import Train, ask_bytes, parse_ask
from wardround.protocol.messages import RoundRequest
from wardround.protocol.parameters import Update
from wardround.protocol.plan import StudyPlan
from wardround.protocol.plugins import PluginTask
from wardround.protocol.tensors import tensor_parts
from wardround.server.study import RoundRecord, Study
from wardround.simulations.cluster import QUIET, Workers, check_workers, connected, first_line
from wardround.simulations.site_by_site import Keys, SiteBySite, Terms
from wardround.strategies import Strategy
from wardround.strategies.base import Memory

if TYPE_CHECKING:
    from flwr.app import Context, Message
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid

ROUND: Final = "train.round"
"""Flower's type of the message, as between coordinator and hospital."""

UPDATE: Final = "update"
POLL_SECONDS: Final = 0.01
START_SECONDS: Final = 120.0
RESTART_SECONDS: Final = 60.0

_DIED: Final = re.compile(r"<class 'ray\.exceptions\.(\w*Died\w*|ActorUnavailable\w*|RayActor\w*|OutOfMemory\w*)'>")
"""How Flower's error names a worker that is gone, unlike training that failed."""


class Flower(SiteBySite):
    """Parties as in ``SiteBySite`` whose training happens on Ray."""

    def __init__(self, terms: Terms, study: Study, keys: Keys | None, ledgers: bytes | None, workers: Workers) -> None:
        check_workers(workers)
        if isinstance(terms.plan.task, PluginTask) or terms.plan.strategy.plugin is not None:
            raise UsageError(
                "a plugin is on this machine alone and is not sent to Ray's workers",
                "use simulation.engine=auto",
            )
        self._fleet = Fleet(terms, workers)
        super().__init__(terms, study, (), keys, ledgers, self._fleet)

    def run(self, after_round: Callable[[RoundRecord], None]) -> list[RoundRecord]:
        """Every round that is left; see ``simulations.running``. Raises Unavailable where Ray ends."""
        with self._fleet.sailing():
            return super().run(after_round)


@dataclass(frozen=True, slots=True)
class Orders:
    """What every worker needs to know of a study. ``task`` None: the plan names it."""

    plan: bytes
    strategy: Strategy
    task: Task | None
    threads: int
    version: str


@dataclass(frozen=True, slots=True)
class Berths:
    """Where in Ray's object store the orders and each site's training patients lie."""

    orders: Any
    sites: Mapping[str, Any]


@lru_cache(maxsize=4)
def _learner_terms(orders: Any) -> tuple[StudyPlan, Task, Orders]:
    import ray

    found: Orders = ray.get(orders)
    if found.version != version("wardround"):
        raise UsageError(
            f"a worker has wardround {version('wardround')}, the simulation {found.version}",
            "install the same environment on every machine",
        )
    plan = StudyPlan.parse(found.plan)
    return plan, found.task or task_from(plan), found


def ask_of(site: str, request: RoundRequest, memory: Memory | None) -> list[Sequence[bytes | memoryview]]:
    """The parts of a message, each in segments: whose it is, the request, and the memory where there is one."""
    known = [] if memory is None else [tensor_parts(dict(memory))]
    return [[site.encode()], ask_bytes(Train(request, None)), *known]


def learn_part(berths: Berths, parts: Sequence[bytes]) -> list[bytes]:
    """A worker's answer to the parts of one message: what was learned, or why training failed."""
    import ray

    site = parts[0].decode()
    try:
        plan, task, orders = _learner_terms(berths.orders)
        train = parse_ask(parts[1])
        if not isinstance(train, Train):
            raise UsageError("a worker trains and does nothing else", "use the same version on every machine")
        memory = load(parts[2]) if len(parts) > 2 else None
        examples: Examples = ray.get(berths.sites[site])
        with threadpool_limits(orders.threads):
            update, after = Learner(plan, site, task, orders.strategy).learn(train.request, memory, examples)
    except WardroundError as error:
        return [encode({"error": error.message, "hint": error.hint})]
    except Exception as error:
        hint = "run it with simulation.engine=sites to see where"
        return [encode({"error": f"training of site '{site}' failed: {first_line(error)}", "hint": hint})]
    about = encode({"steps": update.steps, "weight": float(update.weight).hex()})
    tensors = {UPDATE: update.difference} | {f"memory.{name}": array for name, array in after.items()}
    return [about, b"".join(tensor_parts(tensors))]


def client_app(berths: Berths) -> "ClientApp":
    """The ClientApp that Flower sends to its workers: no more than a way from a message to ``learn_part``."""
    from flwr.app import Message
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.train("round")
    def answer(message: "Message", context: "Context") -> "Message":
        from wardround.client.flower.packets import packed, unpacked

        plan, parts = unpacked(message.content)
        return Message(packed(plan, learn_part(berths, parts)), reply_to=message)

    return app


class Fleet:
    """All sites of a study on Ray workers; see ``elsewhere.Elsewhere``."""

    def __init__(self, terms: Terms, workers: Workers) -> None:
        self._terms = terms
        self._workers = workers
        self._names = [cohort.site for cohort in terms.cohorts]
        self._learned: dict[str, tuple[Update, Memory]] = {}
        self._grid: Grid | None = None
        self._nodes: dict[str, int] = {}
        self._simulation: Thread | None = None
        self._failure = ""
        self._wounded = False

    @contextmanager
    def sailing(self) -> Iterator[None]:
        """Ray and Flower's simulation while the block runs. Raises Unavailable where they do not start."""
        done = Event()
        with connected(self._workers), _quiet():
            handed: Queue[Grid] = Queue()
            self._simulation = Thread(target=self._simulate, args=(handed, done), name="flower", daemon=True)
            self._simulation.start()
            try:
                self._grid = self._wait_for(handed)
                # A message names its site, so it does not matter which node is whose.
                self._nodes = dict(zip(self._names, self._grid.get_node_ids(), strict=True))
                yield
            finally:
                done.set()
                self._simulation.join()
                self._grid = None

    def train(self, request: RoundRequest, memories: Mapping[str, Memory | None]) -> Mapping[str, str]:
        """See ``elsewhere.Elsewhere``."""
        from flwr.app import Message

        from wardround.server.flower.packets import packed, part_of, unpacked

        if self._grid is None:
            raise RuntimeError("a fleet trains while it is sailing")
        self._learned.clear()
        self._heal()
        waiting = dict[str, str]()
        for site, memory in memories.items():
            parts = [part_of(part) for part in ask_of(site, request, memory)]
            message = Message(packed(request.plan, parts), self._nodes[site], ROUND)
            (number,) = self._grid.push_messages([message])
            waiting[number] = site
        lost = dict[str, str]()
        while waiting:
            for message in self._grid.pull_messages(list(waiting)):
                site = waiting.pop(message.metadata.reply_to_message_id)
                if message.has_error():
                    lost[site] = self._why_lost(site, str(message.error.reason))
                else:
                    answer = unpacked(message.content).parts
                    self._learned[site] = learned_of([p if isinstance(p, bytes) else p.data for p in answer])
            if waiting:
                self._look()
                time.sleep(POLL_SECONDS)
        return lost

    def learned(self, site: str) -> tuple[Update, Memory]:
        """See ``elsewhere.Elsewhere``."""
        return self._learned.pop(site)

    def _simulate(self, handed: "Queue[Grid]", done: Event) -> None:
        """Flower's simulation, whose ServerApp hands its grid to the engine and waits for the end."""
        from flwr.serverapp import ServerApp
        from flwr.simulation import run_simulation

        server = ServerApp()

        @server.main()
        def main(grid: "Grid", context: "Context") -> None:
            handed.put(grid)
            done.wait()

        try:
            # A worker that died is started again, but what it was doing is not done a second time: that would be a
            # second draw of patients for one charge.
            resources: Any = {"num_cpus": self._workers.threads, "num_gpus": 0.0, "max_restarts": -1}
            config: Any = {"client_resources": resources}
            run_simulation(server, client_app(self.berths()), len(self._names), backend_config=config)
        except Exception as error:
            self._failure = first_line(error.__cause__ or error)

    def berths(self) -> Berths:
        """Lay orders and patients into Ray's object store, whence each worker fetches what it trains."""
        import ray

        terms = self._terms
        assert not isinstance(terms.task, Answers), "a statistics study goes site by site"
        task = terms.task if terms.plan.contract is None else None
        orders = Orders(terms.plan.canonical, terms.strategy, task, self._workers.threads, version("wardround"))
        sites = {cohort.site: ray.put(_whole(for_rounds(terms.plan, cohort).train)) for cohort in terms.cohorts}
        return Berths(ray.put(orders), sites)

    def _wait_for(self, handed: "Queue[Grid]") -> "Grid":
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            self._look()
            try:
                grid = handed.get(timeout=0.1)
            except Empty:
                continue
            while len(list(grid.get_node_ids())) < len(self._names) and time.monotonic() < until:
                self._look()
                time.sleep(POLL_SECONDS)
            return grid
        raise Unavailable(f"Flower's simulation did not start within {START_SECONDS:.0f} s", "use fewer workers")

    def _look(self) -> None:
        """Raise Unavailable where Flower's simulation has ended by itself."""
        if self._simulation is not None and not self._simulation.is_alive():
            why = f": {self._failure}" if self._failure else ""
            raise Unavailable(f"Flower's simulation on Ray ended{why}", "look at docs/scale-out.md, then resume")

    def _why_lost(self, site: str, reason: str) -> str:
        """Why a worker gave no answer. Raises Unavailable unless it died."""
        died = _DIED.match(reason)
        if died is None:
            first = reason.strip().splitlines()[0][:300]
            raise Unavailable(f"site '{site}' could not be trained on Ray: {first}", "look at docs/scale-out.md")
        self._wounded = True
        return f"its Ray worker ended ({died.group(1)})"

    def _heal(self) -> None:
        """After a worker died: wait until Ray has started it again, as a message to one that starts is lost."""
        if not self._wounded:
            return
        from ray._private.state import actors

        until = time.monotonic() + RESTART_SECONDS
        while any(actor["State"] not in ("ALIVE", "DEAD") for actor in actors().values()):
            if time.monotonic() > until:
                raise Unavailable("a Ray worker died and did not start again", "look at docs/scale-out.md, then resume")
            time.sleep(0.1)
        self._wounded = False


def learned_of(parts: Sequence[bytes]) -> tuple[Update, Memory]:
    """What the parts of ``learn_part`` say. Raises Unavailable with the worker's words where training failed."""
    about = json.loads(parts[0])
    if "error" in about:
        raise Unavailable(about["error"], about["hint"])
    tensors = load(parts[1])
    memory = {name.removeprefix("memory."): array for name, array in tensors.items() if name != UPDATE}
    return Update(tensors[UPDATE], float.fromhex(about["weight"]), about["steps"]), memory


def _whole(examples: Examples) -> Examples:
    """Examples whose features are in memory and not mapped from a file that another machine may not have."""
    features = np.ascontiguousarray(examples.features)
    return Examples(features, examples.targets, examples.patient, examples.patients)


@contextmanager
def _quiet() -> Iterator[None]:
    """Flower says nothing while the block runs, to nobody: errors reach the user in two lines."""
    import flwr.supercore.telemetry as telemetry

    # Read from the environment at the first import, which another part of the program may have done before.
    vars(telemetry)["FLWR_TELEMETRY_ENABLED"] = QUIET["FLWR_TELEMETRY_ENABLED"]
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
