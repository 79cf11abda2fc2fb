"""The daemon's side of a stock SuperNode in process isolation: takes its tasks and lets the desk answer them.

A bundle is compared and never unpacked: its bytes must be the one thin bundle of the plan that the message names.
Nothing of an error leaves but one of three words.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import httpx
from flwr.app import Context, Error, Message
from flwr.common.constant import ErrorCode, SubStatus
from flwr.common.serde import context_from_proto, fab_from_proto, run_from_proto
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, pull_and_inflate_object_from_tree
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.runtime.run_clientapp import push_message, push_task_output

from wardround.client.flower.packets import packed, unpacked
from wardround.protocol.fab import FAB_NAME, PUBLISHER, thin_fab
from wardround.protocol.messages import RefusalCode
from wardround.protocol.outgoing import Outgoing, bytes_to_send

BUSY_POLL: Final = 0.12
IDLE_POLL: Final = 1.0
BUSY_SECONDS: Final = 30.0
"""After a message the next one is looked for often for so long."""

HEARTBEAT_SECONDS: Final = 2.0
"""How soon a stopped run is noticed, too."""

WAIT_SECONDS: Final = 5.0
"""While a message's objects are on their way, how often it is asked whether its task is still there."""

_PROTECTED: Final = frozenset({"/flwr.proto.Runtime/AcquireTask"})

log = logging.getLogger(__name__)

Answer = Callable[[str, str, Sequence[bytes]], Sequence[Outgoing]]
"""(exchange, plan, requests) -> answers."""

Refuse = Callable[[str, str], Outgoing]
"""(plan, reason) -> a refusal, noted at the site."""


class Executor:
    """Polls one SuperNode's runtime service on loopback.

    Args:
        answer: the desk.
        refuse: what answers a message that never comes to the desk.
        run_ended: called when the SuperNode says that the task which is being worked on is over.
    """

    def __init__(self, port: int, secret: bytes, answer: Answer, refuse: Refuse, run_ended: Callable[[], None]) -> None:
        self._address = f"127.0.0.1:{port}"
        self._answer = answer
        self._refuse = refuse
        self._run_ended = run_ended
        self._version = RuntimeVersionHttpInterceptor(component_name="wardround-site")
        signed = SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=_PROTECTED)
        self._client = RuntimeHttpClient.from_server_address(self._address, True, None, [self._version, signed])
        self.connected = False
        self._said = ""

    def run(self, stopping: Callable[[], bool]) -> None:
        """Answer tasks until ``stopping``. A SuperNode that is away is waited for."""
        busy_until = 0.0
        while not stopping():
            try:
                if self.once():
                    busy_until = time.monotonic() + BUSY_SECONDS
                    continue
                self.connected, self._said = True, ""
            except (httpx.HTTPError, RunNotRunningException) as error:
                self._away(error)
            time.sleep(BUSY_POLL if time.monotonic() < busy_until and self.connected else IDLE_POLL)
        self._client.close()

    def _away(self, error: BaseException) -> None:
        """Say once why the SuperNode cannot be worked with."""
        status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
        why = type(error).__name__ if status is None else f"refused with {status}"
        if why != self._said:
            log.warning("link not usable reason=%s", why)
        self._said, self.connected = why, False

    def once(self) -> bool:
        """Take and answer one task; False when none waits."""
        answer = self._client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP.value]))
        if not answer.HasField("task") or not answer.token:
            return False
        if answer.task.type != TaskType.CLIENT_APP.value:
            log.warning("task of another type type=%s", answer.task.type)
            return False
        interceptors: list[Any] = [self._version, RuntimeTokenHttpInterceptor(answer.token)]
        client = RuntimeHttpClient.from_server_address(self._address, True, None, interceptors)
        beating = _Heartbeat(self._address, interceptors, self._run_ended)
        beating.start()
        try:
            self._work(client, beating)
        except TaskOver:
            log.info("task over before its message was here")
        finally:
            beating.stop()
            client.close()
        return True

    def _work(self, client: RuntimeHttpClient, beating: "_Heartbeat") -> None:
        message, context, run, fab = task_input(client, beating)
        try:
            reply = Message(packed(*self._answers(message, run, fab)), reply_to=message)
            status = SubStatus.COMPLETED
        except Exception as error:  # whatever it is, its text stays here
            log.error("message failed type=%s error=%s", message.metadata.message_type, type(error).__name__)
            if log.isEnabledFor(logging.DEBUG):
                log.debug("message failed", exc_info=error)
            reply = Message(
                Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, RefusalCode.UNAVAILABLE.value), reply_to=message
            )
            status = SubStatus.FAILED
        push_message(client, reply, context)
        push_task_output(client, None, status, "")

    def _answers(self, message: Message, run: Run, fab: Fab) -> tuple[str, list[bytes]]:
        plan = ""
        try:
            if not message.has_content():
                raise ValueError("a message without content")
            plan, requests = unpacked(message.content)
        except ValueError:
            return plan, [bytes_to_send(self._refuse("", "it sent a message that is no packet of this protocol"))]
        if (fault := bundle_fault(plan, run, fab)) is not None:
            return plan, [bytes_to_send(self._refuse(plan, fault))]
        return plan, [bytes_to_send(one) for one in self._answer(message.metadata.message_type, plan, requests)]


class TaskOver(Exception):
    """The SuperNode has given a task up before its message was whole."""


def task_input(client: RuntimeHttpClient, beating: "_Heartbeat") -> tuple[Message, Context, Run, Fab]:
    """Message, context, run and bundle of a task, as Flower's ``pull_task_input``, which waits for ever.

    A task is there before its message is; one whose run has ended in between never gets it.

    Raises:
        TaskOver: the SuperNode says that the task is over, or has no message for it.
    """
    given = client.PullTaskInput(PullTaskInputRequest())
    TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, given.run.run_id
    TaskIdentity.node_id = given.context.node_id
    context = context_from_proto(given.context)
    found = client.PullMessages(PullAppMessagesRequest())
    if not found.messages_list:
        raise TaskOver
    node, tree = Node(node_id=context.node_id), found.message_object_trees[0]
    while True:
        try:
            message = pull_and_inflate_object_from_tree(
                tree,
                make_pull_object_fn_protobuf(client.PullObject, node, context.run_id),
                make_confirm_message_received_fn_protobuf(client.ConfirmMessageReceived, node, context.run_id),
                return_type=Message,
                max_time=WAIT_SECONDS,
                initial_backoff=0.2,
            )
            break
        except ObjectPullError:
            if beating.over:
                raise TaskOver from None
    message.metadata.__dict__["_message_id"] = tree.object_id
    return message, context, run_from_proto(given.run), fab_from_proto(given.fab)


def bundle_fault(plan: str, run: Run, fab: Fab) -> str | None:
    """What is wrong with the bundle that a message of ``plan`` came with, or None."""
    try:
        expected = thin_fab(plan)
    except ValueError:
        return "it sent a message that names no plan"
    if not hashlib.sha256(fab.content).hexdigest() == fab.hash_str == run.fab_hash:
        return "it sent a bundle with another hash than its run names"
    if fab.content != expected:
        return "it sent a bundle that is not the one of the plan"
    if run.override_config:
        return "it sent a run with overrides"
    if run.fab_id != f"{PUBLISHER}/{FAB_NAME}":
        return "it sent a run of another app"
    return None


class _Heartbeat(threading.Thread):
    """Keeps a task alive; Flower's own sender would interrupt this whole process when a task is over."""

    def __init__(self, address: str, interceptors: Sequence[Any], over: Callable[[], None]) -> None:
        super().__init__(daemon=True, name="task-heartbeat")
        self._client = RuntimeHttpClient.from_server_address(address, True, None, interceptors)
        self._tell = over
        self.over = False
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            try:
                if not self._client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success:
                    self._end()
                    return
            except httpx.HTTPStatusError as error:
                if error.response.status_code in (401, 403, 404):
                    self._end()
                    return
            except (httpx.HTTPError, RunNotRunningException):
                continue

    def _end(self) -> None:
        self.over = True
        self._tell()

    def stop(self) -> None:
        self._ended.set()
        self.join(timeout=5.0)
        self._client.close()
