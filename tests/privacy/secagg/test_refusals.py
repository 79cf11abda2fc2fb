"""What tests/vectors/secagg.json says must be refused: each input is played against the code, honest and bent."""

import copy
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wardround.privacy.secagg.client import SitePlayer
from wardround.privacy.secagg.server import AttemptDesk, SetupDesk
from wardround.protocol.errors import ProtocolViolation, UsageError
from wardround.protocol.secagg import Agreement, Consent, Deal, Keys, Opening, Parcel, Proposal, Survivors, Upload

ROOT = Path(__file__).parents[3]
VECTORS: dict[str, Any] = json.loads((ROOT / "tests" / "vectors" / "secagg.json").read_text(encoding="utf-8"))
SESSIONS = {session["name"]: session for session in VECTORS["sessions"]}


@pytest.fixture(scope="module")
def scripts() -> dict[str, Any]:
    """What the file was made with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        return runpy.run_path(str(ROOT / "scripts" / "secagg_vectors.py")) | runpy.run_path(
            str(ROOT / "scripts" / "secagg_faults.py")
        )


def patched(value: Any, change: list[dict[str, Any]]) -> Any:
    """``value`` after a patch of RFC 6902."""
    made: Any = {"": copy.deepcopy(value)}
    for operation in change:
        if operation["op"] in ("copy", "move"):
            place, source = _place(made, operation["from"])
            new = place.pop(source) if operation["op"] == "move" else copy.deepcopy(place[source])
        else:
            new = copy.deepcopy(operation.get("value"))
        at, key = _place(made, operation["path"])
        if operation["op"] == "remove":
            del at[key]
        elif isinstance(at, list) and operation["op"] != "replace":
            at.insert(key, new)
        else:
            assert operation["op"] != "replace" or at[key] != new, "this changes nothing"
            at[key] = new
    return made[""]


def _place(document: Any, path: str) -> tuple[Any, Any]:
    """What holds the end of a path (RFC 6901), and its key there."""
    *way, last = path.split("/")
    at = document
    for step in way:
        at = at[int(step)] if isinstance(at, list) else at[step]
    return at, int(last) if isinstance(at, list) else last


class Receiver:
    """A party of a recorded session that has honestly taken part up to the exchange ``after``."""

    def __init__(self, scripts: dict[str, Any], case: dict[str, Any], after: str) -> None:
        session = SESSIONS[case["session"]]
        sealed = {f"{p['dealer']} to {p['recipient']}": {n: p[n] for n in ("ciphertext", "envelope") if p[n]}
                  for p in session["parcels"]}  # fmt: skip
        self.cast, self.parse = scripts["Cast"](session["name"], sealed), scripts["message"]
        self.site, number = case["receiver"], case["round"]
        self.attempt = next(each for each in session["attempts"] if each["round"] == number)
        if self.site == "coordinator":
            self.desk, self.table = SetupDesk(self.cast.session, self.cast.coordinator), None
            senders: tuple[str, ...] = self.cast.sites
        else:
            self.setup = self.cast.setup(self.site)
            senders = ("",)
        for exchange in scripts["way"](after):
            for sender in senders:
                data = scripts["honest_input"](session, exchange, self.site, sender, number)
                if data is not None:
                    self.give(exchange, data)

    def give(self, exchange: str, data: dict[str, Any]) -> None:
        if self.site == "coordinator":
            self._add_set_up(exchange, data) if exchange.startswith("S") else self._add(exchange, data)
        elif exchange in ("R1", "R2", "R3", "R2 and R3"):
            self._play(exchange, data)
        else:
            self._set_up(exchange, data)

    def _all(self, kind: type, data: list[Any]) -> tuple[Any, ...]:
        return tuple(self.parse(kind, each) for each in data)

    def _set_up(self, exchange: str, data: dict[str, Any]) -> None:
        if exchange == "S1":
            self.setup.keys()
        elif exchange == "S2":
            self.cast.deal(self.setup, self.site, self._all(Keys, data["keys"]))
        elif exchange == "S3":
            self.setup.agree(self._all(Deal, data["deals"]), self._all(Parcel, data["parcels"]))
        else:
            self.player = SitePlayer(self.setup.begin(self._all(Agreement, data["agreements"])))

    def _play(self, exchange: str, data: dict[str, Any]) -> None:
        proposal = self.parse(Proposal, data["proposal"])
        if exchange == "R1":
            self.player.mask(proposal, data["model_hash"], np.array(data["values"], np.int64))
        elif exchange == "R2":
            self.player.consent(proposal, self.parse(Survivors, data["survivors"]))
        elif exchange == "R2 and R3":
            self.player.open_whole(proposal, self.parse(Survivors, data["survivors"]))
        else:
            self.player.open(proposal, self._all(Consent, data["consents"]))

    def _add_set_up(self, exchange: str, data: dict[str, Any]) -> None:
        if exchange == "S1 answer":
            self.desk.add_keys(self.parse(Keys, data["keys"]))
        elif exchange == "S2 answer":
            self.desk.add_deal(self.parse(Deal, data["deal"]), self._all(Parcel, data["parcels"]))
        else:
            self.desk.add_agreement(self.parse(Agreement, data["agreement"]))

    def _add(self, exchange: str, data: dict[str, Any]) -> None:
        if self.table is None:
            proposal = {name: value for name, value in self.attempt["proposal"].items() if name != "hash"}
            self.table = AttemptDesk(self.desk, self.parse(Proposal, proposal))
        if exchange == "R1 answer":
            vector = np.frombuffer(bytes.fromhex(data["vector"]), "<u4")
            self.table.add_upload(self.parse(Upload, data["upload"]), vector)
        elif exchange == "R2 answer":
            self.table.survivors()
            self.table.add_consent(self.parse(Consent, data["consent"]))
        else:
            self.table.add_opening(self.parse(Opening, data["opening"]))


SAYS = {
    "signature": ("does not belong to its message", "has not signed what is asked", "is not one that this site made",
                  "is not under this list"),
    "session": ("for another session", "does not belong to this session"),
    "members": ("each once", "lacks some who were proposed"),
    "quorum": ("enough sites", "too few sites agreed", "below the plan's threshold"),
    "own": ("other keys for this site", "another deal of this site", "this site's own upload", "this one is not among"),
    "seen": ("other keys than this site", "another set-up than this site"),
    "parcel": ("not the one that it signed", "one parcel of each dealer", "not the ones that it signed"),
    "form": ("is malformed", "of low order", "cannot be opened", "one share for each attempt",
             "have the session's length", "does not have 32 bytes"),
    "commitment": ("not the one that it committed to", "not the one that was dealt"),
    "pair": ("does not have the secret",),
    "slot": ("no masks for",),
    "model": ("another model",),
    "bound": ("is of another proposal", "for another proposal", "is not one that this site made",
              "is not under this list", "another list of survivors"),
    "content": ("not the one that it signed",),
    "range": ("exceeds the ring's limit",),
    "cover": ("one share for each survivor",),
    "second": ("two proposals", "two lists", "differs from its first one", "uploaded two vectors",
               "of the set-up is not possible"),
    "turn": ("of the set-up is not possible", "has not masked for", "before this site has signed",
             "came after the list"),
}  # fmt: skip
"""How the code says each reason, so that no case is refused for another one than the file names."""


@pytest.mark.parametrize(
    "case", VECTORS["refused"], ids=lambda case: f"{case['exchange']}: {case['reason']}: {case['what']}"
)
def test_what_is_bent_is_refused_for_its_reason_and_the_honest_input_is_taken(
    scripts: dict[str, Any], case: dict[str, Any]
) -> None:
    session, exchange, usual = SESSIONS[case["session"]], case["exchange"], scripts["before"](case["exchange"])
    honest = scripts["honest_input"](session, exchange, case["receiver"], case["sender"], case["round"])
    bent = patched(honest, case["change"])
    # What comes at the wrong time would be taken at the right one.
    Receiver(scripts, case, usual).give(exchange, honest if case["after"] == usual else bent)
    receiver = Receiver(scripts, case, case["after"])
    with pytest.raises(ProtocolViolation if case["blames"] else UsageError) as refusal:
        receiver.give(exchange, bent)
    assert any(words in refusal.value.message for words in SAYS[case["reason"]])
    if isinstance(refusal.value, ProtocolViolation):
        assert refusal.value.site == case["blames"]


def test_every_reason_has_a_case_in_the_file_and_a_row_on_the_page(scripts: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "secure-aggregation.md").read_text(encoding="utf-8")
    assert {case["reason"] for case in VECTORS["refused"]} == set(scripts["REASONS"]) == set(SAYS)
    assert [reason for reason in SAYS if f"| `{reason}` |" not in page] == []
