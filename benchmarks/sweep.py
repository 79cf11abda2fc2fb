"""A sweep of 200 runs, 4 strategies x 5 epsilons x 10 seeds of heart disease, 15 rounds each: from words to the page.

Beside it one run of ``wardround simulate`` as a process of its own, which is what each of them would cost without a
sweep: importing, composing and reading once for each. ``--quick`` runs 2 x 2 x 3. The machine's load and the time of
processors go into the record, for the clock of a busy machine says little.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

GOAL_SECONDS = 180.0
FULL = ("strategy=fedavg,fedprox,scaffold,fedadam", "privacy.epsilon=0.5,1,3,8,inf", "seed=0..9")
QUICK = ("strategy=fedavg,scaffold", "privacy.epsilon=1,inf", "seed=0..2")


def timed(words: list[str]) -> tuple[float, float]:
    """Seconds by the clock and of processors of the command line with ``words``, as a process of its own."""
    begun, before = time.perf_counter(), getrusage(RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "wardround.console.cli", *words], check=True, stdout=subprocess.DEVNULL)
    after = getrusage(RUSAGE_CHILDREN)
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - begun, worked


def row(case: str, metric: str, value: float, unit: str, against: str, ratio: float) -> dict[str, object]:
    return {"case": case, "metric": metric, "value": value, "unit": unit, "against": against, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="12 runs instead of 200")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--json", type=Path, help="write the records to this file")
    arguments = parser.parse_args()
    words, runs = (QUICK, 12) if arguments.quick else (FULL, 200)
    with tempfile.TemporaryDirectory() as folder:
        alone, _ = timed(["simulate", f"simulation.output={folder}/alone"])
        load = os.getloadavg()[0]
        seconds, worked = timed(["sweep", *words, "--folder", f"{folder}/sweep", "--jobs", str(arguments.jobs)])
        done = len(list(Path(folder, "sweep", "runs").glob("*/result.json")))
        again, _ = timed(["sweep", "--folder", f"{folder}/sweep"])
    if done != runs:
        sys.exit(f"{done} of {runs} runs ended well")
    goal = GOAL_SECONDS * runs / 200
    records = [
        row(
            f"{runs} runs in {arguments.jobs} processes",
            "time",
            seconds,
            "s",
            f"the goal of {goal:g} s",
            seconds / goal,
        ),
        row("processors, all together", "processor time", worked, "s", "two cores for the goal", worked / 2 / goal),
        row("one run of a sweep", "time", seconds / runs, "s", "wardround simulate", seconds / runs / alone),
        row("going on where all is done", "time", again, "s", "the sweep itself", again / seconds),
        row("load before the sweep", "processes", load, "", "the cores here", load / (os.cpu_count() or 1)),
    ]
    for record in records:
        against = f"{record['ratio']:.2f}x {record['against']}"
        print(f"{record['case']:28} {record['value']:8.2f} {record['unit']:2} {against}")
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
