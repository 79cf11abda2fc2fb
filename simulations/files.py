"""The files of a run: what a simulation writes into ``runs/<time>-<study>/`` and reads back to resume."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate, pairwise
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet
from safetensors.numpy import save

from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.parameters import Layout, Vector
from wardround.protocol.plan import StudyPlan
from wardround.server.store.checkpoint import write_checkpoint
from wardround.server.study import Progress
from wardround.simulations.result import RoundResult, SimulationResult


@dataclass(frozen=True, slots=True)
class EvaluationSnapshot:
    """What an interrupted run left of its evaluation rounds: their progress and ledgers."""

    progress: Progress
    ledgers: bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What an interrupted run left: the plan, the progress, the ledgers and the rounds so far."""

    plan: StudyPlan
    configuration: dict[str, object]
    progress: Progress | None
    ledgers: bytes | None
    rounds: list[RoundResult]
    evaluation: EvaluationSnapshot | None = None


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run's folder. A checkpoint is one file that holds everything, so it is never half of two rounds."""

    path: Path

    @classmethod
    def create(cls, parent: Path, study: str, now: datetime) -> "RunFolder":
        """A new folder ``<time>-<study>``. Raises Unavailable where it cannot be made."""
        name = f"{now:%Y%m%d-%H%M%S}-{study}"
        for number in range(1, 100):
            path = parent / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise Unavailable(
                    f"the folder '{path}' cannot be made: {error.strerror}", "choose another: simulation.output=FOLDER"
                ) from None
            return cls(path)
        raise Unavailable(f"'{parent}' already holds 99 runs of this second", "wait a second")

    def begin(self, plan: StudyPlan, configuration: dict[str, object]) -> None:
        """Write what the run was asked to do."""
        self._write("plan.json", plan.canonical)
        self._write("configuration.json", json.dumps(configuration, indent=2, sort_keys=True).encode() + b"\n")

    def checkpoint(
        self,
        progress: Progress,
        ledgers: bytes,
        rounds: Sequence[bytes],
        evaluation: EvaluationSnapshot | None = None,
    ) -> None:
        """Write everything that the next round depends on, before it opens; ``rounds`` are JSON, one each."""
        parts = [progress.to_bytes(), ledgers, b"[" + b",".join(rounds) + b"]"]
        parts += [] if evaluation is None else [evaluation.progress.to_bytes(), evaluation.ledgers]
        header = json.dumps([len(part) for part in parts]).encode() + b"\n"
        write_checkpoint(self.path / "checkpoint.bin", header + b"".join(parts))

    def read(self) -> Snapshot:
        """What an interrupted run left. Raises UsageError when this is no run's folder."""
        try:
            plan = StudyPlan.parse((self.path / "plan.json").read_bytes())
            configuration = json.loads((self.path / "configuration.json").read_bytes())
        except OSError:
            raise UsageError(f"'{self.path}' is not the folder of a run", "give a folder of runs/") from None
        checkpoint = self.path / "checkpoint.bin"
        if not checkpoint.exists():
            return Snapshot(plan, configuration, None, None, [])
        header, _, body = checkpoint.read_bytes().partition(b"\n")
        ends = [0, *accumulate(json.loads(header))]
        training, ledgers, written, *evaluation = [body[first:end] for first, end in pairwise(ends)]
        rounds = [RoundResult.model_validate(item) for item in json.loads(written)]
        left, beside = None, plan.evaluation_plan
        if evaluation and beside is not None:
            left = EvaluationSnapshot(Progress.from_bytes(evaluation[0], beside), evaluation[1])
        return Snapshot(plan, configuration, Progress.from_bytes(training, plan), ledgers, rounds, left)

    def finish(self, result: SimulationResult, layout: Layout, model: Vector) -> None:
        """Write rounds.parquet, model.safetensors and, when they are there, result.json; the checkpoint has served."""
        tensors = {name: tensor.copy() for name, tensor in layout.split(model).items()}
        metadata = {"plan": result.plan_digest, "model": result.final_model, "layout": layout.digest}
        self._write("model.safetensors", bytes(save(tensors, metadata)))
        parquet.write_table(rounds_table(result), self.path / "rounds.parquet")
        self._write("result.json", result.model_dump_json(indent=2).encode() + b"\n")
        (self.path / "checkpoint.bin").unlink(missing_ok=True)

    def finished(self) -> tuple[StudyPlan, SimulationResult]:
        """The plan and the result of a run that is over."""
        plan = StudyPlan.parse((self.path / "plan.json").read_bytes())
        return plan, SimulationResult.model_validate_json((self.path / "result.json").read_bytes())

    def write_report(self, page: str) -> Path:
        """Write report.html; returns its path."""
        self._write("report.html", page.encode())
        return self.path / "report.html"

    def _write(self, name: str, data: bytes) -> None:
        write_checkpoint(self.path / name, data)


def rounds_table(result: SimulationResult) -> pa.Table:
    """One row per round and site, with every metric as a column."""
    metrics = sorted({name for r in result.rounds for site in r.sites.values() for name in site.metrics})
    rows = [
        {
            "round_number": record.round_number,
            "state": record.state,
            "site": name,
            "outcome": site.outcome,
            "detail": site.detail,
            "epsilon_site": site.epsilon_site,
            "delta": result.privacy.delta,
            "model_after": record.model_after,
            **{metric: site.metrics.get(metric) for metric in metrics},
        }
        for record in result.rounds
        for name, site in record.sites.items()
    ]
    fields = [("round_number", pa.int32()), ("state", pa.string()), ("site", pa.string()), ("outcome", pa.string())]
    fields += [("detail", pa.string()), ("epsilon_site", pa.float64()), ("delta", pa.float64())]
    fields += [("model_after", pa.string()), *((metric, pa.float64()) for metric in metrics)]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))
