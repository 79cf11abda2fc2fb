"""Ray on this machine or on a cluster that runs already, without anything that a study must not do.

On one machine every socket of Ray's is bound to the loopback interface and asks for a token that ends with this
process; logs and spilled objects lie in a folder that only this user reads and that is deleted. Usage statistics are
never sent and no dashboard is served.
"""

import logging
import os
import secrets
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import ip_address
from tempfile import TemporaryDirectory
from typing import Any, Final

from wardround.protocol.errors import Unavailable, UsageError

QUIET: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""What Ray's and Flower's processes are told on every machine; the last spares the user a warning."""

ALONE: Final = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
"""On one machine. The first is Ray's switch between the host's address and the loopback one, on Linux too."""


@dataclass(frozen=True, slots=True)
class Workers:
    """Who trains: ``count`` processes of ``threads`` threads each on this machine (None: as many as its cores allow).

    ``cluster`` is the address (host:port) of a Ray cluster that runs already, with as many workers as its cores allow.
    """

    count: int | None = None
    threads: int = 1
    cluster: str | None = None


HERE: Final = Workers()

REACH_SECONDS: Final = 10.0


def check_workers(workers: Workers) -> None:
    """Raise UsageError where Ray is not installed or the terms contradict each other."""
    if find_spec("ray") is None:
        raise UsageError(
            "simulation.engine=flower needs Ray, which is not installed",
            "pip install 'wardround[ray]', or use simulation.engine=auto",
        )
    if workers.cluster is not None and workers.count is not None:
        raise UsageError(
            "a Ray cluster has as many workers as its cores allow", "leave out simulation.workers or simulation.cluster"
        )


@contextmanager
def connected(workers: Workers) -> Iterator[None]:
    """Ray while the block runs.

    Raises:
        UsageError: this process uses Ray already.
        Unavailable: Ray does not start, the cluster is not reached, or Ray would listen beyond the loopback interface.
    """
    check_workers(workers)
    alone, before = workers.cluster is None, dict(os.environ)
    os.environ.update(QUIET)
    if alone:
        os.environ.update(ALONE)
        os.environ.pop("RAY_ADDRESS", None)
        os.environ["RAY_AUTH_TOKEN"] = _TOKEN
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
            _start(workers, folder)
            import ray

            try:
                yield
            finally:
                ray.shutdown()
    finally:
        _restore(before, handler)


_TOKEN: Final = secrets.token_hex(32)
"""Who may talk to the Ray of this process."""


def _start(workers: Workers, folder: str) -> None:
    import ray
    from ray._private import ray_constants
    from ray._private.authentication_test_utils import reset_auth_token_state

    if ray.is_initialized():
        raise UsageError("this process uses Ray already", "call ray.shutdown() before the simulation")
    alone = workers.cluster is None
    if workers.cluster is not None:
        _check_reached(workers.cluster)
    # Ray reads its words in the environment when it is imported, which may have been before they were set.
    vars(ray_constants)["ENABLE_RAY_CLUSTER"] = not alone
    reset_auth_token_state()
    terms: dict[str, Any] = {"logging_level": logging.CRITICAL, "log_to_driver": False}
    if alone:
        count = workers.count or max(1, (os.cpu_count() or 1) // workers.threads)
        terms |= {"num_cpus": count * workers.threads, "include_dashboard": False, "_temp_dir": folder}
    try:
        _init(workers.cluster, terms)
    except Exception as error:  # Ray raises a bare one when its own processes are slow to start
        ray.shutdown()
        where = "on this machine" if alone else f"at {workers.cluster}"
        raise Unavailable(
            f"Ray {where} was not reached: {first_line(error)}",
            "look at docs/scale-out.md, or use simulation.engine=sites",
        ) from None
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    if alone and not ip_address(address).is_loopback:
        ray.shutdown()
        raise Unavailable("Ray would listen beyond this machine", "this is a defect: report it with Ray's version")


def _init(cluster: str | None, terms: dict[str, Any]) -> None:
    """Start or join Ray. On this machine a second try is made: Ray gives its processes 30 seconds, busy or not."""
    import ray

    try:
        ray.init(address=cluster, **terms)
    except Exception:
        if cluster is not None:
            raise
        ray.shutdown()
        ray.init(**terms)


def _check_reached(cluster: str) -> None:
    """Ask once whether anybody listens: Ray would try for minutes. Raises UsageError or Unavailable."""
    host, colon, port = cluster.rpartition(":")
    if not (host and colon and port.isdecimal() and int(port) < 65536):
        raise UsageError(f"'{cluster}' is no address of a Ray cluster", "write simulation.cluster=HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except OSError as error:
        raise Unavailable(
            f"no Ray cluster was reached at {cluster}: {error.strerror or 'no answer'}",
            "start it as docs/scale-out.md says, or leave out simulation.cluster",
        ) from None


def _restore(before: Mapping[str, str], handler: Any) -> None:
    """Ray leaves its words in the environment and a handler of its own for the signal that ends a process."""
    for name in [name for name in os.environ if name not in before]:
        del os.environ[name]
    os.environ.update(before)
    try:
        signal.signal(signal.SIGTERM, handler)
    except ValueError:
        return  # not the main thread: Ray has set none


def first_line(error: BaseException) -> str:
    """What an error is and the first line of what it says, as a message to a user has room for."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
