"""The site's daemon: one long-lived process that holds data, keys, policy, ledger and the state of secure aggregation.

::

    coordinator <──TLS── SuperNode (its own process, its own user, alone goes out)
                            │ loopback, HMAC
                         executor ──> desk ──> ledger, patients' data, keys
                                        ▲
    command line ──Unix socket──> control

The desk belongs to the thread that answers messages. What people ask through the control socket runs on another
thread with a ledger of its own on the same file; the ledger serialises writers.
"""

import logging
import logging.handlers
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from wardround.client.desk import Desk, Switches
from wardround.client.link import LinkFolder
from wardround.client.link_supervisor import end
from wardround.client.settings import read_settings
from wardround.client.store.folder import SiteFolder
from wardround.protocol.behaviour import behaviour
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.parameters import Vector
from wardround.protocol.plan import StudyPlan

PID: Final = "daemon.pid"
LOG_BYTES: Final = 5_000_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """What the daemon says of itself. Nothing of a patient."""

    site: str
    state: str
    link: str
    last_exchange: str
    last_at: str
    last_plan: str
    round_number: int
    refusals: int
    version: str
    behaviour: str
    pid: int
    started_at: float
    reason: str
    open_alarms: int = 0


class SiteDaemon:
    """The daemon of one site's folder.

    Args:
        own_link: start the SuperNode's supervisor as a child; False where it is a service of its own.
    """

    def __init__(self, folder: SiteFolder, own_link: bool = True) -> None:
        self.folder = folder
        self.settings = read_settings(folder.path)
        self.link = LinkFolder.open(folder.path / self.settings.link if self.settings.link else link_of(folder))
        self.switches = Switches()
        self._own_link = own_link
        self._link_process: subprocess.Popen[bytes] | None = None
        self._desk: Desk | None = None
        self._executor: Any = None
        self._started = time.time()
        self._reason = ""

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until ``stop`` or a signal. Every child has ended when this returns.

        Raises:
            UsageError: another daemon of this folder runs, or a setting is wrong.
        """
        from threadpoolctl import threadpool_limits

        from wardround.client.flower.executor import Executor

        self._take_pid()
        control = monitoring = None
        try:
            with threadpool_limits(self.settings.threads):
                self._desk = desk = Desk(self.folder, self.switches, self._finished)
                self._executor = Executor(
                    self.link.about.runtime_port, self.link.secret(), desk.answer, desk.refuse, self._run_ended
                )
                self._keep_link()
                control, office = self._control()
                monitoring = self._monitoring(office)
                ready()
                log.info("daemon ready site=%s", self.folder.site)
                self._executor.run(self._stopping)
        finally:
            self.switches.stopping = True
            if monitoring is not None:
                monitoring.stop()
            if control is not None:
                control.stop()
            if self._link_process is not None:
                end(self._link_process, 20.0)
            (self.folder.path / PID).unlink(missing_ok=True)

    def status(self) -> DaemonStatus:
        seen = None if self._desk is None else self._desk.seen
        connected = self._executor is not None and self._executor.connected
        state = "stopping" if self.switches.stopping else "paused" if self.switches.paused else "running"
        return DaemonStatus(
            site=self.folder.site,
            state=state,
            link="up" if connected else "down",
            last_exchange="" if seen is None else seen.last_exchange,
            last_at="" if seen is None else seen.last_at,
            last_plan="" if seen is None else seen.last_plan,
            round_number=0 if seen is None else seen.round_number,
            refusals=0 if seen is None else seen.refusals,
            version=version("wardround"),
            behaviour=behaviour(),
            pid=os.getpid(),
            started_at=self._started,
            reason=self._reason,
            open_alarms=0 if seen is None else seen.open_alarms,
        )

    def pause(self, reason: str) -> None:
        """Answer no round until ``resume``; a round that runs is finished."""
        self._reason, self.switches.paused = reason, True

    def resume(self) -> None:
        self._reason, self.switches.paused = "", False

    def stop(self) -> None:
        """End the daemon: work stops at the next step."""
        self.switches.stopping = True

    def interrupt(self, plan: str) -> None:
        """Stop work on a plan at its next step; until it is let go again nothing of it is answered."""
        self.switches.stopped_plans.add(plan)

    def let(self, plan: str) -> None:
        """Undo ``interrupt``: an officer has approved the plan anew."""
        self.switches.stopped_plans.discard(plan)

    def report(self, plan: StudyPlan, store: Any) -> str:
        """The site's own report of a finished study as JSON; ``store`` is a connection of the caller's thread."""
        from wardround.client.released import site_report
        from wardround.client.store.ledger import Ledger
        from wardround.client.store.members import Members
        from wardround.client.store.receipts import Receipts

        ledger = Ledger(store, self.folder.site, self.folder.identity())
        members = Members(store, self.folder.patients_key())
        receipts = [receipt for receipt in Receipts(store).of(plan.digest) if receipt.state == "closed"]
        in_sum = sum(receipt.line[self.folder.site].outcome == "replied" for receipt in receipts)
        found = site_report(self.folder, plan, self.settings, ledger, members, in_sum)
        return found.model_dump_json()

    def _monitoring(self, office: Any) -> Any:
        """What the hospital's monitoring may read, where the settings name an address."""
        from wardround.client.metrics import MEASUREMENTS, site_values
        from wardround.conf.monitoring import parse_address, serve

        if self.settings.metrics is None:
            return None
        return serve(parse_address(self.settings.metrics), MEASUREMENTS, lambda: site_values(office))

    def _control(self) -> tuple[Any, Any]:
        """The control service, at the settings' socket or in the site's own folder; and the office behind it."""
        from wardround.client.control.client import SOCKET
        from wardround.client.control.server import ControlServer
        from wardround.client.office import Office

        path = Path(self.settings.socket) if self.settings.socket else self.folder.path / SOCKET
        office = Office(self.folder, self)
        server = ControlServer(path.absolute(), office, self.settings.roles, self.folder.path / "sockets")
        server.start()
        return server, office

    def _run_ended(self) -> None:
        self.switches.run_ended = True

    def _stopping(self) -> bool:
        self._keep_link()
        return self.switches.stopping

    def _finished(self, plan: StudyPlan, model: Vector) -> None:
        from wardround.client.store.results import keep_model

        keep_model(self.folder, plan, model)
        log.info("study finished plan=%s", plan.digest[:12])

    def _keep_link(self) -> None:
        """Start the link's supervisor where it is ours; it starts the SuperNode, and again when it ends."""
        if not self._own_link or self.switches.stopping:
            return
        if self._link_process is not None and self._link_process.poll() is None:
            return
        arguments = [sys.executable, "-m", "wardround.client.link_process", str(self.link.path)]
        self._link_process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL)

    def _take_pid(self) -> None:
        path = self.folder.path / PID
        if path.exists() and _alive(path):
            raise UsageError(f"a daemon of site '{self.folder.site}' runs already", "stop it: wardround site stop")
        try:
            path.write_text(str(os.getpid()))
        except OSError as error:
            raise Unavailable(f"'{path}' cannot be written: {error.strerror}", "check disk and rights") from error


def link_of(folder: SiteFolder) -> Path:
    """Where the site's link folder lies, as ``site join`` wrote it down."""
    import json

    try:
        return Path(json.loads((folder.path / "link.json").read_bytes())["link"])
    except (OSError, ValueError, KeyError):
        raise UsageError(
            "this site has not joined a coordinator yet", "run 'wardround site join FOLDER CODE'"
        ) from None


def log_to(folder: SiteFolder) -> None:
    """The daemon's log: a file of at most five times ``LOG_BYTES``, and standard error."""
    (folder.path / "logs").mkdir(mode=0o700, exist_ok=True)
    file = logging.handlers.RotatingFileHandler(folder.path / "logs" / "daemon.log", maxBytes=LOG_BYTES, backupCount=4)
    form = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    for handler in (file, logging.StreamHandler()):
        handler.setFormatter(form)
        logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
    for noisy in ("httpx", "flwr"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def stop_on_signals(daemon: SiteDaemon) -> None:
    """SIGTERM and SIGINT stop the daemon at its next step."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: daemon.stop())


def _alive(path: Path) -> bool:
    try:
        pid = int(path.read_text())
        return pid != os.getpid() and "wardround" in Path(f"/proc/{pid}/cmdline").read_text()
    except (OSError, ValueError):
        return False
