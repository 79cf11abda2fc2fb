"""Rules for every test: what may be skipped, how it is counted, and where the data is.

A test that needs a server or a browser says so: ``@pytest.mark.server("chromium")``. A test that needs the
real tables takes the fixture ``wardround_data``. Where these are absent the test is skipped by name. With
WARDROUND_NO_SKIP=1, as in .ci/run, a skip is a failure, so that nothing goes untested there unnoticed.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVERS = {"chromium": ("chromium", "chromium-browser", "google-chrome"), "cc": ("cc",)}
"""The name in the marker -> programs, any one of which will do."""


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
