"""The stock SuperNode under a wrapper: it ends when it can work no more, and hears when its run was stopped.

Flower's SuperNode stays alive, and its health check green, after an unexpected answer has taken it offline, and nobody
tells a site that a run was stopped. The wrapper ends the process in the first case, so that the supervisor starts it
anew, and marks the task as over in the second, so that the daemon stops at its next step. It also looks for the
daemon's answer sooner than every half second, which three exchanges a round would wait for.

Run as ``python -m wardround.client.flower.supernode`` with the options of ``flower-supernode``.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from flwr.common.constant import Status, SubStatus
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

EXIT_OFFLINE: Final = 75
"""EX_TEMPFAIL: try again later."""

WATCH_SECONDS: Final = 3.0

SILENT_SECONDS: Final = 90.0
"""A SuperNode that pulls and whose heartbeat has failed for so long is taken for dead by the SuperLink."""

FLOWERS_WAIT: Final = 0.5
"""Seconds between two looks of Flower's for the daemon's answer, and for each object of it."""

SOON: Final = 0.03
SOON_SECONDS: Final = 5.0
"""A look every ``SOON`` seconds for so long after a message came; who trains for longer is asked as Flower does."""

log = logging.getLogger(__name__)


class Impatient:
    """``time`` as Flower's loop sees it: its wait for an answer is short while the answer may be there soon."""

    def __init__(self) -> None:
        self._pulled = time.monotonic()

    def pulled(self) -> None:
        """A message came."""
        self._pulled = time.monotonic()

    def sleep(self, seconds: float) -> None:
        soon = seconds == FLOWERS_WAIT and time.monotonic() - self._pulled < SOON_SECONDS
        time.sleep(SOON if soon else seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class Pulse:
    """When the SuperLink last answered a pull and a heartbeat of this process, on the monotonic clock."""

    def __init__(self) -> None:
        self.pulled = self.beaten = time.monotonic()

    def listen(self) -> None:
        """Note the time of every answer from now on."""
        pull, beat = FleetHttpClient.PullMessages, FleetHttpClient.SendNodeHeartbeat

        def pulled(client: FleetHttpClient, request: Any) -> Any:
            answer = pull(client, request)
            self.pulled = time.monotonic()
            return answer

        def beaten(client: FleetHttpClient, request: Any) -> Any:
            answer = beat(client, request)
            self.beaten = time.monotonic()
            return answer

        FleetHttpClient.PullMessages = pulled  # type: ignore[method-assign,assignment]
        FleetHttpClient.SendNodeHeartbeat = beaten  # type: ignore[method-assign,assignment]

    @property
    def offline(self) -> bool:
        """Whether the network works and the heartbeat does not: nothing here will mend that."""
        return self.pulled - self.beaten > SILENT_SECONDS


class StopWatch(threading.Thread):
    """While a task runs, asks the SuperLink whether its run was stopped, and if so ends the task here."""

    def __init__(self, options: dict[str, Any], pulse: Pulse, leave: Callable[[int], None] = os._exit) -> None:
        super().__init__(daemon=True, name="stop-watch")
        self._options = options
        self._pulse = pulse
        self._leave = leave
        self._parent = os.getppid()
        self._client: Any = None

    def run(self) -> None:
        while True:
            time.sleep(WATCH_SECONDS)
            if self._pulse.offline or os.getppid() != self._parent:
                self._leave(EXIT_OFFLINE)
            try:
                self._look()
            except Exception as error:  # the watch outlives whatever the network does
                log.debug("stop watch error=%s", type(error).__name__)
                self._close()

    def _look(self) -> None:
        state = self._options["state_factory"].state()
        for task in state.get_tasks(statuses=[Status.RUNNING]):
            if self._stopped(task.run_id, state.get_node_id()):
                state.finish_task(task.task_id, sub_status=SubStatus.STOPPED, details="")

    def _stopped(self, run_id: int, node_id: int) -> bool:
        answer = self._open().GetRun(GetRunRequest(node=Node(node_id=node_id), run_id=run_id))
        return bool(answer.run.status.sub_status == SubStatus.STOPPED)

    def _open(self) -> Any:
        if self._client is None:
            options = self._options
            interceptors: list[Any] = [RuntimeVersionHttpInterceptor(component_name="SuperNode")]
            if options["authentication_keys"] is not None:
                interceptors.append(NodeAuthHttpInterceptor(*options["authentication_keys"]))
            self._client = FleetHttpClient.from_server_address(
                options["server_address"], options["insecure"], options["root_certificates"], interceptors
            )
        return self._client

    def _close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def without_orphans(pull: Callable[..., int | None], came: Callable[[], None]) -> Callable[..., int | None]:
    """Flower's pull of one message, without the task that it leaves when the run ends in the middle of it.

    ``came`` is called after each pull.

    Nobody would ever fetch the objects of that task's message, and whoever took it would wait for them for ever.
    """

    def pulled(*, state: Any, **options: Any) -> int | None:
        before = {task.task_id for task in state.get_tasks()}
        run_id = pull(state=state, **options)
        came()
        if run_id is None:
            for task in state.get_tasks():
                if task.task_id not in before:
                    state.finish_task(task.task_id, sub_status=SubStatus.FAILED, details="")
        return run_id

    return pulled


def main() -> None:
    """Start the SuperNode of this process's command line; ends the process when its loop has ended."""
    # The package exports a function of the same name, so the module is named in full.
    stock = import_module("flwr.supernode.cli.flower_supernode")
    started: Callable[..., None] = stock.start_client_internal
    pulse = Pulse()
    pulse.listen()

    def start(**options: Any) -> None:
        StopWatch(options, pulse).start()
        try:
            started(**options)
        finally:
            # Whatever ended the loop, this process receives nothing any more; other threads would keep it alive.
            sys.stderr.flush()
            ending = threading.Timer(5.0, os._exit, (EXIT_OFFLINE,))
            ending.daemon = True
            ending.start()

    vars(stock)["start_client_internal"] = start
    inner = import_module("flwr.supernode.start_client_internal")
    clock = Impatient()
    vars(inner)["time"] = clock
    vars(inner)["_pull_and_store_message"] = without_orphans(inner._pull_and_store_message, clock.pulled)
    stock.flower_supernode()
    os._exit(EXIT_OFFLINE)


if __name__ == "__main__":
    main()
