"""A plugin in the researcher's own process: at once, with the torch engine, and as a plan names it.

A hospital runs the same text behind a wall and gets the same gradients; a contract test compares both.
"""

from collections.abc import Mapping
from typing import Any

from wardround.client.plugins.loading import built, compiled, imported
from wardround.client.plugins.loss import label_loss
from wardround.client.plugins.task import PluginAtSite
from wardround.privacy.per_sample import ModuleEngine, module_layout
from wardround.protocol.errors import UsageError
from wardround.protocol.plugins import Plugin, PluginTask, TensorSpec
from wardround.simulations.plugins.source import Source
from wardround.strategies import Robust, Strategy


def task_spec(
    source: Source, features: int, settings: Mapping[str, float], center: float = 0.0, scale: float = 1.0
) -> PluginTask:
    """What a plan says of the model or task for so many feature columns; its tensors are those that it builds.

    ``center`` and ``scale`` are of a label that is a number. Raises UsageError for a plugin that is none.
    """
    manifest = source.plugin.manifest
    module, _ = _built(source.plugin, features, settings)
    layout = module_layout(module)
    if not layout.tensors:
        raise UsageError(f"the model of plugin '{manifest.name}' has no parameters", "there is nothing to train")
    return PluginTask(
        plugin=source.ref,
        label_kind=manifest.label,
        settings={name: float(value) for name, value in settings.items()},
        tensors=tuple(TensorSpec(name=t.name, shape=t.shape, fan_in=t.fan_in) for t in layout.tensors),
        center=center,
        scale=scale,
    )


def local_task(plugin: Plugin, spec: PluginTask, features: int) -> PluginAtSite:
    """The plugin's task in this process.

    Raises:
        UsageError: it is not the plugin that ``spec`` names, or its model couples patients or has buffers.
    """
    if plugin.digest != spec.plugin.digest:
        raise UsageError(
            f"the plugin '{spec.plugin.name}' is not the one of the plan: its digest is {plugin.digest[:12]}",
            "bring back the version that the plan names, or start anew",
        )
    module, loss = _built(plugin, features, spec.settings)
    engine: Any = ModuleEngine(module, loss or label_loss(spec.label_kind, spec.center, spec.scale))
    if module_layout(module) != spec.layout(features):
        raise UsageError(f"the model of plugin '{spec.plugin.name}' has not the tensors of the plan", "plan it anew")
    return PluginAtSite(spec, features, engine)


def local_strategy(plugin: Plugin, parameters: Mapping[str, float]) -> Strategy | Robust:
    """The plugin's strategy. Raises UsageError for a plugin that has none, or for a parameter that it does not know."""
    name = plugin.manifest.name
    if plugin.manifest.kind != "strategy":
        raise UsageError(f"plugin '{name}' is a {plugin.manifest.kind}, and no strategy", f"give it as task={name}")
    kind = getattr(_imported(plugin), "Strategy", None)
    if not (isinstance(kind, type) and issubclass(kind, Strategy | Robust)):
        raise UsageError(f"plugin '{name}' has no class Strategy", "derive one from wardround.strategies.base.Strategy")
    try:
        return kind(**parameters)
    except TypeError:
        raise UsageError(f"the strategy of plugin '{name}' does not take these parameters", "see its fields") from None


def _built(plugin: Plugin, features: int, settings: Mapping[str, float]) -> Any:
    name = plugin.manifest.name
    if plugin.manifest.kind == "strategy":
        raise UsageError(f"plugin '{name}' is a strategy, and no model", f"give it as strategy={name}")
    module = _imported(plugin)
    try:
        return built(module, plugin.manifest.kind, features, settings)
    except Exception as error:
        # The researcher's own code on the researcher's own machine: the name of what went wrong, and no traceback.
        raise UsageError(
            f"the plugin '{name}' cannot build its model ({type(error).__name__}: {error})",
            f"run its tests: pytest {name}",
        ) from error


def _imported(plugin: Plugin) -> Any:
    name = plugin.manifest.name
    try:
        return imported(compiled(plugin), name)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"the plugin '{name}' cannot be imported ({type(error).__name__}: {error})", f"run its tests: pytest {name}"
        ) from error
