"""A round over processes beside stock Flower's FedAvg: three sites, a tiny model, TLS and node authentication on both.

Ours: coordinator, daemons, differential privacy and secure aggregation, two exchanges a round. Stock: on the same
machine, right after, ``flower-superlink`` and three ``flower-supernode`` in their default isolation, FedAvg without
secure aggregation. Also what a daemon costs when nothing happens.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final

from _ports import free_port
from rich.console import Console

from wardround.client.link import LinkFolder
from wardround.console.commands.demo import Demo
from wardround.server.folder import CoordinatorFolder
from wardround.simulations.datasets import Dataset, load_dataset

SITES: Final = ("cleveland", "hungarian", "va")
EXCHANGES: Final = 2
"""Of a round in which no site is lost."""
DECLARED: Final = "+data.declared={cleveland:200,hungarian:200,va:100}"

STOCK_SERVER: Final = """
import sys, time
import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class Timed(FedAvg):
    def configure_train(self, server_round, arrays, config, grid):
        print("round", server_round, time.monotonic(), file=open(config_path(), "a"), flush=True)
        return super().configure_train(server_round, arrays, config, grid)


def config_path():
    return PATH


@app.main()
def main(grid: Grid, context: Context) -> None:
    strategy = Timed(fraction_evaluate=0.0, min_train_nodes=3, min_available_nodes=3)
    strategy.start(grid=grid, initial_arrays=ArrayRecord([np.zeros(16, np.float32)]), num_rounds=ROUNDS + 1)
"""

STOCK_CLIENT: Final = """
import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    model = [array + np.float32(1.0) for array in message.content["arrays"].to_numpy_ndarrays()]
    content = RecordDict({"arrays": ArrayRecord(model), "metrics": MetricRecord({"num-examples": 1})})
    return Message(content, reply_to=message)
"""

STOCK_PROJECT: Final = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "stock"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "benchmark"
fab-include = ["*.py"]

[tool.flwr.app.components]
serverapp = "stock_server:app"
clientapp = "stock_client:app"

[tool.flwr.app.config]
"""


def ours(path: Path, rounds: int) -> dict[str, float]:
    """Median seconds of a secure round after the first; memory (MiB) and share of a core of an idle daemon."""
    whole = load_dataset("heart_disease", "complete")
    dataset = Dataset(tuple(part for part in whole.sites if part.site in SITES), whole.attribution)
    settings = (f"rounds={rounds}", "privacy.noise_multiplier=2.84", "data.dataset=null", DECLARED)
    demo = Demo(path, dataset, ("study=heart_disease", *settings, "deadline_seconds=120"), Console(quiet=True))
    try:
        demo.prepare()
        idle = idle_daemon(path / SITES[0])
        demo.begin()
        times = round_times(path, rounds)
    finally:
        demo.end()
    return {"round": median(times), **idle}


def idle_daemon(folder: Path, seconds: float = 10.0) -> dict[str, float]:
    """Before any data was loaded."""
    time.sleep(35.0)
    pid = int((folder / "daemon.pid").read_text())
    began = cpu_seconds(pid)
    time.sleep(seconds)
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return {
        "idle_share": (cpu_seconds(pid) - began) / seconds,
        "idle_mib": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
    }


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def round_times(path: Path, rounds: int) -> list[float]:
    """Seconds between the receipts of one round and of the next."""
    seen: list[float] = []
    until = time.monotonic() + 120.0 + 60.0 * rounds
    while len(seen) < rounds and time.monotonic() < until:
        found = len(list(path.glob("hub/studies/*/receipts/*.json")))
        while len(seen) < found:
            seen.append(time.monotonic())
        time.sleep(0.02)
    if len(seen) < rounds:
        raise SystemExit(f"the study did not end; logs are in {path}")
    return [after - before for before, after in pairwise(seen)]


def stock(path: Path, rounds: int) -> float:
    """Median seconds of a round of stock Flower's FedAvg, after the first."""
    hub = CoordinatorFolder.create(
        path / "hub", "stock", "127.0.0.1", free_port(), listen_host="127.0.0.1", runtime_port=free_port()
    )
    app, times = path / "app", path / "times"
    app.mkdir()
    (app / "pyproject.toml").write_text(STOCK_PROJECT)
    (app / "stock_server.py").write_text(STOCK_SERVER.replace("PATH", repr(str(times))).replace("ROUNDS", str(rounds)))
    (app / "stock_client.py").write_text(STOCK_CLIENT)
    environment = os.environ | {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_HOME": str(path / "flwr"),
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    port, children = hub.about.public_port, list[subprocess.Popen[bytes]]()

    def start(*words: str) -> None:
        with (path / f"{words[0]}.log").open("ab") as output:
            children.append(subprocess.Popen(list(words), stdout=output, stderr=output, env=environment))

    try:
        tls = ("--ssl-ca-certfile", str(hub.ca), "--ssl-certfile", str(hub.certificate))
        start(
            "flower-superlink", "--host", "127.0.0.1", "--port", str(port), *tls, "--ssl-keyfile",
            str(hub.certificate_key), "--enable-supernode-auth", "--disable-runtime-dependency-installation",
        )  # fmt: skip
        wait_for(port)
        for site in SITES:
            link = LinkFolder.create(
                path / f"{site}-link", site, f"127.0.0.1:{port}", hub.ca.read_bytes(), runtime_port=free_port()
            )
            register(port, hub, link)
            start(
                "flower-supernode", "--superlink", f"127.0.0.1:{port}", "--root-certificates", str(link.ca),
                "--auth-supernode-private-key", str(link.node_key), "--port", str(link.about.runtime_port),
            )  # fmt: skip
        time.sleep(10.0)
        run_stock(app, port, hub, environment)
        until = time.monotonic() + 120.0 + 40.0 * rounds
        while not times.exists() or len(times.read_text().splitlines()) < rounds + 1:
            if time.monotonic() > until:
                raise SystemExit(f"stock Flower did not end; logs are in {path}")
            time.sleep(0.1)
    finally:
        for child in reversed(children):
            child.send_signal(signal.SIGTERM)
        for child in children:
            try:
                child.wait(20.0)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
    stamps = [float(line.split()[2]) for line in times.read_text().splitlines()]
    return median([after - before for before, after in pairwise(stamps[1:])])


def control(port: int, hub: CoordinatorFolder) -> Any:
    """The stock SuperLink's control service."""
    from flwr.supercore.control.control_http_client import ControlHttpClient
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

    version = RuntimeVersionHttpInterceptor(component_name="benchmark")
    return ControlHttpClient.from_server_address(f"127.0.0.1:{port}", False, hub.ca.read_bytes(), [version])


def register(port: int, hub: CoordinatorFolder, link: LinkFolder) -> None:
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key
    from flwr.proto.control_pb2 import RegisterNodeRequest
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    key = public_key_to_bytes(load_ssh_public_key(link.node_key_line().encode()))
    control(port, hub).RegisterNode(RegisterNodeRequest(public_key=key))


def run_stock(app: Path, port: int, hub: CoordinatorFolder, environment: dict[str, str]) -> None:
    from flwr.cli.build import build_fab_from_disk
    from flwr.proto.control_pb2 import StartRunRequest
    from flwr.proto.fab_pb2 import Fab

    control(port, hub).StartRun(StartRunRequest(fab=Fab(hash_str="", content=build_fab_from_disk(app))))


def wait_for(port: int) -> None:
    until = time.monotonic() + 60.0
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise SystemExit("the stock SuperLink does not listen")


def main() -> None:
    """Print the ratios; ``--json FILE`` writes them too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two rounds, and no stock Flower beside them")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rounds = 3 if arguments.quick else 12
    with tempfile.TemporaryDirectory() as place:
        (path := Path(place) / "ours").mkdir(mode=0o700)
        measured = ours(path, rounds)
        beside = None
        if not arguments.quick:
            (path := Path(place) / "stock").mkdir(mode=0o700)
            beside = stock(path, rounds)
    exchange = measured["round"] / EXCHANGES
    rows = [
        {"case": "secure round, 3 sites", "metric": "seconds", "value": round(measured["round"], 2), "unit": "s",
         "against": "stock FedAvg without it", "ratio": beside and round(measured["round"] / beside, 2)},
        {"case": "exchange, 3 sites", "metric": "seconds", "value": round(exchange, 2), "unit": "s",
         "against": "stock round", "ratio": beside and round(exchange / beside, 2)},
        {"case": "stock FedAvg round, 3 sites", "metric": "seconds", "value": beside and round(beside, 2), "unit": "s",
         "against": "itself", "ratio": 1.0},
        {"case": "idle daemon", "metric": "share of a core", "value": round(measured["idle_share"], 4), "unit": "1",
         "against": "goal 0.01", "ratio": round(measured["idle_share"] / 0.01, 2)},
        {"case": "idle daemon", "metric": "memory", "value": round(measured["idle_mib"]), "unit": "MiB",
         "against": "goal 400", "ratio": round(measured["idle_mib"] / 400, 2)},
    ]  # fmt: skip
    for row in rows:
        print(f"{row['case']:<30} {row['metric']:<16} {row['value']!s:>8} {row['unit']:<4} "
              f"{row['ratio'] if row['ratio'] is not None else '':>6} x {row['against']}")  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
