"""The signed content of a paper: canonical JSON (RFC 8785) and the site's signature. HTML and PDF carry these bytes.

The site signs LABEL_PAPER || 0x00 || canonical content. The file is canonical too, so a paper has one spelling.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final

from pydantic import ConfigDict, TypeAdapter

from wardround.console.paper.model import Paper
from wardround.protocol.canonical import LABEL_PAPER, digest, encode
from wardround.protocol.errors import UsageError
from wardround.protocol.identity import Identity, PublicIdentity
from wardround.protocol.ledger import Hex64

MOST_BYTES: Final = 16 << 20
"""Of a paper's signed content; a plan may have 1 MiB, an excerpt some hundred kilobytes."""

_HINT: Final = "take the file as 'wardround site' wrote it, byte for byte"


@dataclass(frozen=True, slots=True)
class _File:
    __pydantic_config__ = ConfigDict(extra="forbid")

    content: Paper
    signature: Hex64


@dataclass(frozen=True, slots=True)
class Signed:
    """A content, its canonical bytes, and a signature (64 bytes) that nobody has checked yet."""

    paper: Paper
    content: bytes
    signature: bytes

    @property
    def digest(self) -> str:
        """The content's name, 64 hex digits."""
        return digest(LABEL_PAPER, self.content)

    @property
    def file(self) -> bytes:
        """The bytes of the JSON file."""
        # Members of a JSON object in canonical order: "content" comes before "signature".
        return b'{"content":' + self.content + b',"signature":"' + self.signature.hex().encode() + b'"}'

    @property
    def name(self) -> str:
        """A file name for it."""
        return f"{self.paper.site}-{self.paper.kind}-{self.digest[:12]}.json"

    def holds(self, key: bytes) -> bool:
        """Whether ``key`` (32 bytes) signed this content."""
        return PublicIdentity(self.paper.site, key).verifies(self.signature, _message(self.content))


def sign(paper: Paper, identity: Identity) -> Signed:
    """``paper`` signed by its site. Raises ValueError when ``identity`` is of another key."""
    if identity.public.key.hex() != paper.key:
        raise ValueError("a paper is signed with the key that it names")
    content = encode(_adapter().dump_python(paper, mode="json"))
    return Signed(paper, content, identity.sign(_message(content)))


def parse(data: bytes) -> Signed:
    """The signed content in ``data``, of which nothing is verified yet.

    Raises:
        UsageError: no paper of this version, or not in its one spelling.
    """
    if len(data) > MOST_BYTES:
        raise UsageError(f"the paper has more than {MOST_BYTES >> 20} MiB", _HINT)
    try:
        file = _file().validate_json(data)
        content = encode(_adapter().dump_python(file.content, mode="json"))
    except ValueError:
        raise UsageError("this is no paper of this version", _HINT) from None
    signed = Signed(file.content, content, bytes.fromhex(file.signature))
    if signed.file != data:
        raise UsageError("the paper is not in its one spelling: it was changed", _HINT)
    if signed.paper.about is not None and signed.paper.about.plan.digest != signed.paper.about.digest:
        raise UsageError("the paper names another plan than the one that it holds", _HINT)
    if (signed.paper.about is None) is (signed.paper.audit is None):
        raise UsageError("the paper is neither of a study nor of a period", _HINT)
    return signed


def _message(content: bytes) -> bytes:
    return LABEL_PAPER.encode() + b"\x00" + content


@cache
def _adapter() -> TypeAdapter[Paper]:
    return TypeAdapter(Paper)


@cache
def _file() -> TypeAdapter[_File]:
    return TypeAdapter(_File)
