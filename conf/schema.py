"""The schema of a composed configuration: what a person may write, checked once, before anything runs.

YAML stays on the machine where it was written. What hospitals approve is the ``StudyPlan`` that ``conf/planning`` makes
of it.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wardround.conf.weights import WeightsFolder
from wardround.protocol.contract import DataContract
from wardround.protocol.errors import UsageError, did_you_mean
from wardround.protocol.identity import SiteId
from wardround.protocol.plan import Controller, LocalTraining, PrivacyMode, StrategySpec
from wardround.protocol.tasks import TaskSpec
from wardround.protocol.weights import WeightsFile


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StudySection(_Section):
    """Who asks what of whom, and why."""

    name: str
    title: str
    purpose: str
    controllers: tuple[Controller, ...]
    legal_basis: str
    ethics_reference: str
    recipients: tuple[str, ...]
    permitted_use: str
    valid_months: int = Field(default=12, ge=1, le=120)


class SiteSource(_Section):
    """Where one simulated site's table lies. ``options`` go to the connector."""

    site: SiteId
    connector: str = "csv"
    path: str
    options: dict[str, Any] = Field(default_factory=dict)


class DataSection(_Section):
    """A data set by its name, files by site, or only how many patients each hospital declares (nothing to simulate)."""

    dataset: str | None = None
    split: str = "complete"
    sites: tuple[SiteSource, ...] = ()
    declared: dict[SiteId, Annotated[int, Field(ge=50, multiple_of=50)]] = Field(default_factory=dict)
    test_share: float = Field(default=0.3, gt=0, lt=1, description="share of patients that test, for files by site")

    @model_validator(mode="after")
    def _one_source(self) -> "DataSection":
        if sum((self.dataset is not None, bool(self.sites), bool(self.declared))) != 1:
            raise ValueError("give one of: a dataset, a list of sites with their files, or declared patients by site")
        names = [source.site for source in self.sites]
        if len(set(names)) != len(names):
            raise ValueError("two sites have the same name")
        return self


class InitialSection(_Section):
    """The public starting weights: zeros, drawn from ``seed``, or those of an installed file."""

    scheme: Literal["zeros", "uniform", "file"] = "uniform"
    seed: int = Field(default=42, ge=0)
    file: WeightsFile | None = None

    @model_validator(mode="after")
    def _file(self) -> "InitialSection":
        if (self.scheme == "file") is not (self.file is not None):
            raise ValueError("scheme 'file' needs 'file' with sha256, licence and provenance, and only it has one")
        return self


class PrivacySection(_Section):
    """Privacy terms as written: ``auto`` asks for the smallest value that keeps the promise."""

    mode: PrivacyMode
    update_range: float = Field(default=16.0, gt=0)
    clip_norm: float = Field(default=1.0, gt=0)
    noise_multiplier: Annotated[float, Field(gt=0, le=1000)] | Literal["auto"] | None = None
    sampling_probability: float | None = Field(default=None, gt=0, le=1)
    delta: Annotated[float, Field(gt=0, lt=0.01)] | Literal["auto"] | None = None
    epsilon: float | None = Field(default=None, gt=0)
    epsilon_consortium: float | None = Field(default=None, gt=0)


class EvaluationSection(_Section):
    """The evaluation of the model while it is trained: see ``conf.phase``. No rounds: there is none."""

    rounds: tuple[Annotated[int, Field(ge=1)], ...] = ()
    every: int = Field(default=0, ge=0)
    ask: dict[str, Any] = Field(default_factory=dict)
    epsilon: float | None = Field(default=None, gt=0)
    epsilon_consortium: float | None = Field(default=None, gt=0)
    noise_multiplier: Annotated[float, Field(gt=0, le=1000)] | Literal["auto"] = "auto"
    smallest_cell: float = Field(default=10.0, ge=0)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)


class FaultSection(_Section):
    """One fault to play in a simulation."""

    site: SiteId
    round_number: int = Field(ge=1)
    kind: str


class ResplitSection(_Section):
    """Made-up hospitals in place of the real ones: see ``simulations.resplit``. ``sites`` 0 leaves them as they are."""

    sites: int = Field(default=0, ge=0, le=10_000)
    seed: int | None = Field(default=None, ge=0, description="null: that of the run, initial.seed")
    label_skew: float | None = Field(default=None, gt=0, le=1e6, description="alpha of Dirichlet's distribution")
    size_skew: float = Field(default=0.0, ge=0, le=3, description="sigma of the log-normal distribution")
    feature_shift: float = Field(default=0.0, ge=0, le=10, description="standard deviation, in units of the scale")
    missing_columns: float = Field(default=0.0, ge=0, lt=1, description="share of the columns")

    @model_validator(mode="after")
    def _sites(self) -> "ResplitSection":
        if self.sites == 1:
            raise ValueError("one made-up hospital is no federation: give two or more, or 0 for the real ones")
        turned = self.label_skew is not None or self.size_skew or self.feature_shift or self.missing_columns
        if turned and not self.sites:
            raise ValueError("say among how many made-up hospitals: simulation.resplit.sites")
        return self


class SimulationSection(_Section):
    """How a simulation runs on this machine."""

    engine: Literal["auto", "sites", "vectorised", "flower"] = "auto"
    workers: int | None = Field(default=None, ge=1, le=1024)
    cluster: str | None = None
    threads: int = Field(default=1, ge=1, le=256)
    evaluate_every: int = Field(default=1, ge=0)
    output: str = "runs"
    resume: str | None = None
    faults: tuple[FaultSection, ...] = ()
    resplit: ResplitSection = ResplitSection()


class PluginsSection(_Section):
    """Where a researcher's own task and strategy lie on this machine. No part of a plan."""

    task: str | None = None
    strategy: str | None = None


class Configuration(_Section):
    """The whole composed configuration of ``wardround simulate``."""

    study: StudySection
    data: DataSection
    contract: DataContract
    task: TaskSpec
    strategy: StrategySpec
    privacy: PrivacySection
    evaluation: EvaluationSection = EvaluationSection()
    secagg: Literal["auto", "on", "off"] = "auto"
    coordinator_directs: tuple[SiteId, ...] = ()
    local: LocalTraining
    initial: InitialSection = InitialSection()
    rounds: int = Field(ge=1)
    min_sites: int = Field(default=3, ge=1)
    deadline_seconds: float = Field(default=600, gt=0)
    must_include: tuple[SiteId, ...] = ()
    attempts: int = Field(default=3, ge=1, le=10)
    fall_back_share: float = Field(default=0.0, ge=0, le=0.5)
    epsilon_cap: float = Field(default=8.0, gt=0)
    consortium_cap: float = Field(default=8.0, gt=0)
    plugins: PluginsSection = PluginsSection()
    weights: str = Field(default="weights", description="the folder of this machine's installed weights files")
    simulation: SimulationSection = SimulationSection()

    @property
    def installed(self) -> WeightsFolder:
        """The weights files of this machine."""
        return WeightsFolder(Path(self.weights))


def parse_configuration(data: dict[str, Any]) -> Configuration:
    """The configuration in plain data. Raises UsageError that names the first wrong key."""
    if "contract" in data:
        data = {**data, "contract": listed_columns(data["contract"])}
    try:
        return Configuration.model_validate(data)
    except ValidationError as error:
        raise usage_error(error) from None


def listed_columns(contract: Any) -> Any:
    """A contract as written, whose columns may be a mapping by name, with a list of them."""
    if isinstance(contract, dict) and isinstance(contract.get("columns"), dict):
        columns = [{"name": name, **column} for name, column in contract["columns"].items()]
        return {**contract, "columns": columns}
    return contract


def usage_error(error: ValidationError) -> UsageError:
    """Two lines for a person from pydantic's list: the key that is wrong, and what is allowed there."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"] if not str(part).startswith("function-"))
    if first["type"] == "extra_forbidden":
        known = _siblings(Configuration, tuple(first["loc"][:-1]))
        hint = did_you_mean(str(first["loc"][-1]), known) if known else "remove it"
        return UsageError(f"there is no setting '{where}'", hint)
    message = first["msg"].removeprefix("Value error, ")
    text = f"'{where}': {message}" if where else message
    return UsageError(text, "see docs/configuration.md for every setting and its range")


def _siblings(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        field = model.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return list(model.model_fields)
