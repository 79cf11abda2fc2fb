"""One study's process at the coordinator: takes the place of Flower's ServerApp process and runs the conductor.

Run by the supervisor as ``python -m wardround.server.flower.task FOLDER``, with the task's token on standard input, so
that no other user of the machine sees it. The bundle is compared and never unpacked.
"""

import hashlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from enum import IntEnum
from pathlib import Path
from typing import Final

import httpx
from flwr.common.constant import SubStatus
from flwr.common.serde import fab_from_proto, run_from_proto
from flwr.proto.runtime_pb2 import PullTaskInputRequest, PushTaskOutputRequest, SendTaskHeartbeatRequest
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from wardround.protocol.errors import Unavailable, UsageError, WardroundError
from wardround.protocol.fab import fab_hash
from wardround.protocol.roster import Roster
from wardround.server.conductor import Conductor, Progressing, Stopped, Wanted
from wardround.server.flower.grid import FlowerCarrier
from wardround.server.folder import CoordinatorFolder
from wardround.server.store.checkpoint import write_checkpoint
from wardround.server.store.registry import Registry
from wardround.server.store.studies import StudyFolder

HEARTBEAT_SECONDS: Final = 10.0

BYTES_OF_ONE: Final = 32
"""Of one parameter in an answer: four vectors in double precision, more than any strategy sends."""

BYTES_BESIDE: Final = 64 << 20
"""Of everything else in an answer: the shares for a stock of a thousand rounds among fifty sites are less."""

log = logging.getLogger(__name__)


class Ended(IntEnum):
    """Exit codes of a study's process."""

    FINISHED = 0
    STOPPED = 3
    NEEDS_PEOPLE = 4
    AGAIN = 75


STATUS: Final = {Ended.FINISHED: SubStatus.COMPLETED, Ended.STOPPED: SubStatus.STOPPED}
"""What Flower is told of a run; a site that trains hears of a stop only."""


def main() -> None:
    """Run the study of the task whose token comes on standard input."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    folder = CoordinatorFolder.open(Path(sys.argv[1]))
    token = sys.stdin.readline().strip()
    sys.exit(run_task(folder, token))


def run_task(folder: CoordinatorFolder, token: str) -> Ended:
    """Run the study that the task names, to its end or to what ends it."""
    grid = HttpGrid(f"127.0.0.1:{folder.runtime_port}", insecure=True, token=token)
    client = grid._runtime_client
    threading.Thread(target=_beat, args=(grid,), daemon=True).start()
    task = client.PullTaskInput(PullTaskInputRequest())
    run, fab = run_from_proto(task.run), fab_from_proto(task.fab)
    grid.set_run(run)
    TaskIdentity.task_id, TaskIdentity.run_id = task.task_id, run.run_id
    TaskIdentity.node_id = task.context.node_id
    registry = Registry(folder.database)
    ended, note = Ended.AGAIN, ""
    plan = next((p for p in registry.plans() if fab_hash(p.digest) == hashlib.sha256(fab.content).hexdigest()), None)
    if plan is None:
        log.error("a run without a study run=%d", run.run_id)
        client.PushTaskOutput(PushTaskOutputRequest(sub_status=SubStatus.FAILED, details="unknown bundle"))
        return Ended.NEEDS_PEOPLE
    study = StudyFolder.create(folder.studies, plan)
    registry.took(plan.digest, run.run_id, os.getpid())
    told = _Telling(study.path / "status.json")

    def nodes() -> Mapping[str, int]:
        return registry.nodes()

    def roster() -> Roster | None:
        return registry.roster()

    def wanted() -> Wanted:
        return Wanted(registry.wanted(plan.digest))

    try:
        most = BYTES_OF_ONE * plan.layout.size + BYTES_BESIDE
        carrier = FlowerCarrier(grid, run, plan.digest, nodes, study.path, most)
        Conductor(study, folder.identity(), roster, carrier, wanted, told, installed=folder.weights).run()
        ended = Ended.FINISHED
    except Stopped:
        ended = Ended.STOPPED
    except Unavailable as error:
        ended, note = (Ended.AGAIN if error.message == "the run was ended" else Ended.NEEDS_PEOPLE), error.message
        log.error("study=%s %s", plan.study, error.message)
    except UsageError as error:
        ended, note = Ended.NEEDS_PEOPLE, error.message
        log.error("study=%s %s", plan.study, error.message)
    except (WardroundError, httpx.HTTPError) as error:
        log.error("study=%s error=%s", plan.study, error)
    if ended is not Ended.AGAIN:
        registry.ended(plan.digest, ended.name.lower(), note)
    try:
        status = STATUS.get(ended, SubStatus.FAILED)
        client.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=""))
    except (httpx.HTTPError, RuntimeError) as error:
        log.info("task output not taken error=%s", type(error).__name__)
    return ended


class _Telling:
    """Writes what people see of the study, at most twice a second."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0.0

    def __call__(self, seen: Progressing) -> None:
        now = time.monotonic()
        if now - self._at > 0.5 or seen.state in ("finished", "stopped"):
            self._at = now
            body = asdict(seen) | {"at": time.time(), "pid": os.getpid()}
            write_checkpoint(self._path, json.dumps(body).encode())


def _beat(grid: HttpGrid) -> None:
    while True:
        time.sleep(HEARTBEAT_SECONDS)
        try:
            grid._runtime_client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
        except (httpx.HTTPError, RuntimeError) as error:
            log.info("heartbeat not taken error=%s", type(error).__name__)


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(Ended.AGAIN)


if __name__ == "__main__":
    main()
