"""What the coordinator's pages show: its studies, as the registry has them. Reads only."""

from dataclasses import dataclass

from wardround.console.commands.coordinator import running
from wardround.server.folder import CoordinatorFolder
from wardround.server.store.registry import Registry


@dataclass(frozen=True, slots=True)
class HubStudy:
    """A study of the coordinator. ``state``: how its process ended, or what people want of it while it may run."""

    digest: str
    study: str
    title: str
    created_at: str
    state: str
    sites: int
    rounds: int


@dataclass(frozen=True, slots=True)
class HubView:
    """The coordinator at one moment."""

    name: str
    running: bool
    studies: tuple[HubStudy, ...]


class CoordinatorQueries:
    """Reads one coordinator's folder."""

    def __init__(self, folder: CoordinatorFolder) -> None:
        self.folder = folder
        self._registry = Registry(folder.database)

    def view(self) -> HubView:
        """Its studies, the newest first. Raises WardroundError when the database cannot be read."""
        rows = self._registry.studies()
        return HubView(
            self.folder.about.name,
            running(self.folder),
            tuple(
                HubStudy(
                    row.plan.digest,
                    row.plan.study,
                    row.plan.title,
                    row.created_at,
                    row.state or row.wanted,
                    len(row.plan.participants),
                    row.plan.rounds,
                )
                for row in rows
            ),
        )
