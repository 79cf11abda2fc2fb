"""What tasks have in common that train nothing: their model is their result, and it begins at zeros."""

from typing import Final

from wardround.protocol.part import Part

LARGEST: Final = 1 << 20
"""Numbers of a result; a coordinator takes so many at once (``server.sums.BLOCK``)."""


class Untrained(Part):
    """A task whose result is a sum."""

    @property
    def couples_patients(self) -> bool:
        return False

    @property
    def hidden(self) -> tuple[int, ...]:
        return ()

    @property
    def needs_random_start(self) -> bool:
        return False
