"""A hospital that is killed: started with ``shim.c`` in front of the C library, it forks a child for each job.

Jobs are lines of JSON on standard input: ``what`` to do (``create`` the folder, or ``serve`` the requests of a
coordinator that asks again), in which ``folder``, with which ``log`` outside it, to be killed ``at`` which point (0:
never) in which ``mode``, with which ``fault`` built in (to see that the tests notice). The log holds what an observer
outside would know: each draw of patients that began, and each answer that left. Answers are lines of JSON: how the
child ended, and how many points it passed.
"""

import ctypes
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import alembic.command  # noqa: F401 - loaded before the forks, so that no child waits for it
import numpy as np
import sqlalchemy.dialects.sqlite  # noqa: F401
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wardround.client import learning as learning_module
from wardround.client.connectors.cohort import make_cohort
from wardround.client.governance import grant_for, open_domain
from wardround.client.site import Site
from wardround.client.store.database import open_store
from wardround.client.store.folder import SiteFolder
from wardround.client.store.ledger import Ledger
from wardround.client.store.replies import StoredReplies
from wardround.client.store.witness import Witness
from wardround.client.tasks import task_from
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.protocol.identity import Identity
from wardround.protocol.ledger import OpenSum, approve
from wardround.protocol.messages import LocalRule, Refusal, RoundRequest
from wardround.protocol.outgoing import bytes_to_send, outgoing, parse_answer
from wardround.protocol.parameters import initial_weights, model_hash
from wardround.protocol.witness import verified_seen
from wardround.strategies import strategy_from

ROUNDS, ATTEMPTS, PATIENTS = 3, 4, 60
PATIENCE = 120.0
"""Seconds after which a child counts as stuck."""

TODAY = date(2026, 11, 23)
PLAN = make_plan(parse_configuration(compose_configuration([])), {"north": 50, "a": 50, "b": 50}, TODAY)
TASK = task_from(PLAN)
STRATEGY = strategy_from(PLAN.strategy)
START = initial_weights(PLAN.layout, PLAN.model.scheme, PLAN.model.seed)
WIDTH = len(PLAN.contract.feature_names)
VALUES = np.random.default_rng(7)
COHORT = make_cohort(
    "north",
    VALUES.normal(size=(PATIENTS, WIDTH)),
    VALUES.integers(0, 2, PATIENTS),
    test=np.arange(PATIENTS) % 5 == 0,
)
ANNA, BEN, SOUTH = (
    Identity(name, Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)))
    for number, name in enumerate(("anna", "ben", "south"), start=1)
)


def request(number: int, attempt: int) -> RoundRequest:
    model = START if number == 1 else START + np.float32(number)
    return RoundRequest(PLAN.digest, number, attempt, model, model_hash(model), LocalRule(PLAN.local.learning_rate))


class Log:
    """Lines that survive the process, outside the folder that is watched."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, **fact: Any) -> None:
        os.write(self._file, json.dumps(fact).encode() + b"\n")


def create(folder: Path, log: Log, point: Callable[[], None]) -> None:
    """As ``wardround site init``, then the officers' first two signatures."""
    site = SiteFolder.create(folder, "north", [ANNA.public, BEN.public])
    point()
    ledger, key = site.ledger(), site.identity().public.key.hex()
    ledger.record(approve(open_domain("training", 12.0, 1e-4), key, ANNA))
    point()
    ledger.record(approve(grant_for(PLAN, "north", attempts=ATTEMPTS), key, ANNA))
    log.note(created=True)


def serve(folder: Path, log: Log, point: Callable[[], None]) -> None:
    """Start, settle what a crash left, answer each round until it is answered, and have the head countersigned."""
    home = SiteFolder.open(folder)
    ledger = home.ledger(lambda: datetime.now(UTC))
    replies = StoredReplies(ledger._store, "north", home.replies_key())
    witness = Witness(open_store(folder / "south.sqlite"), SOUTH)
    real = learning_module.train_private

    def watched(*arguments: Any, **named: Any) -> Any:
        log.note(drawn=True)
        point()
        return real(*arguments, **named)

    learning_module.train_private = watched
    site = Site(PLAN, COHORT, TASK, STRATEGY, ledger, replies=replies)
    site.recover()
    point()
    for number in range(1, ROUNDS + 1):
        for attempt in (1, 1, 2, 3, 4):
            work = site.work(request(number, attempt), TODAY)
            while True:
                try:
                    next(work)
                    point()
                except StopIteration as ended:
                    answer = bytes_to_send(ended.value)
                    break
            refused = isinstance(parse_answer(answer, "north"), Refusal)
            log.note(round=number, attempt=attempt, refused=refused, bytes=answer.hex())
            point()
            if not refused and attempt == 2:
                break
        countersigned(ledger, home, witness, point)
    log.note(finished=True)


def countersigned(ledger: Ledger, home: SiteFolder, witness: Witness, point: Callable[[], None]) -> None:
    public, nonce = home.identity().public, os.urandom(32)
    seen = verified_seen(witness.seen("north", nonce), public, SOUTH.public, nonce)
    checkpoint, proof = ledger.offer(0 if seen is None else seen.head.size)
    point()
    note = witness.cosign(checkpoint, proof, public)
    point()
    ledger.countersign(note, SOUTH.public)


log_path: list[str] = []
"""Of the job, for a fault that writes to it."""


def break_on_purpose(fault: str) -> None:
    """Make this process a site as it must not be."""
    from wardround.client.store import folder, ledger
    from wardround.protocol.ledger import TRANSITIONS, BlockState

    if fault == "commits are not synced":
        real = open_store

        def unsynced(path: Path | None) -> Any:
            store = real(path)
            store.execute("PRAGMA synchronous = OFF")
            return store

        folder.open_store = unsynced  # type: ignore[assignment]
    elif fault == "a crash gives the charge back":
        TRANSITIONS[BlockState.RUNNING, "cancel"] = BlockState.CANCELLED
        ledger.Abandon = ledger.Cancel  # type: ignore[misc, assignment]
    elif fault == "an answer leaves before it is kept":
        work = Site._release

        def early(self: Site, request: RoundRequest, reply: Any) -> Any:
            Log(str(log_path[0])).note(round=request.round_number, attempt=request.attempt, refused=False,
                                       bytes=outgoing(reply).content.hex())  # fmt: skip
            return work(self, request, reply)

        Site._release = early  # type: ignore[method-assign]
    elif fault == "an opening leaves before it is in the ledger":
        record = Ledger.record

        def late(self: Ledger, *facts: Any, **named: Any) -> None:
            if not any(isinstance(fact, OpenSum) for fact in facts):
                record(self, *facts, **named)

        Ledger.record = late  # type: ignore[method-assign]
    elif fault:
        raise ValueError(fault)


def child(job: dict[str, Any], shim: ctypes.CDLL) -> None:
    """Do the job and end the process; never returns."""
    code = 1
    try:
        log_path.append(job["log"])
        break_on_purpose(job["fault"])
        shim.crash_arm(job["folder"].encode(), ctypes.c_long(job["at"]), job["mode"])
        jobs = {"create": create, "serve": serve, "found": aggregate.found, "aggregate": aggregate.aggregate}
        jobs[job["what"]](Path(job["folder"]), Log(job["log"]), shim.crash_point)
        Path(job["log"]).with_suffix(".points").write_text(str(shim.crash_points()))
        code = 0
    except BaseException as error:
        Path(job["log"]).with_suffix(".error").write_text(f"{type(error).__name__}: {error}")
    finally:
        os._exit(code)


def main() -> None:
    shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
    shim.crash_points.restype = ctypes.c_long
    print(json.dumps({"torch": "torch" in sys.modules}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        started, pid = time.monotonic(), os.fork()
        if pid == 0:
            child(job, shim)
        ended = 0
        while not ended and time.monotonic() - started < PATIENCE:
            ended, status = os.waitpid(pid, os.WNOHANG)
            time.sleep(0.002)
        if not ended:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        how = "stuck" if not ended else "killed" if os.WIFSIGNALED(status) else f"code {os.WEXITSTATUS(status)}"
        print(json.dumps({"how": how}), flush=True)


if __name__ == "__main__":
    sys.modules["hospital"] = sys.modules["__main__"]
    import aggregate

    main()
