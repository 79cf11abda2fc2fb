"""The other side of ``apart``: ``python -m wardround.console.web.work NAME``, JSON in, lines of JSON out.

It runs with the lowest claim on the processor. Nothing is written anywhere but to the standard output.
"""

import base64
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any, Final, TypeAlias

from wardround.client.store.database import explained, open_copy
from wardround.client.store.folder import SiteFolder
from wardround.client.store.verify import Broken, verify_file
from wardround.protocol.checkpoint import Checkpoint
from wardround.protocol.errors import Unavailable, UsageError, WardroundError
from wardround.protocol.tree import Head

Tell: TypeAlias = Callable[[Mapping[str, Any]], None]


def verified(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """What ``wardround ledger verify`` says of the folder's ledger, with the folder's key and the heads of others."""
    folder = SiteFolder.open(Path(request["folder"]))
    with closing(open_copy(folder.database)) as store, explained("the ledger"):
        (entries,) = store.execute("SELECT count(*) FROM entries").fetchone()
        rows = store.execute("SELECT size, root FROM rollbacks WHERE site = ?", (folder.site,)).fetchall()
    seen = [Checkpoint(folder.site, Head(size, bytes.fromhex(root))) for size, root in rows]
    tell({"so_far": 0, "entries": entries})
    try:
        found = verify_file(
            folder.database,
            key=folder.identity().public.key,
            seen=seen,
            tell=lambda so_far: tell({"so_far": so_far, "entries": entries}),
        )
    except Broken as error:
        return {"broken": {"number": error.number, "reason": error.message.partition(": ")[2]}}
    return {
        "holds": {
            "entries": found.entries,
            "root": found.head.root.hex(),
            "signatures": found.signatures,
            "approvals": found.approvals,
            "checkpoints": found.checkpoints,
            "countersignatures": found.countersignatures,
            "countersigned_by": list(found.countersigned_by),
            "recoveries": found.recoveries,
        }
    }


def paper(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """A signed paper of the folder: its file name and its bytes. As ``wardround site statement`` and its like."""
    from wardround.console.paper.as_json import sign
    from wardround.console.paper.gather import audit_report, read_source, statement
    from wardround.console.paper.model import Kind
    from wardround.console.paper.sheets import language, render

    kind, suffix, tongue = Kind(request["kind"]), request["suffix"], request["language"]
    language(tongue)
    source = read_source(SiteFolder.open(Path(request["folder"])))
    if kind is Kind.AUDIT:
        since, until = date.fromisoformat(request["since"]), date.fromisoformat(request["until"])
        made = audit_report(source, since, until, language=tongue)
    else:
        made = statement(source, request["plan"], kind=kind, language=tongue)
    signed = sign(made, source.identity)
    content = render(signed, suffix)
    return {"name": signed.name.removesuffix(".json") + suffix, "content": base64.b64encode(content).decode()}


def checked(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """What ``wardround report verify`` says of a file, with the fingerprint that the reader knows."""
    from wardround.console.paper.check import Known, check

    verdict = check(base64.b64decode(request["content"]), Known(fingerprint=request["fingerprint"] or None))
    about = verdict.signed.paper
    return {
        "kind": about.kind.value,
        "site": about.site,
        "made_at": about.made_at,
        "digest": verdict.signed.digest,
        "accepted": verdict.accepted,
        "findings": [[one.result.name.lower(), one.says] for one in verdict.findings],
    }


WORK: Final[Mapping[str, Callable[[Mapping[str, Any], Tell], dict[str, Any]]]] = {
    "verify": verified,
    "paper": paper,
    "check": checked,
}


def main(name: str) -> None:
    """Do the work ``name``, and say how it went."""
    os.nice(10)

    def say(line: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    try:
        say({"done": WORK[name](json.load(sys.stdin), say)})
    except ModuleNotFoundError as error:
        _say_error(
            say,
            UsageError(
                f"papers need '{error.name}', which is not installed here",
                "install wardround with its extra: wardround[paper]",
            ),
        )
    except WardroundError as error:
        _say_error(say, error)


def _say_error(say: Tell, error: WardroundError) -> None:
    kind = "Unavailable" if isinstance(error, Unavailable) else "UsageError"
    say({"error": {"kind": kind, "message": error.message, "hint": error.hint}})


if __name__ == "__main__":
    main(sys.argv[1])
