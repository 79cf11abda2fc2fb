"""The command line's side of the control socket: calls, and a daemon's refusals as two lines."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import grpc

from wardround.client.control import control_pb2_grpc as rpc
from wardround.client.settings import SETTINGS, read_settings
from wardround.protocol.errors import Unavailable, UsageError, WardroundError

SOCKET: Final = "control.sock"
SECONDS: Final = 60.0

_OURS: Final = (
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INTERNAL,
)


@contextmanager
def control(folder: Path) -> Iterator[Any]:
    """The control service of the daemon of the site's ``folder``, or at a socket that another user may reach.

    Raises:
        Unavailable: no daemon answers there, or this user may not use it.
        UsageError: the daemon refused what was asked.
    """
    path = socket_of(folder)
    if path is None:
        raise Unavailable(f"no daemon runs for '{folder}'", "start it: wardround site start FOLDER")
    # A coordinator that proposes long plans must not make their list too long to be read: nobody could revoke.
    options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1)]
    try:
        with grpc.insecure_channel(f"unix:{path}", options=options) as channel:
            yield rpc.SiteStub(channel)  # type: ignore[no-untyped-call]
    except grpc.RpcError as error:
        raise _explained(error) from None


def socket_of(folder: Path) -> Path | None:
    """The socket of the site's daemon: ``folder`` itself, in it, or where its settings say. None: there is none.

    Raises:
        Unavailable: this user may not look into the folder.
    """
    try:
        if folder.is_socket():
            return folder.absolute()
        for path in ((folder / SOCKET).absolute(), *_set_elsewhere(folder)):
            if path.exists():
                return path
    except PermissionError:
        raise Unavailable(
            f"this user may not look into '{folder}'", "give the socket that 'socket' in site.yaml names instead"
        ) from None
    return None


def _set_elsewhere(folder: Path) -> list[Path]:
    if not (folder / SETTINGS).exists():
        return []
    socket = read_settings(folder).socket
    return [Path(socket).absolute()] if socket else []


def _explained(error: Any) -> WardroundError:
    message, _, hint = (error.details() or "").partition("\n")
    if error.code() in _OURS:
        return UsageError(message or "the daemon refused", hint or "see its log")
    if hint:
        return Unavailable(message, hint)
    return Unavailable(
        "the daemon does not answer, or does not know this user", "see 'roles' in site.yaml, and its log"
    )
