"""A plugin as an officer reads it: who wrote it, what it reaches for, every line that changed since the last one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from typing import Protocol

from wardround.client.plugins.capabilities import Capabilities, Finding, capabilities
from wardround.client.plugins.folder import PluginFolder
from wardround.protocol.errors import UsageError
from wardround.protocol.messages import Standing
from wardround.protocol.plan import StudyPlan
from wardround.protocol.plugins import Plugin, PluginRef, PluginTask


@dataclass(frozen=True, slots=True)
class Reading:
    """``before``: digest of the version that was approved last; "": none was. ``difference``: of files, line by line.

    ``gained`` and ``lost`` are capabilities, against the version before. All texts are the author's own and are to be
    escaped where they are shown.
    """

    name: str
    version: str
    digest: str
    author: str
    key: str
    summary: str
    before: str
    capabilities: tuple[str, ...]
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    difference: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """The whole as lines."""
        yield f"Plugin {self.name} {self.version}: {self.summary}"
        yield f"  digest {self.digest}"
        yield f"  author {self.author}, key {self.key}" if self.author else "  nobody has signed it"
        yield from (f"  {line}" for line in self.capabilities)
        if not self.before:
            yield "  No version of it was approved here before: this is all of it."
        else:
            yield f"  Against the version that was approved here before, {self.before[:12]}:"
            yield from (f"  gained: {line}" for line in self.gained)
            yield from (f"  no more: {line}" for line in self.lost)
            if not self.difference:
                yield "  no line of its files changed"
        yield from (f"    {line}" for line in self.difference)


def reading(plugin: Plugin, ref: PluginRef, before: Plugin | None) -> Reading:
    """``plugin``, which ``ref`` names with its author, against the version that was approved before, or nothing."""
    found = capabilities(plugin)
    old = None if before is None else capabilities(before)
    now, was = _reaches(found), set() if old is None else _reaches(old)
    return Reading(
        plugin.manifest.name,
        plugin.manifest.version,
        plugin.digest,
        ref.author,
        ref.key,
        plugin.manifest.summary,
        "" if before is None else before.digest,
        tuple(found.said()),
        tuple(sorted(now - was)) if old else (),
        tuple(sorted(was - now)),
        tuple(difference(before, plugin)),
    )


class Held(Protocol):
    """A plan that was proposed to a site, and how it stands."""

    @property
    def plan(self) -> StudyPlan: ...
    @property
    def standing(self) -> Standing: ...


def plugin_of(plan: StudyPlan, folder: PluginFolder, held: Sequence[Held]) -> Reading | None:
    """The plugin that ``plan`` names against the version of its name that was approved here last; None: it names none.

    Args:
        held: every plan that was proposed here, the newest first.

    Raises:
        UsageError: the plugin is not installed, or is not what the plan says.
    """
    if not isinstance(plan.task, PluginTask):
        return None
    fault, signed = folder.fault(plan), folder.get(plan.task.plugin.digest)
    if fault is not None or signed is None:
        raise UsageError(fault or "the plugin is not installed here", "IT installs it: wardround site plugin install")
    approved = (Standing.APPROVED, Standing.REVOKED, Standing.SUSPENDED)
    for other in held:
        named = other.plan.task
        if other.standing not in approved or other.plan.digest == plan.digest or not isinstance(named, PluginTask):
            continue
        if named.plugin.name == plan.task.plugin.name and (before := folder.get(named.plugin.digest)) is not None:
            return reading(signed.plugin, signed.ref, before.plugin)
    return reading(signed.plugin, signed.ref, None)


def difference(before: Plugin | None, plugin: Plugin) -> Iterator[str]:
    """Manifest and files as one unified diff; of nothing: every line is new."""
    old, new = ({} if before is None else _texts(before)), _texts(plugin)
    for path in sorted(old.keys() | new.keys()):
        was, is_ = (side.get(path, "").splitlines() for side in (old, new))
        yield from unified_diff(was, is_, f"before/{path}", f"now/{path}", lineterm="", n=3)


def _texts(plugin: Plugin) -> dict[str, str]:
    about = "\n".join(f"{name}: {value}" for name, value in plugin.manifest.model_dump().items())
    return {"manifest": about, **plugin.files}


def _reaches(found: Capabilities) -> set[str]:
    def said(finding: Finding) -> str:
        return f"{finding.what} ('{finding.word}')"

    return {f"imports {name}" for name in found.imports} | {said(finding) for finding in found.findings}
