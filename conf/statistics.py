"""From the YAML file of a statistics study to a configuration like any other.

A person writes what is asked (``statistics``) and what it may cost (``privacy``); who asks, of whose data and under
which contract is the file's own or, by ``like``, that of a ready study. Groups are written by the column's name: their
codes come from the contract, never from data. What a statistics study has no choice in (rounds of one sum over all
patients, and one round but for what is asked in rounds) is filled in here.
"""

from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import TypeAdapter, ValidationError

from wardround.conf.evaluated import EVALUATIONS, described
from wardround.conf.schema import Configuration, listed_columns, parse_configuration, usage_error
from wardround.protocol.contract import DataContract
from wardround.protocol.errors import UsageError, did_you_mean
from wardround.protocol.statistics import Statistics, code_columns

_FIXED: Final = {"local": {"steps": 1, "learning_rate": 1.0}, "initial": {"scheme": "zeros"}}

_NEWTON_ROUNDS: Final = 6
"""Of a logistic regression, if the file says nothing: from zeros, Newton's method is at its end after four or five."""

_OWN: Final = ("study", "data", "contract")
"""Sections that are taken whole from the file, or else from the study that ``like`` names."""

_OTHER: Final = (
    *("secagg", "coordinator_directs", "min_sites", "deadline_seconds", "must_include", "attempts"),
    *("epsilon_cap", "consortium_cap"),
)

_PRIVACY: Final = ("mode", "epsilon", "epsilon_consortium", "delta", "noise_multiplier", "update_range")

_KEYS: Final = ("like", "statistics", "privacy", *_OWN, *_OTHER)


def read_statistics(file: Path) -> Configuration:
    """The configuration in ``file``.

    Raises:
        UsageError: the file cannot be read, or the first thing that is wrong in it.
    """
    try:
        given = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        raise UsageError(f"no file '{file}' of YAML that can be read", "docs/statistics.md shows one") from None
    if not isinstance(given, dict):
        raise UsageError(f"'{file}' holds no settings", "docs/statistics.md shows a file")
    return parse_statistics({str(key): value for key, value in given.items()})


def parse_statistics(given: dict[str, Any]) -> Configuration:
    """The configuration in plain data. Raises UsageError that names the first wrong key."""
    for key in given:
        if key not in _KEYS:
            raise UsageError(f"a statistics study has no setting '{key}'", did_you_mean(key, _KEYS))
    base = _like(str(given["like"])) if "like" in given else {}
    data: dict[str, Any] = {key: base[key] for key in (*_OWN, *_OTHER) if key in base}
    data |= {key: given[key] for key in (*_OWN, *_OTHER) if key in given}
    if missing := [key for key in (*_OWN, "statistics", "privacy") if key not in data | given]:
        raise UsageError(f"the file has no '{missing[0]}'", "write it, or 'like: STUDY' to take a ready study's")
    contract = _contract(data["contract"])
    data["task"] = {"name": "statistics", **_with_rounds(_in_full(given["statistics"], contract))}
    data["privacy"] = _privacy(given["privacy"])
    if data["task"].get("by_site") and "secagg" not in given:
        data["secagg"] = "off"
    rounds = data["task"].get("rounds", 1)
    data["strategy"] = {"name": "statistics"} | ({} if rounds == 1 else {"parameters": {"rounds": rounds}})
    return parse_configuration(data | {"rounds": rounds} | _FIXED)


def _like(study: str) -> dict[str, Any]:
    from wardround.conf.compose import compose_configuration

    return compose_configuration([f"study={study}"])


def _contract(written: Any) -> DataContract:
    try:
        return TypeAdapter(DataContract).validate_python(listed_columns(written))
    except ValidationError as error:
        raise usage_error(error) from None


def _privacy(written: Any) -> dict[str, Any]:
    if not isinstance(written, dict):
        raise UsageError("'privacy' holds no settings", "write at least mode and epsilon")
    for key in written:
        if key not in _PRIVACY:
            raise UsageError(f"privacy of a statistics study has no '{key}'", did_you_mean(str(key), _PRIVACY))
    if written.get("mode") == "none":
        return dict(written)
    return {"delta": "auto", "noise_multiplier": "auto", **written, "clip_norm": 1.0, "sampling_probability": 1.0}


def _in_full(written: Any, contract: DataContract) -> dict[str, Any]:
    """``written`` with the models that it names, and the contract's codes where a group is a column's name alone."""
    if not isinstance(written, dict) or not isinstance(written.get("queries"), list):
        raise UsageError("'statistics' has no list of queries", "docs/statistics.md shows one")
    if wrong := [str(key) for key in written if key not in Statistics.model_fields or key in ("name", "label_kind")]:
        known = [key for key in Statistics.model_fields if key not in ("name", "label_kind")]
        raise UsageError(f"'statistics' has no setting '{wrong[0]}'", did_you_mean(wrong[0], known))
    return {**written, "queries": [_query(query, contract) for query in written["queries"]]}


def _with_rounds(written: dict[str, Any]) -> dict[str, Any]:
    """``written`` with the rounds of a logistic regression. Raises UsageError where it shares its file."""
    kinds = [query.get("kind") for query in written["queries"] if isinstance(query, dict)]
    if "logistic_regression" not in kinds:
        return written
    if other := [kind for kind in kinds if kind != "logistic_regression"]:
        raise UsageError(
            f"a logistic_regression has rounds, and a '{other[0]}' in the same file would be paid for in each of them",
            "give what is asked once a file of its own",
        )
    return {"rounds": _NEWTON_ROUNDS, **written}


def _query(query: Any, contract: DataContract) -> Any:
    if not isinstance(query, dict):
        return query
    if query.get("kind") in EVALUATIONS:
        query = described(query, contract)
    return with_groups(query, contract)


def with_groups(query: dict[str, Any], contract: DataContract) -> dict[str, Any]:
    """``query`` with the contract's codes for every group that is a column's name alone."""
    if "by" not in query:
        return query
    by = query["by"] if isinstance(query["by"], list) else [query["by"]]
    return {**query, "by": [_by(each, contract) for each in by]}


def _by(each: Any, contract: DataContract) -> Any:
    if not isinstance(each, str):
        return each
    codes = code_columns(contract)
    if each not in codes:
        raise UsageError(
            f"'{each}' is no column of codes in the contract, so its groups are not known beforehand",
            did_you_mean(each, codes) if codes else "group by a number: {column: NAME, cuts: [40, 60]}",
        )
    return {"column": each, "codes": list(codes[each])}
