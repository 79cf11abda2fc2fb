"""The SuperLink's control and runtime services on loopback: nodes, runs, and the tasks that a coordinator may take."""

import logging
from dataclasses import dataclass
from typing import Final

import httpx
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fab_pb2 import Fab as FabProto
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.runtime import RuntimeHttpClient

from wardround.protocol.errors import Unavailable
from wardround.protocol.fab import thin_fab

_PROTECTED: Final = frozenset({"/flwr.proto.Runtime/AcquireTask"})

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Node:
    """A registered SuperNode: its number, its public key, and whether Flower has heard of it lately."""

    node_id: int
    public_key: bytes
    online: bool


@dataclass(frozen=True, slots=True)
class Task:
    """A ServerApp task that this coordinator has taken."""

    token: str
    run_id: int
    task_id: int


class SuperLinkControl:
    """Client of one SuperLink on loopback. Every method raises Unavailable when it does not answer."""

    def __init__(self, runtime_port: int, secret: bytes) -> None:
        address = f"127.0.0.1:{runtime_port}"
        version = RuntimeVersionHttpInterceptor(component_name="wardround-coordinator")
        self._control = ControlHttpClient.from_server_address(address, True, None, [version])
        signed = SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=_PROTECTED)
        self._runtime = RuntimeHttpClient.from_server_address(address, True, None, [version, signed])

    def register(self, node_key: str) -> int:
        """The node id of the SuperNode with this public key (OpenSSH line), registered if it was not."""
        key = public_key_bytes(node_key)
        for node in self.nodes():
            if node.public_key == key:
                return node.node_id
        with _reachable():
            return int(self._control.RegisterNode(RegisterNodeRequest(public_key=key)).node_id)

    def unregister(self, node_id: int) -> None:
        """The SuperNode of this number is refused from now on."""
        with _reachable():
            self._control.UnregisterNode(UnregisterNodeRequest(node_id=node_id))

    def nodes(self) -> list[Node]:
        """Every registered SuperNode."""
        with _reachable():
            found = self._control.ListNodes(ListNodesRequest()).nodes_info
        return [Node(n.node_id, bytes(n.public_key), n.status == "online") for n in found if n.status != "unregistered"]

    def start_run(self, plan: str) -> int:
        """Open a run for the plan with this digest; returns Flower's number of it."""
        content = thin_fab(plan)
        with _reachable():
            answer = self._control.StartRun(StartRunRequest(fab=FabProto(hash_str="", content=content)))
        if not answer.run_id:
            raise Unavailable("the SuperLink did not open a run", "see logs/superlink.log of the coordinator")
        return int(answer.run_id)

    def stop_run(self, run_id: int) -> None:
        """End a run: sites hear of it within seconds."""
        with _reachable():
            self._control.StopRun(StopRunRequest(run_id=run_id))

    def take(self) -> Task | None:
        """The next ServerApp task that waits, or None."""
        request = AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP.value])
        with _reachable():
            answer = self._runtime.AcquireTask(request)
        if not answer.HasField("task") or not answer.token:
            return None
        return Task(answer.token, answer.task.run_id, answer.task.task_id)

    def close(self) -> None:
        self._control.close()
        self._runtime.close()


def public_key_bytes(line: str) -> bytes:
    """Flower's bytes of an EC public key in OpenSSH form."""
    return public_key_to_bytes(load_ssh_public_key(line.encode()))  # type: ignore[arg-type]


class _reachable:
    """Turns what httpx raises into one of our errors."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, httpx.HTTPStatusError):
            text = error.response.text[:200]
            raise Unavailable(
                f"the SuperLink refused with {error.response.status_code}: {text}", "see logs/superlink.log"
            ) from error
        if isinstance(error, httpx.HTTPError):
            raise Unavailable(
                f"the SuperLink does not answer ({type(error).__name__})", "is 'wardround coordinator start' running?"
            ) from error
