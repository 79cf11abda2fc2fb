"""One byte encoding for everything that is hashed or signed: JSON canonicalised by RFC 8785.

JSON because a governance officer can read it with any editor; RFC 8785 (JCS) because it fixes key order,
number format and escapes, so that any language computes the same bytes. Numbers are IEEE doubles; integers
beyond 2**53 and NaN or infinity are refused. Raw bytes travel as lower-case hex.

Every hash carries a domain-separation label from this file, so that bytes made for one purpose can never be
taken for another: SHA-256(label || 0x00 || canonical bytes).
"""

import hashlib
from typing import Any, Final, TypeAlias

import rfc8785

LABEL_PLAN: Final = "wardround/plan/1"
LABEL_MODEL: Final = "wardround/model/1"
LABEL_LAYOUT: Final = "wardround/layout/1"
LABEL_ENTRY: Final = "wardround/ledger-entry/1"
LABEL_ENTRY_SIGNATURE: Final = "wardround/ledger-entry-signature/1"
LABEL_APPROVAL: Final = "wardround/approval/1"
LABEL_SEEN: Final = "wardround/seen-head/1"
LABEL_REPLY: Final = "wardround/stored-reply/1"
LABEL_MEMORY: Final = "wardround/site-memory/1"
LABEL_CAMPAIGN: Final = "wardround/campaign-step/1"
LABEL_MEMBER: Final = "wardround/member/1"
LABEL_RELEASE: Final = "wardround/release/1"
LABEL_SPLIT: Final = "wardround/split/1"
LABEL_HELD_BACK: Final = "wardround/held-back/1"
LABEL_DATA: Final = "wardround/data/1"
LABEL_PATIENT: Final = "wardround/patient/1"
LABEL_FEED: Final = "wardround/feed/1"
LABEL_PICTURE: Final = "wardround/picture/1"
LABEL_SECAGG: Final = "wardround/secagg/1"
LABEL_INITIAL: Final = "wardround/initial-weights/1"
LABEL_ROSTER: Final = "wardround/roster/1"
LABEL_BEHAVIOUR: Final = "wardround/behaviour/1"
LABEL_RECEIPT: Final = "wardround/receipt/1"
LABEL_INVITATION: Final = "wardround/invitation/1"
LABEL_PAPER: Final = "wardround/paper/1"
LABEL_STATEMENT: Final = "wardround/statement/1"
LABEL_BULLETIN: Final = "wardround/bulletin/1"
LABEL_ALARM: Final = "wardround/alarm/1"
LABEL_PLUGIN: Final = "wardround/plugin/1"
LABEL_PLUGIN_SIGNATURE: Final = "wardround/plugin-signature/1"

Json: TypeAlias = Any
"""What JSON can say: None, bool, int, float, str, and lists, tuples and dicts of these."""


def encode(value: Json) -> bytes:
    """The canonical bytes of ``value``.

    Raises:
        ValueError: for NaN, infinity, an integer beyond +-(2**53 - 1) or a key that is not a string.
    """
    try:
        return rfc8785.dumps(value)
    except rfc8785.CanonicalizationError as error:
        raise ValueError(f"no canonical form: {error}") from error


def digest(label: str, *parts: Any) -> str:
    """SHA-256 over a label and byte buffers, 64 hex digits; a part is prefixed by its length (8 bytes, big-endian)."""
    state = hashlib.sha256(label.encode() + b"\x00")
    for part in parts:
        view = memoryview(part)
        view = view.cast("B") if view.nbytes else memoryview(b"")
        state.update(view.nbytes.to_bytes(8, "big"))
        state.update(view)
    return state.hexdigest()
