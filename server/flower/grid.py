"""Exchanges of a study through Flower's Grid: messages pushed at once, answers pulled as they come.

The Grid's own ``send_and_receive`` sleeps three seconds and holds every answer in memory at the same time. Here the
poll is short while answers are due, objects are pushed a few at a time, and one answer is pulled (``answers``) and
handed on before the next.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import httpx
from flwr.app import Array, Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PushAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, push_objects
from flwr.supercore.run import Run, RunNotRunningException
from flwr.superlink.grid import HttpGrid

from wardround.protocol.errors import Unavailable
from wardround.protocol.incoming import Ask, ask_bytes
from wardround.protocol.outgoing import Stored
from wardround.server.carrier import Answered, Silent
from wardround.server.flower.answers import Puller
from wardround.server.flower.packets import packed, part_of

TTL_SECONDS: Final = 24 * 3600.0
POLL_SECONDS: Final = 0.05
"""Between two pulls; the coordinator's own SuperLink holds an empty one until something came."""

AGAIN_SECONDS: Final = 5.0
"""After an answer that Flower lost, the same requests are sent again so much later."""

AT_ONCE: Final = 2
"""Objects that are on their way to the SuperLink at the same time."""

log = logging.getLogger(__name__)


class FlowerCarrier:
    """A ``Carrier`` for one run.

    Args:
        nodes: gives the node number of each site that is registered now.
        folder: where a large answer lies while it is added up.
        most: bytes that one answer has at most.
    """

    def __init__(
        self, grid: HttpGrid, run: Run, plan: str, nodes: Callable[[], Mapping[str, int]], folder: Path, most: int
    ) -> None:
        self._grid = grid
        self._run = run
        self._plan = plan
        self._nodes = nodes
        self._folder = folder
        self._most = most

    def exchange(
        self,
        kind: str,
        asks: Mapping[str, Sequence[Ask]],
        seconds: float,
        give_up: Callable[[], bool] = lambda: False,
    ) -> Iterator[Answered | Silent]:
        until = time.monotonic() + seconds
        waiting: dict[str, str] = {}
        due = dict.fromkeys(asks, 0.0)
        why = dict.fromkeys(asks, "no answer before the deadline")
        while due or waiting:
            now = time.monotonic()
            if now >= until or give_up():
                break
            ready = [site for site, at in due.items() if at <= now]
            if ready:
                sent = self._push(kind, {site: asks[site] for site in ready}, until - now)
                for site in ready:
                    due.pop(site)
                    if site in sent:
                        waiting[sent[site]] = site
                    else:
                        due[site], why[site] = now + AGAIN_SECONDS, "it is not registered with the coordinator"
            for about, parts in self._pull(waiting):
                site = waiting.pop(about)
                if parts is None:
                    due[site], why[site] = time.monotonic() + AGAIN_SECONDS, "its connection was lost"
                else:
                    yield Answered(site, parts)
            time.sleep(min(POLL_SECONDS, max(until - time.monotonic(), 0.0)))
        for site in sorted({*due, *waiting.values()}):
            yield Silent(site, why[site])

    def _push(self, kind: str, asks: Mapping[str, Sequence[Ask]], seconds: float) -> dict[str, str]:
        """The message id by site. A request to several sites is made, held and pushed once."""
        nodes, made, messages, names = self._nodes(), dict[int, bytes | Array](), [], []
        for site, requests in asks.items():
            if site not in nodes:
                continue
            for request in requests:
                if id(request) not in made:
                    made[id(request)] = part_of(ask_bytes(request))
            content = packed(self._plan, [made[id(request)] for request in requests])
            messages.append(Message(content, nodes[site], kind, ttl=min(seconds + 60.0, TTL_SECONDS)))
            names.append(site)
        if not messages:
            return {}
        try:
            ids = self._sent(messages)
        except RunNotRunningException:
            raise Unavailable("the run was ended", "the coordinator opens another one for the same plan") from None
        return {site: id_ for site, id_ in zip(names, ids, strict=True) if id_}

    def _sent(self, messages: Sequence[Message]) -> list[str]:
        """Push messages and their objects: as the Grid does, which holds all objects as bytes at the same time."""
        client, objects = self._grid._runtime_client, dict[str, InflatableObject]()
        with no_object_id_recompute():
            for message in messages:
                message.metadata.__dict__["_message_id"] = message.object_id
                objects.update(get_all_nested_objects(message))
            pushed = client.PushMessages(
                PushAppMessagesRequest(
                    messages_list=[message_to_proto(remove_content_from_message(message)) for message in messages],
                    message_object_trees=[get_object_tree(message) for message in messages],
                )
            )
            push = make_push_object_fn_protobuf(
                client.PushObject, self._grid.node, self._run.run_id, session_id=pushed.session_id
            )
            wanted = set(pushed.objects_to_push)
            due = [object_id for object_id in objects if object_id in wanted]
            for first in range(0, len(due), AT_ONCE):
                push_objects({object_id: objects[object_id] for object_id in due[first : first + AT_ONCE]}, push)
        return list(pushed.message_ids)

    def _pull(self, waiting: Mapping[str, str]) -> Iterator[tuple[str, tuple[bytes | Stored, ...] | None]]:
        """(id of the message that is answered, its parts) of what has arrived; None: Flower says that it was lost."""
        if not waiting:
            return
        client = self._grid._runtime_client
        try:
            found = client.PullMessages(PullAppMessagesRequest(message_ids=list(waiting)))
        except RunNotRunningException:
            raise Unavailable("the run was ended", "the coordinator opens another one for the same plan") from None
        for message in found.messages_list:
            about = message.metadata.reply_to_message_id
            if about not in waiting:
                continue
            if message.HasField("error"):
                log.info("message lost site=%s code=%d", waiting[about], message.error.code)
                yield about, None
                continue
            try:
                yield about, self._parts(message.metadata.message_id)
            except (ValueError, OSError, ObjectPullError, httpx.HTTPError) as error:
                log.warning("answer not readable site=%s error=%s", waiting[about], type(error).__name__)
                yield about, None

    def _parts(self, message_id: str) -> tuple[bytes | Stored, ...]:
        client = self._grid._runtime_client
        pull = make_pull_object_fn_protobuf(client.PullObject, self._grid.node, self._run.run_id)
        plan, parts = Puller(pull, self._folder, self._most).answer(message_id)
        confirm = ConfirmMessageReceivedRequest(
            node=self._grid.node, run_id=self._run.run_id, message_object_id=message_id
        )
        client.ConfirmMessageReceived(confirm)
        if plan != self._plan:
            raise ValueError("an answer of another plan")
        return parts
