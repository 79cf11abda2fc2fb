"""What every part of a plan is: frozen, closed, and written so that a plan of an earlier version keeps its digest.

A plan is named by the SHA-256 of its bytes, so a field that is added later would rename every plan that was ever
approved. Such a field is marked ``later()``: it has a default that means what was true before it existed, and it is
left out of the bytes while it has that default (docs/adr/0019).
"""

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

_LATER: Final = "later"


def later(default: Any, **more: Any) -> Any:
    """A field that was added after plans with this part were approved; absent and ``default`` are the same."""
    return Field(default=default, json_schema_extra={_LATER: True}, **more)


class Part(BaseModel):
    """A part of a plan."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_serializer(mode="wrap")
    def _without_later(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and extra.get(_LATER) and getattr(self, name) == field.default:
                written.pop(name, None)
        return written
