"""A round of our simulator beside its peers in one run: Flower on Ray, pfl, a hand-written loop, bare torch.func.vmap.

``_simulators.py`` says what each of them runs. Bare vmap and ours take turns, round by round, in one process: those
ratios travel to other machines. The others run in processes of their own; memory is the largest sum of what all
processes of one simulator hold for themselves (proportional set size). Peers that are not installed are skipped with a
line: pip install ray==2.60.0; pip install --no-deps pfl==0.6.0 prv_accountant; pip install multiprocess.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter, sleep
from typing import Any, Final

import _simulators as simulators
from _scaling_picture import draw

PEERS: Final = {"ours": None, "vmap": "torch", "loop": "torch", "pfl": "pfl", "flower": "ray"}
"""Each simulator and the package without which it is skipped."""

ROUNDS: Final = {10: 8, 100: 5, 1000: 3, 10_000: 3}
LARGEST: Final = {"ours": 10_000, "vmap": 10_000, "loop": 1000, "pfl": 1000, "flower": 100}
"""Sites up to which a simulator ends within minutes."""


def child(which: str, sites: int, rounds: int, threads: int, began: float) -> None:
    """In a process that was started at ``began``: print what was measured, seconds."""
    imports = monotonic() - began
    cohorts = simulators.cohorts(sites)
    if which == "paired":
        found = {}
        for case, private in (("no protection", False), ("DP of every patient", True)):
            mine, other = simulators.paired(cohorts, rounds, private=private, threads=threads)
            found[case] = {"ours": mine.rounds, "vmap": other.rounds}
        print(json.dumps(found))
        return
    words = {"threads": threads} if which == "ours" else {}
    timed = getattr(simulators, which)(cohorts, rounds, **words)
    print(json.dumps({"start_up": imports + timed.start_up, "rounds": timed.rounds}))


def measure(which: str, sites: int, rounds: int, threads: int = 1) -> dict[str, Any]:
    """What a child measured, and the peak MiB of its processes."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    words = [sys.executable, __file__, "--child", which, str(sites), str(rounds), str(threads), str(monotonic())]
    peak = 0.0
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(words, env=environment, stdout=output, stderr=errors, text=True)
        while process.poll() is None:
            peak = max(peak, sum(_own_memory(one) for one in _family(process.pid)))
            sleep(0.1)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            raise SystemExit(f"{which} failed:\n{errors.read()[-2000:]}")
        found: dict[str, Any] = json.loads([line for line in output if line.startswith("{")][-1])
    return found | {"memory": peak}


def _family(root: int) -> Iterator[int]:
    """A process and all that it has started."""
    yield root
    try:
        children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
    except OSError:
        return
    for each in children:
        yield from _family(int(each))


def _own_memory(process: int) -> float:
    """MiB, shared pages in equal parts; 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(float(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def side_by_side(sites: int, rounds: int, threads: int) -> Iterator[dict[str, object]]:
    """Ours and bare vmap in turn, without and with protection of every patient."""
    found = measure("paired", sites, rounds, threads)
    del found["memory"]  # of both together
    for words, times in found.items():
        ratio = median(mine / other for mine, other in zip(times["ours"], times["vmap"], strict=True))
        seconds = median(times["ours"])
        print(f"{sites:>6} sites, {words}: {seconds * 1000:.1f} ms a round, {ratio:.2f}x bare vmap", flush=True)
        yield _row(f"{sites} sites, {words}", "time per round", seconds * 1000, "ms", "bare torch.func.vmap", ratio)


def peers(sites: int, names: list[str], rounds: int) -> Iterator[dict[str, object]]:
    """Start-up, seconds a round and memory of each simulator."""
    mine: dict[str, float] = {}
    for name in names:
        if sites > LARGEST[name]:
            continue
        found = measure(name, sites, 2 if name in ("pfl", "flower") and sites >= 100 else rounds)
        values = {"start-up": found["start_up"], "time per round": median(found["rounds"]), "memory": found["memory"]}
        mine = mine or values
        print(
            f"{sites:>6} {name:>8} {values['start-up']:>8.1f} s {values['time per round']:>9.4f} s/round"
            f" {values['memory']:>7.0f} MiB {values['time per round'] / mine['time per round']:>7.1f}x",
            flush=True,
        )
        for metric, value in values.items():
            unit = "MiB" if metric == "memory" else "s"
            yield _row(f"{sites} sites, {name}", metric, value, unit, "ours", value / mine[metric])


def pictures(repeats: int) -> Iterator[dict[str, object]]:
    """The small network on pictures: all sites at once beside one site after the other; see ``simulations.choice``."""
    for size, widths in ((8, (8, 16)), (16, (8, 16)), (16, (16, 32)), (28, (16, 32, 64))):
        for private in (False, True):
            once, alone = simulators.pictures(size, widths, private, repeats)
            ratio = median(one / other for one, other in zip(once, alone, strict=True))
            case = f"pictures of {size} x {size}, channels {widths}, {'DP' if private else 'no protection'}"
            print(f"{case}: {median(once) * 1000:.2f} ms a site's step, {ratio:.2f}x of site by site", flush=True)
            yield _row(case, "processor time per step", median(once) * 1000, "ms", "site by site", ratio)


def start_up(repeats: int) -> dict[str, list[float]]:
    """Seconds of ``wardround --help``, and of the default study up to its first round, in each of ``repeats`` runs.

    The study runs as it is shipped: with fewer rounds its cost would fit the quick bound, the accountant would not be
    loaded before the first round, and the figure would flatter.
    """
    command = [sys.executable, "-m", "wardround.console.cli"]
    helps, firsts = [], []
    for _ in range(repeats):
        started = perf_counter()
        subprocess.run([*command, "--help"], check=True, capture_output=True)
        helps.append(perf_counter() - started)
        with tempfile.TemporaryDirectory() as folder:
            words = ["simulate", "study=heart_disease", f"simulation.output={folder}"]
            subprocess.run([*command, *words], check=True, capture_output=True)
            result = json.loads(next(Path(folder).glob("*/result.json")).read_text())
            # The program's own clock starts when its command line is loaded; --help stands for what came before.
            firsts.append(result["seconds_to_first_round"] + helps[-1])
    return {"wardround --help": helps, "simulate study=heart_disease, to the first round": firsts}


def _row(
    case: str, metric: str, value: float, unit: str, against: str | None, ratio: float | None
) -> dict[str, object]:
    return {"case": case, "metric": metric, "value": value, "unit": unit, "against": against, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="bare vmap at 100 and 1000 sites only, under a minute")
    parser.add_argument("--pictures", action="store_true", help="only the small network on pictures")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--picture", type=Path, help="draw seconds a round against sites into this SVG")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        which, sites, rounds, threads, began = arguments.child
        child(which, int(sites), int(rounds), int(threads), float(began))
        return
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, {load:.1f} processes were busy in the minute before")
    rows = [_row("the machine", "busy processes before", load, "processes", None, None)]
    if not arguments.pictures:
        for sites, rounds in ((100, 15), (1000, 5)):
            rows += side_by_side(sites, rounds, threads=1)
    if not arguments.pictures and not arguments.quick:
        missing = [name for name, package in PEERS.items() if package is not None and find_spec(package) is None]
        for name in missing:
            print(f"{name} is left out: {PEERS[name]} is not installed")
        names = [name for name in PEERS if name not in missing]
        for sites, rounds in ROUNDS.items():
            rows += peers(sites, names, rounds)
        both = measure("ours", 10_000, 3, threads=2)
        seconds = median(both["rounds"])
        print(f"10000 sites, ours with 2 threads: {seconds:.2f} s a round, {both['memory']:.0f} MiB")
        rows.append(_row("10000 sites, ours, 2 threads", "time per round", seconds, "s", None, None))
    if not arguments.quick:
        rows += pictures(3)
    if not arguments.pictures:
        for name, runs in start_up(1 if arguments.quick else 3).items():
            print(f"{name}: median {median(runs):.2f} s, slowest {max(runs):.2f} s of {len(runs)}")
            rows.append(_row(name, "start-up", median(runs), "s", None, None))
    if arguments.picture:
        machine = f"{os.cpu_count()} cores, {load:.0f} other processes busy"
        draw(rows, arguments.picture, f"MLP 13-32-1, one thread each; {machine}.")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
