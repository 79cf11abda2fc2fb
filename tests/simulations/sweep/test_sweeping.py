"""A sweep from its words to its files: each run once, whatever happens in between."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from io import StringIO
from math import inf, sqrt
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from wardround.console.commands.sweep import sweep_command, write_run_page
from wardround.console.reports.sweep import SweepView
from wardround.privacy.accounting import epsilon
from wardround.privacy.private_selection import Trials, selection_epsilon
from wardround.protocol.errors import UsageError
from wardround.simulations.configured import simulate
from wardround.simulations.sweep import one_run
from wardround.simulations.sweep.folder import SweepFolder
from wardround.simulations.sweep.one_run import Runner
from wardround.simulations.sweep.sweeping import Prepared, prepare
from wardround.simulations.sweep.workers import in_parallel

TODAY = date(2026, 11, 23)
FAST = ["study=synthetic", "rounds=2", "simulation.evaluate_every=0"]
WORDS = [*FAST, "strategy=fedavg,fedprox", "privacy.epsilon=2,inf", "seed=0..1"]


def in_this_process(prepared: Prepared) -> None:
    """The jobs that are left, without processes of their own."""
    runner = Runner(prepared.folder, TODAY, write_run_page)
    for job in prepared.left:
        ended = runner(job)
        if ended.message:
            prepared.folder.fail(ended.number, ended.message, ended.hint)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SweepView, str]:
    """A sweep of eight runs in two processes: its folder, its view, and what it printed."""
    folder, printed = tmp_path_factory.mktemp("sweep") / "one", StringIO()
    view = sweep_command(WORDS, folder, 2, None, None, Console(file=printed, width=120))
    return folder, view, printed.getvalue()


def test_every_run_leaves_the_files_of_a_simulation(swept: tuple[Path, SweepView, str]) -> None:
    folder, view, _ = swept
    assert len(view.runs) == 8 and not view.failed and not view.missing
    wanted = {"report.html", "result.json", "rounds.parquet", "model.safetensors", "plan.json", "configuration.json"}
    for number in range(1, 9):
        assert {path.name for path in SweepFolder(folder).run(number).path.iterdir()} == wanted


def test_a_run_of_a_sweep_is_the_run_that_simulate_makes(swept: tuple[Path, SweepView, str], tmp_path: Path) -> None:
    from wardround.conf.compose import compose_configuration
    from wardround.conf.schema import parse_configuration

    folder, view, _ = swept
    prepared_words = next(
        point.words
        for point in prepare(WORDS, SweepFolder(folder)).grid.points
        if ("strategy", "fedprox") in point.settings and ("privacy.epsilon", "inf") in point.settings
    )
    alone = simulate(
        parse_configuration(compose_configuration([*prepared_words, f"simulation.output={tmp_path}"])),
        today=TODAY,
        started=time.perf_counter(),
    )
    same = [run for run in view.runs if run.result.final_model == alone.result.final_model]
    assert any(run.settings["strategy"] == "fedprox" and run.settings["privacy.epsilon"] == "inf" for run in same)


def test_tables_hold_a_row_for_each_run_hospital_and_metric(swept: tuple[Path, SweepView, str]) -> None:
    folder, view, _ = swept
    table = pq.read_table(folder / "runs.parquet").to_pylist()
    with (folder / "runs.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(table) == len(lines) == 8 * 4 * len(view.runs[0].result.sites[0].shared.metrics)
    for row, line in zip(table, lines, strict=True):
        assert float(line["used"]) == row["used"] and line["site"] == row["site"]
    assert {row["epsilon_limit"] for row in table} == {2.0, inf}
    assert max(row["epsilon_site"] for row in table if row["epsilon_limit"] == 2.0) <= 2.0


def test_the_page_loads_nothing_and_says_what_choosing_would_have_cost(swept: tuple[Path, SweepView, str]) -> None:
    folder, view, printed = swept
    page = (folder / "comparison.html").read_text(encoding="utf-8")
    assert "<script" not in page and "http" not in page.replace("http://www.w3.org/2000/svg", "").replace(
        'http-equiv="Content-Security-Policy"', ""
    )
    (price,) = view.prices
    assert f"{price.private.epsilon:.1f}"[:3] in page and "Papernot" in page and "would cost" in printed
    for word in ("δ = 0.0001", "add or remove one", "whoever colludes"):
        assert word in page and word in " ".join(printed.split())


def test_the_price_is_that_of_the_plans_that_ran(swept: tuple[Path, SweepView, str]) -> None:
    _, view, _ = swept
    (price,) = view.prices
    protected = [run for run in view.runs if run.plan.privacy.delta is not None]
    events = [run.plan.round_event("north") for run in protected for _ in range(run.plan.rounds)]
    assert price.every_run == epsilon(events, 1e-4) and len(events) == 8
    one = [events[:2], events[4:6]]
    assert price.private.epsilon == min(selection_epsilon(one, 1e-4, Trials(2.0, shape)) for shape in (inf, 1.0, 0.0))
    assert price.one_run < price.private.epsilon


def stamps(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("runs/*/result.json")}


def test_a_sweep_goes_on_with_what_is_not_done_and_with_nothing_else(swept: tuple[Path, SweepView, str]) -> None:
    folder, _, _ = swept
    (folder / "runs" / "0003" / "result.json").unlink()
    (folder / "runs" / "0005" / "report.html").unlink()
    before = stamps(folder)
    prepared = prepare(SweepFolder(folder).words(), SweepFolder(folder))
    assert [job.number for job in prepared.left] == [3, 5]
    in_this_process(prepared)
    after = stamps(folder)
    assert {name for name in after if after[name] != before.get(name)} == {"0003"}
    assert (folder / "runs" / "0005" / "report.html").exists()


def test_the_folder_of_another_sweep_is_refused(swept: tuple[Path, SweepView, str], tmp_path: Path) -> None:
    folder, _, _ = swept
    with pytest.raises(UsageError, match="another sweep"):
        prepare([*FAST, "seed=0..1"], SweepFolder(folder))
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="something else"):
        prepare(WORDS, SweepFolder(tmp_path))


def test_runs_of_another_version_are_not_mixed_in(swept: tuple[Path, SweepView, str]) -> None:
    folder, _, _ = swept
    manifest = prepare(WORDS, SweepFolder(folder)).manifest
    with pytest.raises(UsageError, match="another version"):
        SweepFolder(folder).claim(manifest.model_copy(update={"behaviour": "0" * 64}))


def test_one_process_at_a_time_works_in_a_folder(swept: tuple[Path, SweepView, str]) -> None:
    where = SweepFolder(swept[0])
    with where.alone(), pytest.raises(UsageError, match="another process"), where.alone():
        pass
    with where.alone():
        pass


def test_a_failed_run_is_said_and_does_not_end_the_sweep(tmp_path: Path) -> None:
    words = [*FAST, "privacy=none", "local.learning_rate=0.1,1e300", "seed=0..1", "rounds=4"]
    prepared = prepare([word for word in words if word != "rounds=2"], SweepFolder(tmp_path / "s"))
    in_this_process(prepared)
    runs, failed = prepared.folder.outcomes(prepared.grid)
    assert [run.settings["local.learning_rate"] for run in runs] == ["0.1", "0.1"]
    assert len(failed) == 2 and all("local.learning_rate" in run.hint for run in failed)
    printed = StringIO()
    view = sweep_command((), tmp_path / "s", 1, "accuracy", None, Console(file=printed, width=120))
    page = (tmp_path / "s" / "comparison.html").read_text(encoding="utf-8")
    assert len(view.failed) == 2 and "2 runs failed" in printed.getvalue() and failed[0].message[:20] in page


def test_a_worker_reads_the_patients_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    real = one_run.gather
    monkeypatch.setattr(one_run, "gather", lambda configuration: read.append(1) or real(configuration))
    in_this_process(
        prepare([*FAST, "privacy=none", "strategy=fedavg,fedprox", "seed=0..1"], SweepFolder(tmp_path / "a"))
    )
    assert len(read) == 1
    words = [*FAST, "privacy=none", "simulation.resplit.sites=3", "seed=0..1"]
    in_this_process(prepare(words, SweepFolder(tmp_path / "b")))
    assert len(read) == 3, "each seed divides the patients anew"


def test_the_death_of_a_process_costs_its_job_alone() -> None:
    jobs = [0, int(signal.SIGKILL), 0, 0]
    ended = list(in_parallel(signal.raise_signal, jobs, 2, died=lambda job: f"died of {job}"))
    assert sorted(map(str, ended)) == ["None", "None", "None", "died of 9"]


def test_processes_compute_with_one_thread_each() -> None:
    assert list(in_parallel(os.getenv, ["OMP_NUM_THREADS"], 4, died=str)) == ["1"]
    assert sorted(in_parallel(sqrt, [4.0, 9.0, 16.0], 1, died=str)) == [2.0, 3.0, 4.0]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A long sweep in a process of its own, after its first result."""
    folder = tmp_path / "long"
    command = [sys.executable, "-m", "wardround.console.cli", "sweep", *FAST, "privacy=none", "seed=0..199"]
    process = subprocess.Popen(
        [*command, "--folder", str(folder), "--jobs", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A run of the tests in the background may ignore Ctrl-C, and children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not stamps(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    yield process, folder
    process.kill()
    process.wait()


def lives(pid: str) -> bool:
    """Whether there is such a process, and it has not ended with nobody to ask how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_was_stopped_keeps_what_is_done(
    started: tuple[subprocess.Popen[str], Path], with_signal: signal.Signals
) -> None:
    process, folder = started
    own = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(with_signal)
    said, _ = process.communicate(timeout=120)
    if with_signal is signal.SIGINT:
        assert process.returncode == 130 and f"wardround sweep --folder {folder}" in said
    deadline = time.monotonic() + 120
    while any(map(lives, own)):  # a child whose parent is gone ends after its run
        assert time.monotonic() < deadline, "a child goes on without its parent"
        time.sleep(0.05)
    done = stamps(folder)
    assert 0 < len(done) < 200
    prepared = prepare(SweepFolder(folder).words(), SweepFolder(folder))
    left = {job.number for job in prepared.left}
    assert not left & {int(name) for name in done if (folder / "runs" / name / "report.html").exists()}
    in_this_process(replace(prepared, left=prepared.left[:2]))
    after = stamps(folder)
    assert done.items() <= after.items() and len(after) >= len(done) + 1
