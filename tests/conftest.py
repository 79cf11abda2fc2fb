"""Rules for every test: what may be skipped, how it is counted, and where the data is.

A test that needs a server or a browser says so: ``@pytest.mark.server("chromium")``. A test that needs the
real tables takes the fixture ``wardround_data``. Where these are absent the test is skipped by name. With
WARDROUND_NO_SKIP=1, as in .ci/run, a skip is a failure, so that nothing goes untested there unnoticed.
"""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest
from _ports import free_port
from hypothesis import HealthCheck, settings

# A run finds what the run before it found; `make soak` draws new examples. No example fails for the time that it took,
# which a busy machine decides.
settings.register_profile(
    "steady", derandomize=not os.environ.get("WARDROUND_SOAK"), deadline=None, print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
settings.load_profile("steady")

# As many processes test as there are processors. Were each to compute with as many threads again, they would wait for
# one another, spinning: ten times the time for a network on two processors. Read when torch is first imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

END_TO_END = "tests/end_to_end/"

LONGEST = (
    END_TO_END,
    "tests/simulations/test_kinds_of_study.py",
    "tests/simulations/plugins/test_packages.py",
    "tests/test_mutants.py",
    "tests/test_bundle.py",
    "tests/test_notebooks.py",
    "tests/simulations/sweep/test_sweeping.py",
    "tests/client/imaging/test_border.py",
)
"""What takes longest, the longest first: begun last it would keep one processor busy, and the others without work."""

SERVERS = {
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "cc": ("cc",),
    "orthanc": ("Orthanc", "/usr/sbin/Orthanc"),
    "postgres": ("postgres", *map(str, Path("/usr/lib/postgresql").glob("*/bin/postgres"))),
    "squid": ("squid", "/usr/sbin/squid"),
    "systemd-analyze": ("systemd-analyze",),
}
"""The name in the marker -> programs, any one of which will do."""


def unit_of(nodeid: str) -> str:
    """What one process runs in turn: a file, or all of the folder whose tests start a dozen processes each."""
    return END_TO_END if nodeid.startswith(END_TO_END) else nodeid.partition("::")[0]


def place_of(unit: str, tests: int) -> tuple[int, int, str]:
    """What units are sorted by: the longest as they are named, then those with most tests."""
    return LONGEST.index(unit) if unit in LONGEST else len(LONGEST), -tests, unit


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        tests = Counter(unit_of(item.nodeid) for item in items)
        items.sort(key=lambda item: place_of(unit := unit_of(item.nodeid), tests[unit]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``--dist loadfile``: units in the order in which they were collected."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class InUnits(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit_of(nodeid)

    if gone := [name for name in LONGEST if not (config.rootpath / name).exists()]:
        raise pytest.UsageError(f"LONGEST names what is not there: {', '.join(gone)}")
    config.option.loadscopereorder = False
    return InUnits(config, log)


@pytest.fixture(scope="session")
def wardround_data() -> Path:
    """The folder with the real data sets, one sub-folder each."""
    folder = os.environ.get("WARDROUND_DATA")
    if not folder:
        pytest.skip("WARDROUND_DATA is not set")
    if not Path(folder).is_dir():
        pytest.fail(f"WARDROUND_DATA names no folder: {folder}")
    return Path(folder)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("server"):
        for name in marker.args:
            if name not in SERVERS:
                raise pytest.UsageError(f"{item.nodeid}: no server '{name}'; known: {', '.join(SERVERS)}")
            if not any(shutil.which(program) for program in SERVERS[name]):
                pytest.skip(f"{name} is not installed (scripts/test-servers installs it)")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[pytest.TestReport]:
    report: pytest.TestReport = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[pytest.CollectReport]:
    report: pytest.CollectReport = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    yield
    reasons = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", []))
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"skipped because {reason}: {count}")


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    # An expected failure is reported as skipped too, but it did run.
    if report.skipped and os.environ.get("WARDROUND_NO_SKIP") == "1" and not hasattr(report, "wasxfail"):
        report.longrepr = f"skipped, which WARDROUND_NO_SKIP=1 forbids: {_reason(report)}"
        report.outcome = "failed"


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


HOST = "127.0.0.1"
USER, PASSWORD = "ward-user", "correct horse: battery@staple"


@dataclass(frozen=True)
class Squid:
    """A real proxy that asks for a password and lets CONNECT to one port only."""

    port: int
    log: Path


@pytest.fixture(scope="module")
def start_squid() -> Iterator[Callable[[int], Squid]]:
    """Start squid as a child in the foreground, with a configuration and a folder of its own."""
    running: list[subprocess.Popen[bytes]] = []
    # Squid gives up root and then reads its files as the user 'proxy', who may not look into pytest's folders.
    folder = Path(tempfile.mkdtemp(prefix="wardround-squid-"))

    def start(allowed: int) -> Squid:
        port = free_port()
        # basic_ncsa_auth takes an unsalted MD5 too, which needs no htpasswd; this file lives for a minute.
        (folder / "users").write_text(f"{USER}:{md5(PASSWORD.encode()).hexdigest()}\n")
        lines = [
            f"http_port {HOST}:{port}",
            f"auth_param basic program {_helper()} {folder / 'users'}",
            "auth_param basic realm ward",
            "auth_param basic children 1",
            f"acl allowed_port port {allowed}",
            "acl known proxy_auth REQUIRED",
            "http_access deny !allowed_port",
            "http_access allow CONNECT known",
            "http_access deny all",
            "cache deny all",
            "pinger_enable off",
            "netdb_filename none",
            "pid_filename none",
            f"access_log stdio:{folder / 'access.log'}",
            f"cache_log {folder / 'cache.log'}",
            f"coredump_dir {folder}",
            "visible_hostname proxy.example.org",
            "shutdown_lifetime 0 seconds",
        ]
        (folder / "squid.conf").write_text("\n".join(lines) + "\n")
        if os.geteuid() == 0:
            user = pwd.getpwnam("proxy")
            for path in (folder, *folder.iterdir()):
                os.chown(path, user.pw_uid, user.pw_gid)
        program = shutil.which("squid") or "/usr/sbin/squid"
        running.append(
            subprocess.Popen(
                [program, "-N", "-f", str(folder / "squid.conf")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        until = time.monotonic() + 30
        while time.monotonic() < until and running[-1].poll() is None:
            with suppress(OSError), socket.create_connection((HOST, port), 1):
                return Squid(port, folder / "access.log")
            time.sleep(0.1)
        pytest.fail(f"squid does not listen: {(folder / 'cache.log').read_text()[-2000:]}")

    yield start
    for process in running:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    shutil.rmtree(folder)


def _helper() -> Path:
    places = [Path("/usr/lib/squid/basic_ncsa_auth"), Path("/usr/lib64/squid/basic_ncsa_auth")]
    found = [place for place in places if place.exists()]
    assert found, "squid is here without its helper basic_ncsa_auth"
    return found[0]


@pytest.fixture(scope="session")
def proxy_login() -> tuple[str, str]:
    return USER, PASSWORD
