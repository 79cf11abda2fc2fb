"""``feeds`` in ``site.yaml``: the sources of live indicators, and how each is read.

::

    feeds:
      - {name: emr, kind: sql, path: emr.yaml, view: live.events, overlap_minutes: 180}
      - {name: adt, kind: hl7v2, path: /srv/engine/adt, time_zone: Europe/Berlin}
      - {name: stays, kind: fhir, path: fhir.yaml}
"""

from typing import Annotated, Literal, TypeAlias
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from wardround.client.feeds.events import KINDS

Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
Kind: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Arrival: TypeAlias = Literal["visit", "admission", "emergency", "nothing"]
"""What the arrival of a patient is, by the class of the stay."""


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except Exception:  # whatever its file system makes of a text that is no name
        raise ValueError("there is no such time zone; write an IANA name, such as Europe/Berlin") from None
    return name


class _Feed(BaseModel):
    """``path``: from the site's folder. ``time_zone``: of times that name none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    path: str
    time_zone: Annotated[str, AfterValidator(_zone)] = "UTC"


class _Stamped(_Feed):
    """``since``: where the first poll begins, by the time of arrival; None: with the oldest."""

    since: AwareDatetime | None = None


class SqlFeedSource(_Stamped):
    """``path``: the YAML file of the database. ``kinds``: what the view's column may hold.

    ``overlap_minutes``: how late a row may become visible after it was stamped.
    """

    kind: Literal["sql"]
    view: str
    kinds: tuple[Kind, ...] = KINDS
    overlap_minutes: float = Field(default=120.0, ge=0, le=10_080)


class Hl7FeedSource(_Feed):
    """``path``: the folder. ``classes``: PV1-2 of this hospital and what an arrival in it is, beyond HL7 table 0004.

    ``settle_seconds``: how long a file must have rested that does not say where its last message ends. ``encoding``,
    ``authority``: as for the connector ``hl7v2``.
    """

    kind: Literal["hl7v2"]
    encoding: Literal["utf-8", "iso8859-1", "iso8859-15", "cp1252"] = "utf-8"
    authority: str | None = None
    settle_seconds: float = Field(default=30.0, ge=0, le=3600)
    classes: dict[str, Arrival] = Field(default_factory=dict)


class FhirFeedSource(_Stamped):
    """``path``: the YAML file of the server. ``classes``: Encounter.class of this hospital, beyond HL7's v3-ActCode.

    ``overlap_minutes``: how late a change may become visible after its ``lastUpdated``.
    """

    kind: Literal["fhir"]
    classes: dict[str, Arrival] = Field(default_factory=dict)
    overlap_minutes: float = Field(default=120.0, gt=0, le=10_080)
    page: int = Field(default=200, ge=1, le=1000)


FeedSource: TypeAlias = Annotated[SqlFeedSource | Hl7FeedSource | FhirFeedSource, Field(discriminator="kind")]


def told_by(source: FeedSource) -> tuple[str, ...]:
    """The kinds of events that ``source`` may tell of."""
    if isinstance(source, SqlFeedSource):
        return source.kinds
    return tuple(kind for kind in KINDS if kind != "waiting") if isinstance(source, Hl7FeedSource) else KINDS
