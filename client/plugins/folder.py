"""The plugins that IT installed at a site: signed files in the site's own folder, each under its digest.

They never go to site-packages and are imported nowhere; what a plan names and is not here is refused. Each is read
anew, with its signature and digest, whenever it is used.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.identity import PublicIdentity
from wardround.protocol.plan import PrivacyMode, StudyPlan
from wardround.protocol.plugins import PluginRef, PluginTask, SignedPlugin, read_signed_plugin


@dataclass(frozen=True, slots=True)
class PluginFolder:
    """The plugins in ``path``; a folder that is not there holds none."""

    path: Path

    def install(self, data: bytes, author: PublicIdentity) -> SignedPlugin:
        """Keep a signed file. ``author``: who is to have signed it, from elsewhere than the file.

        Raises:
            UsageError: it is no signed plugin, another signed it, or it is a strategy.
            Unavailable: the folder cannot be written.
        """
        signed = read_signed_plugin(data)
        if (signed.author, signed.key) != (author.site, author.key.hex()):
            raise UsageError(
                f"the plugin is signed by '{signed.author}' with another key than the card's",
                "compare the key with its author by telephone, and give that author's .pub file",
            )
        if signed.plugin.manifest.kind == "strategy":
            raise UsageError(
                "a strategy runs in simulations only: its code would run at the coordinator too",
                "ask for a plan with a strategy of the registry: docs/strategies.md",
            )
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
            place = self._place(signed.plugin.digest)
            beside = place.with_suffix(".new")
            with os.fdopen(os.open(beside, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
                file.write(signed.encoded)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(place)
        except OSError as error:
            raise Unavailable(f"'{self.path}' cannot be written: {error.strerror}", "check the disk") from None
        return signed

    def digests(self) -> tuple[str, ...]:
        """Of every plugin that is installed, whether or not its file was changed."""
        return tuple(sorted(path.stem for path in self.path.glob("*.json")))

    def held(self) -> tuple[SignedPlugin, ...]:
        """Every plugin that is installed, by name and version. Raises UsageError for one that was changed."""
        found = [self._read(self._place(digest)) for digest in self.digests()]
        return tuple(sorted(found, key=lambda one: (one.plugin.manifest.name, one.plugin.manifest.version)))

    def get(self, digest: str) -> SignedPlugin | None:
        """The plugin of ``digest``, or None. Raises UsageError where its file was changed."""
        place = self._place(digest)
        return self._read(place) if place.is_file() else None

    def remove(self, digest: str) -> None:
        """Take a plugin away; plans that name it are refused from now on. Raises UsageError where it is not here."""
        try:
            self._place(digest).unlink()
        except FileNotFoundError:
            raise UsageError(
                "no such plugin is installed here", "wardround site plugin list shows their digests"
            ) from None
        except OSError as error:
            raise Unavailable(f"'{self.path}' cannot be written: {error.strerror}", "check the disk") from None

    def fault(self, plan: StudyPlan) -> str | None:
        """Why the plugin that ``plan`` names may not run here, or None; None too where it names none."""
        if not isinstance(plan.task, PluginTask):
            return None
        if plan.privacy.mode is PrivacyMode.NONE:
            return "the plan has no differential privacy, without which nothing bounds what a plugin gives away"
        wanted = plan.task.plugin
        try:
            found = self.get(wanted.digest)
        except UsageError as error:
            return error.message
        if found is None:
            return self._absent(wanted)
        if found.ref != wanted or found.plugin.manifest.label != plan.task.label_kind:
            return f"the plan says other things of the plugin '{wanted.name}' than what is installed here"
        return None

    def _absent(self, wanted: PluginRef) -> str:
        names = [one for one in self.digests() if (held := self.get(one)) and held.plugin.manifest.name == wanted.name]
        here = f"; of that name {', '.join(one[:12] for one in names)} is" if names else ""
        return f"the plugin '{wanted.name}' with digest {wanted.digest} is not installed here{here}"

    def _read(self, path: Path) -> SignedPlugin:
        try:
            signed = read_signed_plugin(path.read_bytes())
        except UsageError:
            signed = None
        except OSError as error:
            raise Unavailable(f"an installed plugin cannot be read: {error.strerror}", "check the disk") from None
        if signed is None or signed.plugin.digest != path.stem:
            raise UsageError(f"the installed plugin {path.stem[:12]} was changed on disk", "install it again")
        return signed

    def _place(self, digest: str) -> Path:
        return self.path / f"{digest}.json"
