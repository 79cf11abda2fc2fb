"""What hospital IT writes for the site's daemon: ``site.yaml`` beside the keys. It never leaves the site.

::

    data:
      - {connector: csv, path: data/patients.csv, options: {delimiter: ";"}}
    opt_outs:
      - {kind: list, path: data/opt-outs.txt}
    test_share: 0.3
    link: ../north-link
    roles: {officer: [1002], auditor: [1003]}
    feeds:
      - {name: emr, kind: sql, path: emr.yaml, view: live.events}
"""

from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from wardround.client.consent import FhirConsents, FlagColumn, IdList, Source
from wardround.client.feeds.settings import FeedSource
from wardround.client.yaml_text import load_yaml
from wardround.protocol.errors import UsageError, did_you_mean

SETTINGS: Final = "site.yaml"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LabelTable(_Part):
    """Where the labels of pictures lie: ``key`` is the column that names the picture.

    ``masks``: the folder of the masks that a study's label column names; None: the pictures' own.
    """

    connector: str = "csv"
    path: str
    key: str
    options: dict[str, Any] = Field(default_factory=dict)
    masks: str | None = None


class DataSource(_Part):
    """One table of patients, or pictures with their labels. Paths are taken from the site's folder unless absolute.

    ``mapping``: rules for this source alone, in place of the site's ``mapping.yaml``. ``keep_hours``: how long features
    of a running system (a database, a PACS) are used before they are read anew.
    """

    connector: str = "csv"
    path: str
    options: dict[str, Any] = Field(default_factory=dict)
    mapping: str | None = None
    labels: LabelTable | None = None
    keep_hours: float = Field(default=24.0, gt=0)


class ListOfIds(_Part):
    kind: Literal["list"]
    path: str
    delimiter: str = ","


class Flag(_Part):
    kind: Literal["column"]
    path: str
    id_column: str
    flag_column: str
    opted_out_values: frozenset[str] = frozenset({"1"})
    taking_part_values: frozenset[str] = frozenset({"0", ""})
    delimiter: str = ","


class Fhir(_Part):
    kind: Literal["fhir"]
    path: str


OptOutSource: TypeAlias = Annotated[ListOfIds | Flag | Fhir, Field(discriminator="kind")]


class Roles(_Part):
    """User ids of this machine that may use the daemon's socket. Root and the daemon's own user are always ``it``."""

    it: tuple[int, ...] = ()
    officer: tuple[int, ...] = ()
    auditor: tuple[int, ...] = ()


class SiteSettings(_Part):
    """``site.yaml``. ``link``: the folder of the SuperNode; ``threads``: cores for training."""

    data: tuple[DataSource, ...] = ()
    opt_outs: tuple[OptOutSource, ...] = ()
    test_share: float = Field(default=0.3, gt=0, lt=1)
    link: str | None = None
    socket: str | None = Field(
        default=None, description="control socket, where other users of the machine may reach it"
    )
    threads: int = Field(default=1, ge=1, le=256)
    metrics: str | None = Field(default=None, description="address for the hospital's monitoring; null: none")
    roles: Roles = Roles()
    feeds: tuple[FeedSource, ...] = ()

    @field_validator("feeds")
    @classmethod
    def _named_apart(cls, feeds: tuple[FeedSource, ...]) -> tuple[FeedSource, ...]:
        if len({feed.name for feed in feeds}) < len(feeds):
            raise ValueError("two feeds have one name")
        return feeds

    def feed(self, name: str) -> FeedSource:
        """The feed of that name. Raises UsageError."""
        for feed in self.feeds:
            if feed.name == name:
                return feed
        known = [feed.name for feed in self.feeds]
        hint = did_you_mean(name, known) if known else f"write one under 'feeds' in {SETTINGS}"
        raise UsageError(f"the site has no feed '{name}'", hint)


def read_settings(folder: Path) -> SiteSettings:
    """The settings in ``folder``; none are all defaults. Raises UsageError that names the first wrong key."""
    path = folder / SETTINGS
    try:
        given = load_yaml(path.read_text(encoding="utf-8")) if path.exists() else {}
        return SiteSettings.model_validate(given or {})
    except (yaml.YAMLError, UnicodeDecodeError, OSError):
        raise UsageError(f"'{SETTINGS}' of the site cannot be read as YAML", "docs/site.md shows one") from None
    except ValidationError as error:
        raise fault_in(SETTINGS, error) from None


def fault_in(name: str, error: ValidationError) -> UsageError:
    """Two lines for a person: the key that is wrong, and what is allowed; never the value that stands there."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    unknown, tagged = first["type"] in ("extra_forbidden", "invalid_key"), first["type"].startswith("union_tag")
    # A key that nobody knows, and a kind that is none, may be anything: an id that was pasted to the wrong place.
    parts = list(first["loc"][:-1] if unknown else first["loc"])
    # Below these the keys are values of the site's data.
    cut = next((place + 1 for place, part in enumerate(parts) if part in ("codes", "classes")), None)
    where = ".".join(str(part) for part in parts[:cut])
    what = "there is a key that is none" if unknown else "this kind is not known" if tagged else first["msg"]
    return UsageError(f"'{name}'{f', {where!r}' if where else ''}: {what}", "docs/site.md lists every setting")


def opt_out_sources(settings: SiteSettings, folder: Path) -> list[Source]:
    """The sources of opt-outs, as the rounds ask them."""
    made: list[Source] = []
    for source in settings.opt_outs:
        path = folder / source.path
        if isinstance(source, ListOfIds):
            made.append(IdList(path, source.delimiter))
        elif isinstance(source, Flag):
            values = (source.opted_out_values, source.taking_part_values)
            made.append(FlagColumn(path, source.id_column, source.flag_column, *values, source.delimiter))
        else:
            made.append(FhirConsents(path))
    return made
