"""``wardround coordinator start``: keeps the SuperLink and one process for each study running, and registers sites.

A SuperLink that died is started on the same database; a study whose process died gets a new Flower run for the same
plan, and goes on from its folder. Only processes that were started here are ever ended, by their numbers.
"""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from wardround.protocol.errors import Unavailable
from wardround.server.flower.control import SuperLinkControl
from wardround.server.flower.task import Ended
from wardround.server.folder import CoordinatorFolder
from wardround.server.store.registry import Registry

POLL_SECONDS: Final = 0.5
PAUSES: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before each start of a process that keeps ending; the last one repeats."""

PATIENCE_SECONDS: Final = 8.0
START_SECONDS: Final = 60.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Child:
    """A process of ours, and when it may be started again."""

    process: "subprocess.Popen[bytes] | None" = None
    failures: int = 0
    not_before: float = 0.0
    started: float = 0.0

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def failed(self) -> float:
        """Note a failure; the pause before the next start, in seconds."""
        self.failures = 1 if time.monotonic() - self.started > 60.0 else self.failures + 1
        pause = PAUSES[min(self.failures, len(PAUSES)) - 1]
        self.process, self.not_before = None, time.monotonic() + pause
        return pause


@dataclass(slots=True)
class Supervisor:
    """Runs a coordinator until ``stopping``."""

    folder: CoordinatorFolder
    stopping: Callable[[], bool]
    _superlink: _Child = field(default_factory=_Child)
    _studies: dict[str, _Child] = field(default_factory=dict)
    _runs: dict[str, int] = field(default_factory=dict)

    def run(self) -> None:
        """Supervise until told to stop; then every child has ended when this returns."""
        self.folder.logs.mkdir(mode=0o700, exist_ok=True)
        registry = Registry(self.folder.database)
        control = SuperLinkControl(self.folder.runtime_port, self.folder.superexec_secret())
        (self.folder.path / "coordinator.pid").write_text(str(os.getpid()))
        try:
            while not self.stopping():
                self._keep_superlink()
                try:
                    if self._superlink.running:
                        self._sites(registry, control)
                        self._keep_studies(registry, control)
                except Unavailable as error:
                    log.info("waiting for the superlink: %s", error.message)
                time.sleep(POLL_SECONDS)
        finally:
            for child in (*self._studies.values(), self._superlink):
                _end(child)
            (self.folder.path / "coordinator.pid").unlink(missing_ok=True)

    def _keep_superlink(self) -> None:
        child = self._superlink
        if child.running or time.monotonic() < child.not_before:
            return
        if child.process is not None:
            code = child.process.returncode
            log.warning("superlink ended code=%s next_start_in=%.0fs", code, child.failed())
            return
        self._start(child, "superlink", ["wardround.server.flower.superlink_process", str(self.folder.path)])

    def _sites(self, registry: Registry, control: SuperLinkControl) -> None:
        """Register nodes of sites that joined, and unregister those of sites that were revoked."""
        for site in registry.unregistered():
            registry.registered(site.site, control.register(site.node_key))
            log.info("site registered site=%s", site.site)
        for site in registry.revoked_but_registered():
            if site.node_id is not None:
                control.unregister(site.node_id % (1 << 64))
            registry.registered(site.site, None)
            log.info("site unregistered site=%s", site.site)

    def _keep_studies(self, registry: Registry, control: SuperLinkControl) -> None:
        for digest in registry.open_studies():
            child = self._studies.setdefault(digest, _Child())
            if child.running or time.monotonic() < child.not_before:
                continue
            if child.process is not None:
                self._over(digest, child, registry, control)
                continue
            self._runs[digest] = control.start_run(digest)
            self._take(digest, child, control)
        for digest, child in list(self._studies.items()):
            if digest not in registry.open_studies() and not child.running:
                self._over(digest, child, registry, control)
                del self._studies[digest]

    def _over(self, digest: str, child: _Child, registry: Registry, control: SuperLinkControl) -> None:
        """A study's process has ended: close its run; if it was not the end of the study, it is started again."""
        code = None if child.process is None else child.process.returncode
        run = self._runs.pop(digest, None)
        if run is not None and (code == Ended.STOPPED or registry.wanted(digest) == "stopped"):
            try:
                control.stop_run(run)
            except Unavailable as error:
                log.info("run not stopped: %s", error.message)
        if code in (Ended.FINISHED, Ended.STOPPED, Ended.NEEDS_PEOPLE):
            child.process = None
        else:
            log.warning("study process ended code=%s next_start_in=%.0fs", code, child.failed())

    def _take(self, digest: str, child: _Child, control: SuperLinkControl) -> None:
        """Take the task of the run that was just opened and start its process."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and not self.stopping():
            task = control.take()
            if task is None:
                time.sleep(0.1)
                continue
            owner = next((d for d, run in self._runs.items() if run == task.run_id), None)
            if owner is None:
                log.warning("a run that nobody here opened was taken and is left run=%d", task.run_id)
                continue
            self._start(child, "studies", ["wardround.server.flower.task", str(self.folder.path)], task.token)
            return
        raise Unavailable("the run has no task", "see logs/superlink.log")

    def _start(self, child: _Child, name: str, module: list[str], token: str | None = None) -> None:
        environment = {
            **os.environ,
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_HOME": str((self.folder.path / "flwr").absolute()),
            "PYTHONUNBUFFERED": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            # Vectors that were freed go back to the system at once, and not into one heap for each thread.
            "MALLOC_ARENA_MAX": "2",
            "MALLOC_MMAP_THRESHOLD_": "1000000",
        }
        with (self.folder.logs / f"{name}.log").open("ab") as output:
            child.process = subprocess.Popen(
                [sys.executable, "-m", *module],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment,
            )
        child.started = time.monotonic()
        assert child.process.stdin is not None
        child.process.stdin.write(f"{token or ''}\n".encode())
        child.process.stdin.close()
        log.info("started what=%s pid=%d", name, child.process.pid)


def _end(child: _Child) -> None:
    process = child.process
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
