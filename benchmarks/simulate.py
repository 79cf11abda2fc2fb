"""The in-process federation beside a hand-written PyTorch loop over the sites: time per round and peak memory.

Both train the same MLP 13-32-1 on the same synthetic cohorts (64..300 patients a site), batch 32, one local epoch,
all sites in every round, FedAvg, one thread, no protection. Wardround's round holds everything that it does in a
hospital: policy, ledger entries, contribution, round state machine. Each side runs in processes of its own (peak
memory is a process's), in turn, so that a drift of the machine's speed hits both.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from wardround.simulations.cohorts import synthetic_cohorts

PATIENTS, FEATURES, HIDDEN, BATCH, RATE = (64, 300), 13, 32, 32, 0.1


def ours(sites: int, rounds: int) -> float:
    """Seconds per round of the in-process federation."""
    from wardround.client.tasks import Classification
    from wardround.protocol.plan import LocalTraining
    from wardround.protocol.tasks import TabularClassification
    from wardround.simulations import run
    from wardround.strategies import STRATEGIES

    done = run(
        task=Classification(TabularClassification(hidden=(HIDDEN,)), FEATURES),
        strategy=STRATEGIES["fedavg"](),
        cohorts=synthetic_cohorts(sites, PATIENTS, FEATURES, seed=1),
        rounds=rounds,
        local=LocalTraining(epochs=1, batch_size=BATCH, learning_rate=RATE),
        compare=False,
    )
    return done.result.seconds_in_rounds / rounds


def loop(sites: int, rounds: int) -> float:
    """Seconds per round of the loop that a researcher would write: one module, plain tensor updates, no optimiser."""
    import torch

    torch.set_num_threads(1)
    cohorts = synthetic_cohorts(sites, PATIENTS, FEATURES, seed=1)
    data = [
        (torch.tensor(c.train.features, dtype=torch.float32), torch.tensor(c.train.targets, dtype=torch.float32))
        for c in cohorts
    ]
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(FEATURES, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, 1))
    parameters = list(model.parameters())
    loss_of = torch.nn.BCEWithLogitsLoss()
    started = perf_counter()
    for _ in range(rounds):
        start = [p.detach().clone() for p in parameters]
        sums = [torch.zeros_like(p) for p in start]
        weight = 0.0
        for features, targets in data:
            with torch.no_grad():
                for p, s in zip(parameters, start, strict=True):
                    p.copy_(s)
            order = torch.randperm(len(features))
            for first in range(0, len(features), BATCH):
                batch = order[first : first + BATCH]
                gradients = torch.autograd.grad(loss_of(model(features[batch]), targets[batch]), parameters)
                with torch.no_grad():
                    for p, g in zip(parameters, gradients, strict=True):
                        p -= RATE * g
            with torch.no_grad():
                for total, p, s in zip(sums, parameters, start, strict=True):
                    total += len(features) * (p - s)
            weight += len(features)
        with torch.no_grad():
            for p, s, total in zip(parameters, start, sums, strict=True):
                p.copy_(s + total / weight)
    return (perf_counter() - started) / rounds


def child(side: str, sites: int, rounds: int) -> None:
    import resource

    seconds = {"ours": ours, "loop": loop}[side](sites, rounds)
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


def measure(side: str, sites: int, rounds: int) -> tuple[float, float]:
    """(seconds per round, peak MiB) of one side in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--child", side, str(sites), str(rounds)]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    seconds, memory = json.loads(output.splitlines()[-1])
    return seconds, memory


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats, under a minute")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child[0], int(arguments.child[1]), int(arguments.child[2]))
        return
    rows: list[dict[str, object]] = []
    repeats = 1 if arguments.quick else 5
    print(f"{'sites':>6} {'ours ms':>9} {'loop ms':>9} {'time':>7} {'ours MiB':>9} {'loop MiB':>9} {'memory':>7}")
    for sites, rounds in ((10, 10), (100, 5), (1000, 2)):
        pairs = [(measure("ours", sites, rounds), measure("loop", sites, rounds)) for _ in range(repeats)]
        ms = [median(pair[side][0] for pair in pairs) * 1000 for side in (0, 1)]
        mib = [median(pair[side][1] for pair in pairs) for side in (0, 1)]
        time = median(a[0] / b[0] for a, b in pairs)
        memory = median(a[1] / b[1] for a, b in pairs)
        print(f"{sites:>6} {ms[0]:>9.1f} {ms[1]:>9.1f} {time:>6.2f}x {mib[0]:>9.0f} {mib[1]:>9.0f} {memory:>6.2f}x")
        against = "hand-written PyTorch loop"
        case = f"{sites} sites, MLP 13-32-1, 1 epoch"
        rows.append(
            {"case": case, "metric": "time per round", "value": ms[0], "unit": "ms", "against": against, "ratio": time}
        )
        rows.append(
            {"case": case, "metric": "peak memory", "value": mib[0], "unit": "MiB", "against": against, "ratio": memory}
        )
    for name, runs in start_up(2 if arguments.quick else 5).items():
        print(f"{name}: median {median(runs):.2f} s, slowest {max(runs):.2f} s of {len(runs)}")
        rows.append(
            {"case": name, "metric": "start-up", "value": median(runs), "unit": "s", "against": None, "ratio": None}
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
