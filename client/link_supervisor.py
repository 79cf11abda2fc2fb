"""Keeps a site's SuperNode running: starts it, starts it again, and ends it. The only part of a site that goes out.

A SuperNode that is started again at once is refused until the heartbeat of the one before has lapsed, so the pauses
between starts grow beyond a minute.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from wardround.client.link import LinkFolder
from wardround.protocol.errors import Unavailable

PAUSES: Final = (1.0, 5.0, 15.0, 30.0, 65.0)
"""Seconds before each start after a failure; the last one repeats."""

STEADY_SECONDS: Final = 120.0
"""A SuperNode that ran for so long was well: the pauses begin anew."""

PATIENCE_SECONDS: Final = 8.0

log = logging.getLogger(__name__)


def command(link: LinkFolder) -> list[str]:
    """The command line of the SuperNode of this link folder."""
    return [
        sys.executable,
        "-m",
        "wardround.client.flower.supernode",
        *("--superlink", link.about.superlink),
        *("--root-certificates", str(link.ca)),
        *("--auth-supernode-private-key", str(link.node_key)),
        *("--isolation", "process"),
        *("--superexec-auth-secret-file", str(link.secret_file.absolute())),
        *("--host", "127.0.0.1", "--port", str(link.about.runtime_port)),
    ]


def environment(link: LinkFolder) -> dict[str, str]:
    """What the SuperNode finds in its environment: no telemetry, no look for updates, and the hospital's proxy."""
    kept = {name: value for name, value in os.environ.items() if name.lower() not in ("https_proxy", "http_proxy")}
    kept |= {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_HOME": str((link.path / "flwr").absolute()),
        "NO_PROXY": "127.0.0.1",
        "PYTHONUNBUFFERED": "1",
    }
    if (proxy := link.proxy_url()) is not None:
        kept["HTTPS_PROXY"] = proxy
    return kept


class LinkSupervisor:
    """Runs one SuperNode until it is told to stop."""

    def __init__(self, link: LinkFolder, stopping: Callable[[], bool]) -> None:
        self._link = link
        self._stopping = stopping
        self._failures = 0
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Start the SuperNode, and again whenever it ends, until ``stopping``.

        Raises:
            Unavailable: the log cannot be written.
        """
        (self._link.path / "logs").mkdir(mode=0o700, exist_ok=True)
        (self._link.path / "flwr").mkdir(mode=0o700, exist_ok=True)
        while not self._stopping():
            begun = time.monotonic()
            code = self._once(self._link.path / "logs" / "link.log")
            if self._stopping():
                return
            lived = time.monotonic() - begun
            self._failures = 1 if lived > STEADY_SECONDS else self._failures + 1
            pause = PAUSES[min(self._failures, len(PAUSES)) - 1]
            log.warning("supernode ended code=%s after=%.0fs next_start_in=%.0fs", code, lived, pause)
            self._wait(pause)

    def _once(self, path: Path) -> int | None:
        try:
            with path.open("ab") as output:
                self._process = subprocess.Popen(
                    command(self._link),
                    stdout=output,
                    stderr=output,
                    stdin=subprocess.DEVNULL,
                    env=environment(self._link),
                )
        except OSError as error:
            raise Unavailable(f"the SuperNode cannot be started: {error.strerror}", "check disk and rights") from error
        log.info("supernode started pid=%d", self._process.pid)
        (self._link.path / "supernode.pid").write_text(str(self._process.pid))
        while self._process.poll() is None and not self._stopping():
            time.sleep(0.25)
        return end(self._process)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stopping():
            time.sleep(0.25)


def end(process: "subprocess.Popen[bytes]", patience: float = PATIENCE_SECONDS) -> int | None:
    """Ask a child to end, and end it if it does not; its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode
