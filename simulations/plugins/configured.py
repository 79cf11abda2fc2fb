"""The plugins that a configuration names by a path, turned into what a plan names: name, version and digest.

``task=FOLDER`` and ``strategy=FOLDER`` are a researcher's words on a researcher's machine: they import what lies there.
A plan never does, and no hospital reads this.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from wardround.client.tasks import Task, task_from
from wardround.conf.compose import compose_configuration
from wardround.conf.schema import Configuration, parse_configuration
from wardround.protocol.errors import UsageError
from wardround.protocol.plan import StudyPlan
from wardround.protocol.plugins import PluginTask
from wardround.simulations.plugins.source import read_source
from wardround.strategies import Robust, Strategy, simulated_from


def configuration_of(overrides: Sequence[str]) -> Configuration:
    """The configuration that words describe, plugins and all. Raises UsageError."""
    return parse_configuration(with_plugins(compose_configuration(overrides)))


def with_plugins(composed: dict[str, Any]) -> dict[str, Any]:
    """A composed configuration, with the task and strategy of its plugins as a plan has them.

    Raises:
        UsageError: what lies at a path is no plugin, or its code does not work.
    """
    paths, made = composed.get("plugins") or {}, dict(composed)
    if not any(paths.values()):
        return made
    from wardround.simulations.plugins.local import task_spec

    own = _strategy(paths.get("strategy"), composed.get("strategy") or {})
    if own is not None:
        made["strategy"] = own
    if paths.get("task") is not None:
        given = dict(composed["task"])
        # Only the contract is asked for, and it does not depend on the task.
        contract = parse_configuration(made | {"task": _ANY}).contract
        source = read_source(Path(str(paths["task"])))
        settings = given.get("settings") or {}
        number = {name: float(given[name]) for name in ("center", "scale") if name in given}
        spec = task_spec(source, len(contract.feature_names), settings, **number)
        made["task"] = spec.model_dump(mode="json")
    return made


def plugins_of(configuration: Configuration) -> set[str]:
    """The digests of the plugins that a configuration uses."""
    task, strategy = configuration.task, configuration.strategy.plugin
    found = {task.plugin.digest} if isinstance(task, PluginTask) else set[str]()
    return found if strategy is None else found | {strategy.digest}


def own_task(configuration: Configuration, plan: StudyPlan) -> Task:
    """The task of ``plan`` in this process: of the registry, or the configured plugin. Raises UsageError."""
    path = configuration.plugins.task
    if path is None or not isinstance(plan.task, PluginTask):
        return task_from(plan)
    from wardround.simulations.plugins.local import local_task

    return local_task(read_source(Path(path)).plugin, plan.task, len(plan.contract_or_fail.feature_names))


def own_strategy(configuration: Configuration) -> Strategy | Robust:
    """The configured strategy: of the registry, or the plugin. Raises UsageError."""
    path, spec = configuration.plugins.strategy, configuration.strategy
    if path is None or spec.plugin is None:
        return simulated_from(spec)
    from wardround.simulations.plugins.local import local_strategy

    plugin = read_source(Path(path)).plugin
    if plugin.digest != spec.plugin.digest:
        raise UsageError(f"the plugin '{spec.plugin.name}' was changed since this run began", "start a new one")
    return local_strategy(plugin, spec.parameters)


_ANY: Final = {"name": "tabular_classification"}


def _strategy(path: str | None, given: dict[str, Any]) -> dict[str, Any] | None:
    if path is None:
        return None
    from wardround.simulations.plugins.local import local_strategy

    source, parameters = read_source(Path(path)), dict(given.get("parameters") or {})
    name = local_strategy(source.plugin, parameters).name
    return {"name": name, "parameters": parameters, "plugin": source.ref.model_dump(mode="json")}
