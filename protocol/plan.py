"""The study plan: what the hospitals approve, and nothing else decides what runs.

A plan is frozen data with one byte encoding; the SHA-256 of those bytes is the plan's name. Whatever changes what is
computed on patients' data is in here; whatever only changes how fast it is computed (threads) is not, and needs no
approval.
"""

from datetime import date
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError, model_validator

from wardround.protocol.behaviour import behaviour
from wardround.protocol.canonical import LABEL_PLAN, digest, encode
from wardround.protocol.contract import DataContract
from wardround.protocol.errors import UsageError
from wardround.protocol.evaluated import Followed
from wardround.protocol.evaluation import EvaluationPhase
from wardround.protocol.events import DpEvent, PoissonGaussian, TreeGaussian, Unprotected
from wardround.protocol.identity import SiteId
from wardround.protocol.image_tasks import PIXEL_TASKS, ImageSegmentation, Outputs
from wardround.protocol.indicators import Indicators, alone
from wardround.protocol.parameters import Layout, Vector, initial_weights, model_hash
from wardround.protocol.part import Part, later
from wardround.protocol.plugins import PluginRef
from wardround.protocol.secagg import SMALLEST, honest, threshold
from wardround.protocol.statistics import Statistics
from wardround.protocol.tasks import TaskSpec
from wardround.protocol.weights import Installed, WeightsFile, nothing_installed, weights_of

NOISE_OF_A_STATISTIC: Final = 9.0
"""Standard deviations that a masked number of a statistics study leaves room for; its noise is within 8.6 of them."""


class PrivacyMode(StrEnum):
    NONE = "none"
    LOCAL = "local"
    DIST = "dist"


class Claim(StrEnum):
    """What a combination of privacy mode and secure aggregation is good for."""

    EPSILON_SITE = "epsilon_site"
    EPSILON_BOTH = "epsilon_site and epsilon_consortium"
    MASK_ONLY = "the server sees only sums; no differential privacy"
    SIMULATION_ONLY = "nothing: simulation only"


LEGAL_MODES: Final[dict[tuple[PrivacyMode, bool], Claim]] = {
    # (privacy mode, secure aggregation on): what may be claimed
    (PrivacyMode.LOCAL, False): Claim.EPSILON_SITE,
    (PrivacyMode.LOCAL, True): Claim.EPSILON_SITE,
    (PrivacyMode.DIST, True): Claim.EPSILON_BOTH,
    (PrivacyMode.NONE, True): Claim.MASK_ONLY,
    (PrivacyMode.NONE, False): Claim.SIMULATION_ONLY,
}


class PrivacyTerms(Part):
    """The differential privacy of a study; unit: one patient of one site, adjacency: add or remove one."""

    mode: PrivacyMode
    secure_aggregation: bool = False
    update_range: float = Field(
        default=16.0, gt=0, description="under secure aggregation no weight moves further than this in a round"
    )
    clip_norm: float = Field(default=1.0, gt=0, description="C: bound on one patient's gradient, 2-norm")
    noise_multiplier: float | None = Field(default=None, gt=0, le=1000, description="sigma / C")
    sampling_probability: float | None = Field(default=None, gt=0, le=1, description="q")
    delta: float | None = Field(default=None, gt=0, lt=0.01)
    epsilon: float | None = Field(default=None, gt=0, description="the most this study may cost one site")
    epsilon_consortium: float | None = Field(
        default=None, gt=0, description="mode dist: the most against the coordinator and the sites that may collude"
    )
    outsiders_only: bool = Field(
        default=False,
        description="one authority directs the coordinator and a site: secure aggregation protects against outsiders "
        "only, and nothing but epsilon_site is claimed",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "PrivacyTerms":
        if (self.mode, self.secure_aggregation) not in LEGAL_MODES:
            raise ValueError(f"privacy mode '{self.mode}' needs secure aggregation")
        terms = (self.noise_multiplier, self.sampling_probability, self.delta, self.epsilon)
        if self.mode is PrivacyMode.NONE and any(term is not None for term in terms):
            raise ValueError("privacy mode 'none' has no noise, sampling, delta or epsilon")
        if self.mode is not PrivacyMode.NONE and any(term is None for term in terms):
            raise ValueError(f"privacy mode '{self.mode}' needs noise_multiplier, sampling_probability, delta, epsilon")
        if (self.mode is PrivacyMode.DIST) is not (self.epsilon_consortium is not None):
            raise ValueError("epsilon_consortium belongs to privacy mode 'dist', which needs it")
        if self.outsiders_only and (self.mode, self.secure_aggregation) == (PrivacyMode.NONE, True):
            raise ValueError(
                "one authority directs the coordinator and a site, so sums hide nothing from it: a study without "
                "differential privacy would have no protection at all"
            )
        return self

    @property
    def claim(self) -> Claim:
        legal = LEGAL_MODES[self.mode, self.secure_aggregation]
        return Claim.EPSILON_SITE if self.outsiders_only and legal is Claim.EPSILON_BOTH else legal


class StrategySpec(Part):
    """A strategy by its name in the registry, with its parameters as plain numbers."""

    name: str
    parameters: dict[str, float] = Field(default_factory=dict)
    plugin: PluginRef | None = later(None, description="a researcher's own: simulation only")


class LocalTraining(Part):
    """What each site does in a round. Under DP each step draws its own Poisson sample; ``batch_size`` is for none."""

    steps: int | None = Field(default=None, ge=1, description="optimiser steps a round; null: by epochs")
    epochs: int | None = Field(default=None, ge=1, description="passes over the data a round (without DP only)")
    batch_size: int | None = Field(default=None, ge=1, description="patients a step (without DP only)")
    learning_rate: float = Field(gt=0)

    @model_validator(mode="after")
    def _one_length(self) -> "LocalTraining":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("local training: give steps or epochs, not both")
        return self


class Participant(Part):
    """A site in the plan. The patient count is public and rounded up to the next 50, so that it names nobody."""

    site: SiteId
    declared_patients: int = Field(ge=50, multiple_of=50)


class Controller(Part):
    """Who answers for the processing (GDPR Art. 4(7) or the local equivalent)."""

    name: str
    role: Literal["sole", "joint"] = "joint"


class Governance(Part):
    """What an ethics board asks first."""

    purpose: str = Field(min_length=10)
    controllers: tuple[Controller, ...] = Field(min_length=1)
    legal_basis: str = Field(min_length=3)
    ethics_reference: str = Field(min_length=1)
    recipients: tuple[str, ...] = Field(min_length=1, description="who receives the model")
    permitted_use: str = Field(min_length=10)
    proposed_on: date
    expires_on: date

    @model_validator(mode="after")
    def _order(self) -> "Governance":
        if self.expires_on <= self.proposed_on:
            raise ValueError("a plan must expire after it was proposed")
        return self


class InitialModel(Part):
    """The public starting point: anyone can recompute it from the layout and the seed and compare the hash."""

    scheme: Literal["zeros", "uniform"] = "uniform"
    seed: int = Field(default=0, ge=0, lt=2**53)
    layout: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of the layout")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$", description="hash of the float32 weights")


class TrainedModel(Part):
    """A starting point that others have trained: an installed file. ``seed`` orders the batches of unprotected runs."""

    scheme: Literal["file"] = "file"
    seed: int = Field(default=0, ge=0, lt=2**53)
    file: WeightsFile
    layout: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of the layout")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$", description="hash of the float32 weights")


class StudyPlan(Part):
    """Everything that the hospitals approve."""

    format: Literal["wardround/plan/1"] = "wardround/plan/1"
    study: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")
    title: str
    governance: Governance
    contract: DataContract | None = Field(description="null: cohorts made by a program, simulation only")
    task: TaskSpec
    model: Annotated[InitialModel | TrainedModel, Field(discriminator="scheme")]
    strategy: StrategySpec
    local: LocalTraining
    rounds: int = Field(ge=1, le=10_000)
    min_sites: int = Field(default=3, ge=1)
    must_include: tuple[SiteId, ...] = Field(default=(), description="a round without one of these is void")
    attempts: int = Field(default=3, ge=1, le=10, description="times that a void round is tried before it is over")
    deadline_seconds: float = Field(default=600.0, gt=0)
    fall_back_share: float = later(
        0.0,
        ge=0,
        le=0.5,
        description="of a site's training patients, held back from every round to decide at the end whether the site "
        "keeps its own model; 0: nothing is decided",
    )
    evaluation: EvaluationPhase | None = later(None, description="null: the model is not evaluated while it is trained")
    participants: tuple[Participant, ...] = Field(min_length=1)
    privacy: PrivacyTerms
    code_version: str
    behaviour: str = Field(
        default_factory=behaviour, pattern=r"^[0-9a-f]{64}$", description="digest of the code that computes"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "StudyPlan":
        names = [participant.site for participant in self.participants]
        if names != sorted(set(names)):
            raise ValueError("participants must be distinct and in the order of their names")
        if self.min_sites > len(names):
            raise ValueError(f"min_sites is {self.min_sites}, but the plan names {len(names)} sites")
        if list(self.must_include) != sorted(set(self.must_include)) or not set(self.must_include) <= set(names):
            raise ValueError("must_include names participants, each once and in the order of their names")
        if (self.contract is None) != (self.task.name in ("programmed", "indicators")):
            raise ValueError("a plan has a data contract, unless its task was made by a program or reads events")
        if self.contract is not None and self.task.label_kind not in ("any", self.contract.label.kind):
            raise ValueError(f"task '{self.task.name}' needs a '{self.task.label_kind}' label in the contract")
        if self.contract is not None:
            if not isinstance(self.task, Statistics):
                _check_pictures(self.task, self.contract)
            if isinstance(self.task, Outputs | ImageSegmentation):
                self.task.check_label(self.contract.label)
        if isinstance(self.task, Statistics):
            _check_statistics(self, self.task)
        if isinstance(self.task, Indicators):
            _check_indicators(self, self.task)
        if self.privacy.mode is not PrivacyMode.NONE:
            if self.task.couples_patients:
                raise ValueError(
                    f"task '{self.task.name}' couples patients (risk sets), so no patient's gradient can be clipped "
                    "alone: use 'survival_piecewise' under differential privacy, or privacy=none in a simulation"
                )
            if self.local.steps is None or self.local.batch_size is not None:
                raise ValueError(
                    "under differential privacy a round is steps on Poisson samples: give steps, no batch_size"
                )
            if self.privacy.mode is PrivacyMode.DIST and self.local.steps != 1:
                raise ValueError("privacy mode 'dist' takes exactly one local step a round")
        if self.evaluation is not None:
            _check_evaluation(self, self.evaluation)
        return self

    @property
    def contract_or_fail(self) -> DataContract:
        """The contract. Raises UsageError for a plan of cohorts that a program made: no hospital runs such a one."""
        if self.contract is None:
            raise UsageError("the plan has no data contract", "it was made by a program, for simulation only")
        return self.contract

    @cached_property
    def layout(self) -> Layout:
        return self.task.layout(0 if self.contract is None else len(self.contract.feature_names))

    @property
    def follows(self) -> Followed | None:
        """The training whose model each round evaluates; None: a round asks about nothing but this plan's own."""
        return self.task.follows if isinstance(self.task, Statistics) else None

    @cached_property
    def handed_out(self) -> Layout:
        """What a request brings: the model that is trained, the sums so far, or the model that is evaluated."""
        if self.follows is None or not isinstance(self.task, Statistics):
            return self.layout
        return self.task.evaluations[0].model.layout_of(len(self.contract_or_fail.feature_names))

    @cached_property
    def evaluation_plan(self) -> "StudyPlan | None":
        """The plan that evaluates this one's model on the test patients while it is trained; None: there is none.

        Everybody derives the same one, so it needs no word of its own in this plan. It is approved, charged and signed
        for by itself: its event is another than that of training, and so are its patients.
        """
        return None if self.evaluation is None else _following(self, self.evaluation, self.digest)

    def starting_model(self, installed: Installed = nothing_installed) -> Vector:
        """The model that round 1 begins from, shape (d,).

        Raises:
            UsageError: its file is not installed, or what comes out has not the plan's hash.
        """
        if isinstance(self.model, TrainedModel):
            start = weights_of(self.model.file, self.layout.tensors, installed)
        else:
            start = initial_weights(self.layout, self.model.scheme, self.model.seed)
        if model_hash(start) != self.model.hash:
            raise UsageError(
                "the plan's initial model hash is not that of its layout and seed, or of its file",
                "rebuild the plan with this version of Wardround",
            )
        return start

    @cached_property
    def weights_files(self) -> tuple[WeightsFile, ...]:
        """Every file that must be installed wherever the study runs, each once: of the start, of a frozen network, of
        models that are evaluated."""
        evaluated = self.task.files if isinstance(self.task, Statistics) else ()
        named = (getattr(self.model, "file", None), getattr(self.task, "weights", None), *evaluated)
        return tuple({file.sha256: file for file in named if isinstance(file, WeightsFile)}.values())

    @cached_property
    def _declared(self) -> dict[str, int]:
        return {participant.site: participant.declared_patients for participant in self.participants}

    def declared_patients(self, site: str) -> int:
        """The public patient count of ``site``. Raises UsageError for a site that the plan does not name."""
        if site not in self._declared:
            raise UsageError(f"the plan names no site '{site}'", "check the site's name against the plan")
        return self._declared[site]

    def round_event(self, site: str) -> DpEvent:
        """What one round does to the patients of ``site``, or a campaign of indicators: what its ledger reserves."""
        terms = self.privacy
        if terms.noise_multiplier is None or terms.sampling_probability is None or self.local.steps is None:
            return Unprotected(releases=self.rounds if isinstance(self.task, Indicators) else 1)
        if isinstance(self.task, Indicators):
            return TreeGaussian(
                noise_multiplier=terms.noise_multiplier,
                sampling_probability=1.0,
                steps=1,
                declared_patients=self.declared_patients(site),
                ticks=self.task.ticks,
                contributions=max(each.contributions for each in self.task.indicators),
            )
        return PoissonGaussian(
            noise_multiplier=terms.noise_multiplier,
            sampling_probability=terms.sampling_probability,
            steps=self.local.steps,
            declared_patients=self.declared_patients(site),
        )

    @property
    def charges(self) -> int:
        """How often ``round_event`` is charged to a domain by the whole study: a campaign of indicators once."""
        return 1 if isinstance(self.task, Indicators) else self.rounds

    @property
    def repeats_answers(self) -> bool:
        """Whether another attempt at a round gets the same vector again, under the same charge.

        In mode local, and in every campaign of indicators. In mode dist an attempt at a round of training or statistics
        is another batch with noise of its own, and is charged.
        """
        return self.privacy.mode is PrivacyMode.LOCAL or isinstance(self.task, Indicators)

    @cached_property
    def sum_threshold(self) -> int:
        """t: sites that a sum under secure aggregation holds at least; all of them where nothing else protects it."""
        if self.privacy.claim is Claim.MASK_ONLY:
            return len(self.participants)
        return threshold(len(self.participants), self.min_sites)

    @property
    def quorum(self) -> int:
        """Answers without which a round is void: t under secure aggregation, else ``min_sites``."""
        return self.sum_threshold if self.privacy.secure_aggregation else self.min_sites

    @cached_property
    def honest_sites(self) -> int:
        """h = t - max(c, 1): sites whose shares of noise are in every sum that is opened, whoever of c colludes."""
        return honest(len(self.participants), self.min_sites)

    @property
    def most_of_a_statistic(self) -> float:
        """Within which a site holds each number of a statistics study, in units of one patient.

        A masked number may be as large as ``update_range`` times the most declared patients, its noise included, which
        is within 8.6 standard deviations (``privacy.mechanisms``).
        """
        most = self.privacy.update_range * max(each.declared_patients for each in self.participants)
        return most - NOISE_OF_A_STATISTIC * (self.privacy.noise_multiplier or 0.0)

    def consortium_event(self, site: str) -> DpEvent:
        """What one round does to a patient as the coordinator and c sites see it: in mode dist the noise of h shares.

        In any other mode that is the round's own event: no noise of others is counted.
        """
        event = self.round_event(site)
        if self.privacy.mode is not PrivacyMode.DIST or not isinstance(event, PoissonGaussian):
            return event
        share = event.noise_multiplier
        return event.model_copy(update={"noise_multiplier": share * self.honest_sites**0.5})

    @cached_property
    def canonical(self) -> bytes:
        """The bytes that are hashed, signed and stored."""
        return encode(self.model_dump(mode="json"))

    @cached_property
    def digest(self) -> str:
        """The plan's name: 64 hex digits."""
        return digest(LABEL_PLAN, self.canonical)

    @classmethod
    def parse(cls, data: bytes) -> "StudyPlan":
        """The plan in canonical bytes; bytes that are not canonical are refused, so one plan has one name.

        Raises:
            UsageError: the bytes are no plan, or not in that form.
        """
        try:
            plan = cls.model_validate_json(data)
            canonical = plan.canonical
        # A ValidationError too: its own text quotes the bytes.
        except ValueError:
            raise UsageError(
                "these bytes are no plan of this version", "take the plan from plan.json unchanged"
            ) from None
        if canonical != data:
            raise UsageError("these plan bytes are not in canonical form", "take the plan from plan.json unchanged")
        return plan


def _check_statistics(plan: StudyPlan, task: Statistics) -> None:
    """Raise ValueError unless a round of ``plan`` is one sum over all patients, of which each moves it by 1 at most."""
    if plan.contract is None or (plan.contract.image is not None and plan.contract.image.features != "pixels"):
        raise ValueError("a statistics study reads a contract's columns, or pictures as pixels: no histogram of them")
    for query in task.evaluations:
        _check_pictures(query.model.task, plan.contract)
    task.check(plan.contract)
    fixed = (plan.strategy.name, plan.local.steps, plan.local.learning_rate, plan.privacy.clip_norm, plan.model.scheme)
    if fixed != ("statistics", 1, 1.0, 1.0, "zeros") or plan.privacy.sampling_probability not in (None, 1.0):
        raise ValueError(
            "a statistics study has strategy 'statistics', one step of rate 1, clip_norm 1, sampling_probability 1, "
            "and starts from zeros"
        )
    if plan.most_of_a_statistic < 1.0:
        raise ValueError("update_range leaves the sums no room beside their noise: widen it")
    if task.by_site:
        _check_by_site(plan, task)
    if plan.fall_back_share:
        raise ValueError("a statistics study has no model to fall back from: fall_back_share is 0")
    if plan.rounds != task.rounds and task.rounds == 1:
        raise ValueError("these statistics are one round: a second one would be the same sums again, charged again")
    kept = {} if task.rounds == 1 else {"rounds": task.rounds}
    if plan.rounds != task.rounds or plan.strategy.parameters != kept:
        raise ValueError(f"task and strategy of a statistics study name the plan's rounds, here {plan.rounds}")


def _check_by_site(plan: StudyPlan, task: Statistics) -> None:
    """Raise ValueError unless the plan releases figures of each hospital under its own full noise."""
    if task.by_site != tuple(participant.site for participant in plan.participants):
        raise ValueError("by_site names every hospital of the plan, in the order of their names: all know of all")
    if plan.privacy.mode is PrivacyMode.DIST:
        raise ValueError("by_site has no privacy mode 'dist': a hospital's share of noise protects nobody by itself")
    if plan.privacy.secure_aggregation:
        raise ValueError("figures of one hospital are no sum: by_site has secure aggregation off")


def _check_evaluation(plan: StudyPlan, phase: EvaluationPhase) -> None:
    """Raise ValueError unless the phase looks at the model that ``plan`` trains, after rounds that it has."""
    if isinstance(plan.task, Statistics | Indicators):
        raise ValueError("a plan that trains nothing has no model to evaluate")
    if phase.rounds[-1] > plan.rounds or phase.rounds[0] < 1:
        raise ValueError(f"evaluation after round {phase.rounds[-1]}, and the plan has {plan.rounds}")
    for query in phase.task("0" * 64).evaluations:
        if query.model.task != plan.task or query.model.layout != plan.layout.digest:
            raise ValueError(f"query '{query.name}' evaluates another model than the plan's own")
    try:
        # Not the property: a copy of this plan with other terms would keep what it holds.
        _following(plan, phase, "0" * 64)
    except ValidationError as error:
        raise ValueError(f"evaluation: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def _following(plan: StudyPlan, phase: EvaluationPhase, digest: str) -> StudyPlan:
    """The plan that evaluates the model of ``plan``, whose digest is given. Raises ValidationError where none can."""
    terms, task = plan.privacy, phase.task(digest)
    layout = task.layout(0)
    zeros = model_hash(initial_weights(layout, "zeros", 0))
    return StudyPlan(
        study=f"{plan.study[:52]}-evaluation",
        title=f"{plan.title}: evaluation while it is trained",
        governance=plan.governance,
        contract=plan.contract,
        task=task,
        model=InitialModel(scheme="zeros", layout=layout.digest, hash=zeros),
        strategy=StrategySpec(name="statistics", parameters={} if task.rounds == 1 else {"rounds": task.rounds}),
        local=LocalTraining(steps=1, learning_rate=1.0),
        rounds=task.rounds,
        min_sites=plan.min_sites,
        attempts=plan.attempts,
        deadline_seconds=plan.deadline_seconds,
        participants=plan.participants,
        privacy=PrivacyTerms(
            mode=terms.mode,
            secure_aggregation=terms.secure_aggregation,
            outsiders_only=terms.outsiders_only,
            update_range=terms.update_range,
            noise_multiplier=phase.noise_multiplier,
            sampling_probability=None if terms.mode is PrivacyMode.NONE else 1.0,
            delta=terms.delta,
            epsilon=phase.epsilon,
            epsilon_consortium=phase.epsilon_consortium,
        ),
        code_version=plan.code_version,
        behaviour=plan.behaviour,
    )


def _check_indicators(plan: StudyPlan, task: Indicators) -> None:
    """Raise ValueError unless a round of ``plan`` is a tick of this campaign, under terms that can be kept."""
    terms, sites = plan.privacy, len(plan.participants)
    if plan.contract is not None:
        raise ValueError("indicators are made of events and not of a table: the plan has no data contract")
    if terms.mode is PrivacyMode.DIST and task.on_absence == "local":
        raise ValueError(
            "on_absence 'local' adds in the open, where each hospital's own noise must be full; in privacy mode 'dist' "
            "it is a share: write 'gap' or 'wait'"
        )
    if sites < SMALLEST and terms.secure_aggregation:
        raise ValueError(f"there is no secure sum among {sites}: {alone(sites)}")
    if task.hospitals != sites:
        raise ValueError(f"the plan has {sites} participants, and the indicators {task.hospitals} hospitals")
    if (task.on_absence == "local") is not (plan.min_sites == 1 and not terms.secure_aggregation):
        raise ValueError(
            "on_absence 'local' is secure aggregation off and min_sites 1, and no other plan has these: each "
            "hospital's own noise is full, so whoever answers makes a tick"
        )
    if (task.on_absence == "wait") is not (plan.attempts > 1):
        raise ValueError("on_absence 'wait' has several attempts at a tick, any other one")
    expected: dict[str, float] = {"ticks": task.ticks, "indicators": len(task.indicators), "hospitals": sites}
    fixed: tuple[object, ...] = (
        plan.strategy.name,
        dict(plan.strategy.parameters),
        plan.local.steps,
        plan.local.learning_rate,
    )
    if fixed != ("indicators", expected, 1, 1.0) or (terms.clip_norm, plan.model.scheme) != (1.0, "zeros"):
        raise ValueError(
            "indicators have strategy 'indicators' with their own numbers, one step of rate 1, clip_norm 1, and "
            "start from zeros"
        )
    if terms.sampling_probability not in (None, 1.0) or plan.rounds != task.ticks or plan.fall_back_share:
        raise ValueError("every patient is in every tick, a tick is a round, and no model is there to fall back on")
    if plan.most_of_a_statistic < 1.0:
        raise ValueError("update_range leaves the sums no room beside their noise: widen it")


def _check_pictures(task: TaskSpec, contract: DataContract) -> None:
    """Raise ValueError unless a task on pictures gets pictures of its shape, and a task on columns columns."""
    image = contract.image
    if isinstance(task, PIXEL_TASKS):
        if image is None or image.features != "pixels":
            raise ValueError(f"task '{task.name}' needs an image in the contract, with features 'pixels'")
        if task.shape != image.shape:
            raise ValueError(
                f"task '{task.name}' is for pictures of {task.shape}, and the contract's are {image.shape}"
            )
    elif image is not None and image.features == "pixels":
        raise ValueError(f"task '{task.name}' works on columns: give the contract's image features 'histogram'")
