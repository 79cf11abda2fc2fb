"""What the coordinator has on disk of one study: the plan, the progress, the phase of the running round, receipts.

Every phase is written before the next one begins, so that a coordinator that was killed goes on where it was. A session
of secure aggregation is kept as its messages: adding them again gives the same desk. Nothing here is a vector of one
site; ``sum.bin`` holds the sum of masked vectors only. Models on the way are kept where the plan has them evaluated: a
study of its own does that, at its own pace.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import TypeAdapter
from safetensors.numpy import load

from wardround.privacy.secagg.server import AttemptDesk, SetupDesk
from wardround.protocol.errors import UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.parameters import Vector
from wardround.protocol.plan import StudyPlan
from wardround.protocol.receipt import Receipt, parse_receipt
from wardround.protocol.secagg import Agreement, Deal, Keys, Parcel, Session, Upload
from wardround.protocol.tensors import tensor_parts
from wardround.server.store.checkpoint import write_checkpoint
from wardround.server.study import Progress

WITNESS: Final = "witness.sqlite"

_SESSION: Final = TypeAdapter(Session)
_MESSAGES: Final = TypeAdapter(tuple[tuple[Keys, ...], tuple[Deal, ...], tuple[Parcel, ...], tuple[Agreement, ...]])
_UPLOADS: Final = TypeAdapter(tuple[Upload, ...])


@dataclass(frozen=True, slots=True)
class Attempt:
    """Which attempt at which round runs, and whether its vectors were all added up ("summed") or not ("asked").

    ``session`` and ``among``: the digest of the session, and whom of it was proposed. A second, other proposal for the
    same attempt would end the session.
    """

    round_number: int
    attempt: int
    phase: str
    reports: dict[str, tuple[str, str]]
    session: str = ""
    among: tuple[str, ...] = ()


class StudyFolder:
    """The folder of one study at the coordinator."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, parent: Path, plan: StudyPlan) -> "StudyFolder":
        """The folder of ``plan`` below ``parent``; it may be there already."""
        folder = cls.of(parent, plan)
        (folder.path / "receipts").mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (folder.path / "plan.json").exists():
            write_checkpoint(folder.path / "plan.json", plan.canonical)
        return folder

    @classmethod
    def of(cls, parent: Path, plan: StudyPlan) -> "StudyFolder":
        """Where the folder of ``plan`` is or will be; nothing is made."""
        return cls(parent / f"{plan.study}-{plan.digest[:12]}")

    @property
    def witness(self) -> Path:
        """What the coordinator has cosigned and heard of ledgers: in its own folder, for all studies."""
        return self.path.parent.parent / WITNESS

    @property
    def plan(self) -> StudyPlan:
        return StudyPlan.parse((self.path / "plan.json").read_bytes())

    def progress(self, plan: StudyPlan) -> Progress | None:
        """What the last round left, or None before the first one."""
        kept = self.path / "progress.bin"
        return Progress.from_bytes(kept.read_bytes(), plan) if kept.exists() else None

    def keep_progress(self, progress: Progress) -> None:
        """The round is over: written before the next one opens."""
        write_checkpoint(self.path / "progress.bin", *progress.to_parts())

    def keep_in_training(self, round_number: int, model: Vector) -> None:
        """The model after a round that another study evaluates. It is there for good: a round has one result."""
        path = self._in_training(round_number)
        if not path.exists():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            write_checkpoint(path, *tensor_parts({"model": model}))

    def in_training(self, plan: str, round_number: int) -> Vector | None:
        """The model after a round of the study of ``plan`` (a digest), whose folder lies beside; None: not yet."""
        for folder in self.path.parent.glob(f"*-{plan[:12]}"):
            path = StudyFolder(folder)._in_training(round_number)
            if path.exists():
                return load(path.read_bytes())["model"]
        return None

    def _in_training(self, round_number: int) -> Path:
        return self.path / "in-training" / f"{round_number:05d}.safetensors"

    def attempt(self) -> Attempt | None:
        """The attempt that ran when the coordinator ended, or None."""
        kept = self.path / "attempt.json"
        if not kept.exists():
            return None
        found = json.loads(kept.read_bytes())
        return Attempt(**found | {"among": tuple(found.get("among", ()))})

    def keep_attempt(self, attempt: Attempt) -> None:
        write_checkpoint(self.path / "attempt.json", json.dumps(asdict(attempt)).encode())

    def keep_sum(self, desk: AttemptDesk) -> None:
        """What was added up, before the first site is asked to sign the list of survivors."""
        uploads, summed = desk.added
        header = json.dumps(
            {
                "proposal": desk.proposal.hash,
                "uploads": _UPLOADS.dump_python(uploads, mode="json"),
                "type": summed.dtype.str,
            }
        ).encode()
        write_checkpoint(self.path / "sum.bin", header, b"\n", summed.data.cast("B"))

    def restore_sum(self, desk: AttemptDesk) -> bool:
        """Put back what ``keep_sum`` wrote for the same proposal; False when there is none."""
        kept = self.path / "sum.bin"
        if not kept.exists():
            return False
        with kept.open("rb") as file:
            header = json.loads(file.readline())
            if header["proposal"] != desk.proposal.hash:
                return False
            desk.restore(_UPLOADS.validate_python(header["uploads"]), np.fromfile(file, header["type"]))
        return True

    def drop_sum(self) -> None:
        (self.path / "sum.bin").unlink(missing_ok=True)

    def next_session(self) -> int:
        """A number that no session of this study had."""
        kept = self.path / "sessions"
        number = int(kept.read_text()) + 1 if kept.exists() else 1
        write_checkpoint(kept, str(number).encode())
        return number

    def keep_session(self, desk: SetupDesk, begun: date) -> None:
        body = {
            "begun": begun.isoformat(),
            "session": _SESSION.dump_python(desk.session, mode="json"),
            "messages": _MESSAGES.dump_python(desk.transcript, mode="json"),
        }
        write_checkpoint(self.path / "session.json", json.dumps(body).encode())

    def session(self, identity: Identity) -> tuple[SetupDesk, date] | None:
        """The desk of the session that is on disk and the day on which it was set up, or None."""
        kept = self.path / "session.json"
        if not kept.exists():
            return None
        body: dict[str, Any] = json.loads(kept.read_bytes())
        keys, deals, parcels, agreements = _MESSAGES.validate_json(json.dumps(body["messages"]))
        desk = SetupDesk(_SESSION.validate_json(json.dumps(body["session"])), identity)
        for one in keys:
            desk.add_keys(one)
        for deal in deals:
            desk.add_deal(deal, [parcel for parcel in parcels if parcel.dealer == deal.site])
        for agreement in agreements:
            desk.add_agreement(agreement)
        # One that a version before this wrote names no day: it is taken for an old one.
        return desk, date.fromisoformat(body.get("begun", date.min.isoformat()))

    def keep_receipt(self, receipt: Receipt) -> None:
        name = f"{receipt.round_number:05d}-{receipt.attempt}.json"
        write_checkpoint(self.path / "receipts" / name, receipt.canonical)

    def receipts(self) -> list[Receipt]:
        """Every receipt, in the order of rounds and attempts."""
        return [parse_receipt(file.read_bytes()) for file in sorted((self.path / "receipts").glob("*.json"))]

    def keep_model(self, plan: StudyPlan, model: Vector) -> Path:
        """The released weights as safetensors, named as the plan's layout names them."""
        path = self.path / "model.safetensors"
        write_checkpoint(path, *tensor_parts(plan.layout.split(model), {"plan": plan.digest}))
        return path

    def model(self, plan: StudyPlan) -> Vector | None:
        """The model after the last round, shape (d,), or None before the first."""
        progress = self.progress(plan)
        return None if progress is None else progress.state.model


def find_study(studies: Sequence[StudyPlan], wanted: str) -> StudyPlan:
    """The plan whose digest begins with ``wanted``, or the newest whose study has that name.

    Raises:
        UsageError: there is none, or more than one.
    """
    named = [plan for plan in studies if plan.study == wanted]
    found = named[:1] if named else [plan for plan in studies if plan.digest.startswith(wanted)]
    if len(found) != 1:
        known = ", ".join(f"{plan.study} ({plan.digest[:12]})" for plan in studies) or "none"
        raise UsageError(f"there is no one study '{wanted}'", f"known here: {known}")
    return found[0]
