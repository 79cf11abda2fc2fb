"""HL7 v2 messages in files: where one begins, in which letters it is written, and what stands in its fields.

HL7 v2.5.1 chapter 2 and 2A. Segments end with a carriage return; files with line feeds, both, MLLP's framing bytes or
batch envelopes are read too. The package ``hl7`` takes segments apart. Its ``unescape`` writes what it does not
understand into the log, so escape sequences are undone here.
"""

import re
from codecs import getincrementaldecoder
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import IO, Any, Final

from wardround.client.connectors.events import BOUND, NOT_DAY, NOT_TIME, LeftOut, Tally
from wardround.client.connectors.parts import CHUNK

LONGEST: Final = 16 << 20
"""Bytes of a message."""
MOST_FIELDS: Final = 200_000
"""Separators of a message: each becomes an object of several hundred bytes."""

CHARACTER_SETS: Final[Mapping[str, str]] = {
    "ASCII": "utf-8",
    "UNICODE": "utf-8",
    "UNICODE UTF-8": "utf-8",
    "UTF-8": "utf-8",
    "UNICODE UTF-16": "utf-8",
    "GB 18030-2000": "gb18030",
    "KS X 1001": "euc_kr",
    "BIG-5": "big5",
    "ISO IR87": "iso2022_jp",
    "ISO IR159": "iso2022_jp_1",
    **{f"8859/{number}": f"iso8859-{number}" for number in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)},
}
"""MSH-18 by HL7 table 0211 to Python's codecs. A file in UTF-16 is told by its byte order mark."""

_READ: Final = frozenset({"MSH", "EVN", "PID", "PV1", "OBR", "OBX", "DG1", "PR1", "MRG"})
_SEGMENT: Final = re.compile(rb"[A-Z][A-Z0-9]{2}(?=[^A-Za-z0-9 ]|$)")
_ENVELOPE: Final = (b"FHS", b"BHS", b"BTS", b"FTS")
_BREAKS: Final = bytes.maketrans(b"\n\x0b\x1c", b"\r\r\r")
_STAMP: Final = re.compile(
    r"(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:\.(\d{1,6})\d*)?)?)?)?)?)?(?:([+-])(\d\d)(\d\d))?",
    re.ASCII,
)
_ISO: Final = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII)
_NUMBER: Final = re.compile(r"[+-]?(\d{1,40}(\.\d{0,40})?|\.\d{1,40})", re.ASCII)
_BOUND: Final = re.compile(r"\s*[<>\u2264\u2265]=?\s*(.*)", re.DOTALL)


def messages(stream: IO[bytes], name: str, tally: Tally) -> Iterator[list[bytes]]:
    """The messages of a file, each as its segments; text outside of one is passed over.

    A line that begins no segment belongs to the text of the one before. Bytes of a file in UTF-16 come as UTF-8.
    """
    kept: list[bytes] = []
    size = 0
    for segment in _segments(stream):
        if segment is not None and segment.startswith(b"MSH"):
            if kept and size <= LONGEST:
                yield kept
            kept, size = [segment], len(segment)
        elif segment is not None and segment.startswith(_ENVELOPE):
            if kept and size <= LONGEST:
                yield kept
            kept, size = [], 0
        elif kept:
            before, size = size, size + (LONGEST + 1 if segment is None else len(segment) + 1)
            if size > LONGEST:
                if before <= LONGEST:
                    tally.add(f"a message of more than {LONGEST >> 20} MB", name)
                kept = kept[:1]
            elif segment is not None and _SEGMENT.match(segment):
                kept.append(segment)
            elif segment is not None:
                kept[-1] += b"\n" + segment
    if kept and size <= LONGEST:
        yield kept


def _segments(stream: IO[bytes]) -> Iterator[bytes | None]:
    """Lines by any line end; None for one that is longer than a message may be."""
    rest, dropping = b"", False
    for chunk in _chunks(stream):
        pieces = (rest + chunk.translate(_BREAKS)).split(b"\r")
        rest = pieces.pop()
        for piece in pieces:
            if dropping:
                dropping = False
                yield None
            elif piece.strip():
                yield piece.lstrip(b" \t\xef\xbb\xbf") if b"MSH" in piece[:10] else piece
        if len(rest) > LONGEST:
            rest, dropping = b"", True
    if dropping:
        yield None
    elif rest.strip():
        yield rest.lstrip(b" \t\xef\xbb\xbf") if b"MSH" in rest[:10] else rest


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    first = stream.read(CHUNK)
    if first[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        while first:
            yield first
            first = stream.read(CHUNK)
        return
    decoder = getincrementaldecoder("utf-16")("replace")
    while first:
        yield decoder.decode(first).encode("utf-8", "replace")
        first = stream.read(CHUNK)


class Message:
    """A message that is taken apart. ``get`` counts as the standard does, from 1.

    Args:
        encoding: of a message that does not name its character set.

    Raises:
        LeftOut: it cannot be taken apart, or is not in its character set.
    """

    def __init__(self, segments: list[bytes], encoding: str) -> None:
        # Here and not above: a machine that simulates reads no messages, and needs no parser of them.
        from hl7 import parse

        head = segments[0]
        fields = head.split(head[3:4]) if len(head) > 3 else []
        if len(fields) < 9 or not 1 <= len(fields[1]) <= 5 or len(set(fields[1] + head[3:4])) != len(fields[1]) + 1:
            raise LeftOut("a message without a header that can be read")
        first = fields[17].split(fields[1][1:2] or b"~")[0] if len(fields) > 17 else b""
        named = first.strip().decode("ascii", "replace").upper()
        if named and named not in CHARACTER_SETS:
            raise LeftOut("a character set that is not known")
        self.codec = CHARACTER_SETS[named] if named else encoding
        read = [segment for segment in segments if segment[:3].decode("ascii", "replace") in _READ]
        try:
            text = b"\r".join(read).decode(self.codec)
        except ValueError:
            raise LeftOut("text that is not in its character set") from None
        if sum(text.count(letter) for letter in text[3:8]) > MOST_FIELDS:
            raise LeftOut("a message with too many fields")
        try:
            self.segments: list[Any] = list(parse(text))
        except Exception:
            raise LeftOut("a message that cannot be taken apart") from None
        self.escape = text[6] if len(fields[1]) > 2 else "\\"
        marks = (head[3:4] + fields[1]).decode("latin-1").ljust(5)
        self.letters = {"F": marks[0], "S": marks[1], "R": marks[2], "E": self.escape, "T": marks[4]}
        header = self.segments[0]
        self.kind = self.get(header, 9)
        self.trigger = self.get(header, 9, 2)
        self.sent, _ = stamp(self.get(header, 7), None)
        self.zone = self.sent.tzinfo if isinstance(self.sent, datetime) else None

    @property
    def seconds(self) -> float:
        """When it was sent, for the order of messages; without a zone as if in UTC."""
        sent = self.sent
        if sent is None:
            return 0.0
        sent = sent if isinstance(sent, datetime) else datetime(sent.year, sent.month, sent.day)
        return (sent if sent.tzinfo else sent.replace(tzinfo=UTC)).timestamp()

    def get(self, segment: Any, number: int, component: int = 1, repetition: int = 1, part: int = 1) -> str:
        """The text of a component; empty where there is none, or where the field says that there is nothing ("")."""
        node: Any = segment
        for index in (number, repetition - 1, component - 1, part - 1):
            node = (node if index == 0 else "") if isinstance(node, str) else node[index] if index < len(node) else ""
        text = self._unescaped(node if isinstance(node, str) else str(node)).strip()
        return "" if text == '""' else text

    def repetitions(self, segment: Any, number: int) -> int:
        """How often a field is repeated; 0: it is not there."""
        return len(segment[number]) if number < len(segment) and str(segment[number]) else 0

    def number(self, segment: Any, field: int, authority: str | None) -> str:
        """A patient's number in a field of type CX: that of ``authority``; None: that of type MR, else the first."""
        first = ""
        for repetition in range(1, self.repetitions(segment, field) + 1):
            found = self.get(segment, field, 1, repetition)
            if authority is not None:
                if self.get(segment, field, 4, repetition) == authority:
                    return found
            elif self.get(segment, field, 5, repetition) == "MR" and found:
                return found
            first = first or found
        return "" if authority is not None else first

    def patient(self, segment: Any, authority: str | None) -> str:
        """Whom a PID segment is about. Raises LeftOut."""
        found = self.number(segment, 3, authority)
        if not found and authority is None:
            found = self.get(segment, 2)
        if not found:
            raise LeftOut("a message without a patient's number")
        return found

    def when(self, text: str) -> tuple[datetime | date | None, str]:
        """A time in a field of this message: without a zone it has that of the message's own time."""
        return stamp(text, self.zone)

    def _unescaped(self, text: str) -> str:
        if self.escape not in text:
            return text
        mark = re.escape(self.escape)
        return re.sub(f"{mark}([^{mark}]*){mark}", self._meant, text)

    def _meant(self, found: re.Match[str]) -> str:
        word = found[1]
        if word in self.letters:
            return self.letters[word]
        if word[:1] == "X":
            try:
                return bytes.fromhex(word[1:]).decode(self.codec, "replace")
            except ValueError:
                return ""
        return "\n" if word[:3] in (".br", ".sp", ".ce") else ""


def stamp(text: str, zone: tzinfo | None) -> tuple[datetime | date | None, str]:
    """A time of HL7 v2, or an ISO date, which some systems write; and why it is none.

    Days and months in another order cannot be told apart, so 06.10.2014 is no time.
    """
    if not text:
        return None, ""
    try:
        if _ISO.fullmatch(text):
            if len(text) == 10:
                return date.fromisoformat(text), ""
            iso = datetime.fromisoformat(text)
            return (iso.replace(tzinfo=zone) if iso.tzinfo is None else iso), ""
        found = _STAMP.fullmatch(text)
        if found is None:
            return None, NOT_TIME
        year, month, day, hour, minute, second, fraction, sign, east, past = found.groups()
        if day is None:
            return None, NOT_DAY
        if hour is None:
            return date(int(year), int(month), int(day)), ""
        if sign:
            offset = timedelta(hours=int(east), minutes=int(past))
            zone = timezone(-offset if sign == "-" else offset)
        micro = int((fraction or "0").ljust(6, "0"))
        whole = datetime(int(year), int(month), int(day), int(hour), int(minute or 0), int(second or 0), micro, zone)
        return whole, ""
    except ValueError:
        return None, NOT_TIME


def quantity(text: str, use_bounds: bool) -> tuple[float | None, str]:
    """A number in a field, and why it is none: a bound such as <5 is its limit only with ``use_bounds``."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return float(text), ""
    bound = _BOUND.fullmatch(text)
    if bound and _NUMBER.fullmatch(bound[1].strip()):
        return (float(bound[1]), "") if use_bounds else (None, BOUND)
    return None, ""
