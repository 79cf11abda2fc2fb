"""A statistics study: a task that trains nothing, whose sums of every hospital's answers to its queries are the result.

What a query is stands in ``protocol.query``, its kinds in ``protocol.queries``.
"""

from math import sqrt
from typing import Final, Literal

from pydantic import Field, model_validator

from wardround.protocol.contract import CodeColumn, DataContract
from wardround.protocol.evaluated import Followed
from wardround.protocol.identity import SiteId
from wardround.protocol.image_tasks import ImageSegmentation, Outputs
from wardround.protocol.labels import ClassLabel, FindingsLabel, MaskLabel, NumberLabel, SurvivalLabel
from wardround.protocol.parameters import Layout, Tensor
from wardround.protocol.part import later
from wardround.protocol.queries import Evaluation, ModelQuery, Query, SegmentationEvaluation
from wardround.protocol.untrained import LARGEST, Untrained
from wardround.protocol.weights import WeightsFile

MOST_GROUPS: Final = 10_000

SITES: Final = "sites"
"""The tensor of the result that says how many hospitals are in the sums."""

YES_OR_NO: Final = ("0", "1")
"""The codes of a label's outcome or event."""

STATED: Final = ("0", "1", "unknown")
"""The codes of one of several findings."""

_OWN_PLAN: Final = "give a logistic_regression a file, and so a plan, without other kinds"


def rounds_before(name: str, ago: int) -> str:
    """The tensor of ``name`` in the sums of ``ago`` rounds before the last."""
    return f"{name}.{ago}" if ago else name


def of_site(site: str, name: str) -> str:
    """The tensor of ``name`` in the figures of one hospital by itself."""
    return f"{site}/{name}"


class Statistics(Untrained):
    """A task that trains nothing: each hospital adds one vector for all queries, and the sums are the study's result.

    The vector is scaled so that no patient moves it by more than 1 (2-norm) at all: query k of share s_k has s_k of
    their sum of the squared noise-to-signal budget, sum of weights squared = 1.
    """

    name: Literal["statistics"] = "statistics"
    label_kind: Literal["any"] = "any"
    patients: Literal["everyone", "training", "test"] = Field(
        default="everyone", description="whose rows are read: their own data domains are charged"
    )
    smallest_cell: float = Field(default=10.0, ge=0, description="a group of fewer, after noise, is not shown")
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    rounds: int = later(1, ge=1, le=30, description="of charged sums; more than one for what is asked in rounds only")
    by_site: tuple[SiteId, ...] = later(
        (), description="every hospital of the plan: figures of each by itself are released, with its name, and no sum"
    )
    follows: Followed | None = later(None, description="the training whose models the rounds evaluate")
    queries: tuple[Query, ...] = Field(min_length=1, max_length=256)

    @model_validator(mode="after")
    def _consistent(self) -> "Statistics":
        names = [query.name for query in self.queries]
        if len(set(names)) < len(names) or SITES in names:
            raise ValueError(f"queries have distinct names, and none is called '{SITES}'")
        if any((each.model.file is None) is not (self.follows is not None) for each in self.evaluations):
            raise ValueError("a model in training is evaluated by the plan that follows its training, and by no other")
        if self.follows is not None:
            if len(self.evaluations) < len(self.queries) or self.rounds != len(self.follows.rounds):
                raise ValueError("what follows a training evaluates its model, once after each of the rounds it names")
            if self.by_site:
                raise ValueError("what follows a training is a sum of all hospitals, so it has no by_site")
            if len({each.model.layout for each in self.evaluations}) > 1:
                raise ValueError("a training has one model, so all queries that follow it name the same layout")
        elif any(query.in_rounds for query in self.queries):
            once = next((query for query in self.queries if not query.in_rounds), None)
            if once is not None:
                raise ValueError(f"query '{once.name}' would be asked again in every round: {_OWN_PLAN}")
            if self.rounds < 2:
                raise ValueError("a logistic_regression needs 2 rounds at least")
        elif self.rounds > 1:
            raise ValueError("these statistics are one round: a second one would be the same sums again, charged again")
        large = next((query for query in self.queries if query.groups > MOST_GROUPS), None)
        if large is not None:
            raise ValueError(f"query '{large.name}' has {large.groups} groups, and {MOST_GROUPS} is the most")
        if self.evaluations and self.patients != "test":
            raise ValueError("a model is evaluated on patients who did not train it: patients is 'test'")
        if self.by_site and (self.rounds > 1 or any(query.at_least_sites for query in self.queries)):
            raise ValueError("by_site has figures of one hospital: none in rounds, none of at least several hospitals")
        if self.layout(0).size > LARGEST:
            raise ValueError(f"all queries together have more than {LARGEST} numbers")
        return self

    @property
    def evaluations(self) -> tuple[ModelQuery, ...]:
        return tuple(query for query in self.queries if isinstance(query, ModelQuery))

    @property
    def files(self) -> tuple[WeightsFile, ...]:
        """The files of the models that are evaluated."""
        return tuple(query.model.file for query in self.evaluations if query.model.file is not None)

    def layout(self, features: int) -> Layout:
        """The number of hospitals, then for each query its sums, shape (groups, sent), in the queries' order.

        So for every round, the last first (``rounds_before``); zeros for a round that is to come. ``by_site``: then for
        each hospital 1, where it has answered, and its own sums (``of_site``).
        """
        if self.by_site:
            alone = [(SITES, (1,)), *((q.name, (q.groups, q.sent)) for q in self.queries)]
            own = (Tensor(of_site(site, name), shape, 0) for site in self.by_site for name, shape in alone)
            return Layout((Tensor(SITES, (1,), 0), *own))
        tensors: list[Tensor] = []
        for ago in range(self.rounds):
            tensors.append(Tensor(rounds_before(SITES, ago), (1,), 0))
            tensors += (Tensor(rounds_before(q.name, ago), (q.groups, q.sent), 0) for q in self.queries)
        return Layout(tuple(tensors))

    @property
    def numbers(self) -> int:
        """What is made of a site's patients in a round."""
        return sum(query.groups * query.sent for query in self.queries)

    @property
    def added(self) -> int:
        """What a site adds in a round: ``by_site`` a place for each hospital, with nothing in those of others."""
        return (1 + self.numbers) * len(self.by_site) if self.by_site else self.numbers

    def weight(self, query: Query) -> float:
        """The part of the joint bound 1 that ``query`` has: the square root of its share of all shares."""
        return sqrt(query.share / sum(each.share for each in self.queries))

    def check(self, contract: DataContract) -> None:
        """Raise ValueError where a query reads what ``contract`` does not declare, or groups by what data might say."""
        numbers, codes = number_columns(contract), code_columns(contract)
        for query in self.queries:
            where = f"query '{query.name}'"
            stated: list[tuple[str, ...]] = [YES_OR_NO]
            if isinstance(query, ModelQuery):
                query.model.layout_of(len(contract.feature_names))
            if isinstance(query, Evaluation):
                _check_findings(query, contract, where)
                stated.append(STATED)
            if isinstance(query, SegmentationEvaluation):
                _check_structures(query, contract, where)
            for column in query.numbers:
                if column not in numbers:
                    raise ValueError(f"{where}: '{column}' is no column of numbers in the contract")
            for column in query.coded:
                if codes.get(column) not in stated:
                    raise ValueError(f"{where}: '{column}' is no column of 0 and 1 in the contract")
            for each in query.by:
                if each.codes and codes.get(each.column) != each.codes:
                    raise ValueError(f"{where}: groups by '{each.column}' are the contract's codes, all and in order")
                if each.cuts and each.column not in numbers:
                    raise ValueError(f"{where}: '{each.column}' is no column of numbers in the contract")
            for rule in query.where:
                if rule.codes and not set(rule.codes) <= set(codes.get(rule.column, ())):
                    raise ValueError(f"{where}: a filter on '{rule.column}' names a code that the contract has not")
                if not rule.codes and rule.column not in numbers:
                    raise ValueError(f"{where}: '{rule.column}' is no column of numbers in the contract")


def _check_findings(query: Evaluation, contract: DataContract, where: str) -> None:
    """Raise ValueError unless the model has an output for the outcome that is asked."""
    task, label = query.model.task, contract.label
    if not isinstance(task, Outputs) or task.outputs == 1:
        return
    task.check_label(label)
    if not isinstance(label, FindingsLabel) or query.outcome not in label.columns:
        raise ValueError(f"{where}: '{query.outcome}' is none of the findings that the model tells")


def _check_structures(query: SegmentationEvaluation, contract: DataContract, where: str) -> None:
    """Raise ValueError unless each structure that is asked about is one of the label's, and the model marks those."""
    task, label = query.model.task, contract.label
    if not isinstance(task, ImageSegmentation) or not isinstance(label, MaskLabel) or query.outcome != label.column:
        raise ValueError(f"{where}: '{query.outcome}' is no column of masks in the contract")
    task.check_label(label)
    meanings = list(label.structures.values())
    for structure in query.structures:
        if meanings.count(structure) != 1:
            raise ValueError(f"{where}: '{structure}' is not the meaning of one structure of the contract's masks")


def number_columns(contract: DataContract) -> tuple[str, ...]:
    """Every column of ``contract`` that holds a number, the label's among them."""
    label = contract.label
    found = [column.name for column in contract.columns if not isinstance(column, CodeColumn)]
    if isinstance(label, NumberLabel):
        found.append(label.column)
    if isinstance(label, SurvivalLabel):
        found.append(label.time)
    return tuple(found)


def code_columns(contract: DataContract) -> dict[str, tuple[str, ...]]:
    """Every column of ``contract`` that holds a code, with its codes in their order; an outcome's are 0 and 1."""
    label = contract.label
    found = {column.name: tuple(column.codes) for column in contract.columns if isinstance(column, CodeColumn)}
    if isinstance(label, ClassLabel):
        found[label.column] = YES_OR_NO
    if isinstance(label, SurvivalLabel):
        found[label.event] = YES_OR_NO
    if isinstance(label, FindingsLabel):
        found |= {finding.column: STATED for finding in label.findings}
    return found
