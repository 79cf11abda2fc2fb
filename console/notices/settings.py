"""``notify.yaml`` in a site's folder: whom notices go to. Without the file nobody is told anything.

::

    email:
      host: mail.example.org
      port: 587
      security: starttls          # or tls; none only on this machine
      user: wardround
      password_file: mail.password
      sender: wardround@example.org
      to: [it@example.org, dpo@example.org]
    webhook:
      url: https://chat.example.org/hooks/wardround
      secret_file: webhook.secret
    every_minutes: 5
"""

from pathlib import Path
from typing import Annotated, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wardround.client.settings import fault_in
from wardround.client.yaml_text import load_yaml
from wardround.protocol.errors import UsageError

NOTIFY: Final = "notify.yaml"
Address = Annotated[str, Field(pattern=r"^[^\s@,<>]+@[^\s@,<>]+$", max_length=200)]
_HERE: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EmailSettings(_Part):
    """Files are taken from the site's folder."""

    host: str = Field(min_length=1)
    port: int = Field(default=587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str | None = None
    password_file: str | None = None
    ca_file: str | None = None
    sender: Address
    to: tuple[Address, ...] = Field(min_length=1, max_length=50)

    @model_validator(mode="after")
    def _safe(self) -> "EmailSettings":
        if (self.user is None) is not (self.password_file is None):
            raise ValueError("user and password_file belong together")
        if self.security == "none" and self.host not in _HERE:
            raise ValueError("security 'none' is for a mail server on this machine only")
        return self


class WebhookSettings(_Part):
    """``secret_file`` holds what signs the body, so that the receiver knows whose it is."""

    url: str = Field(pattern=r"^https?://[^\s]+$", max_length=2000)
    secret_file: str
    ca_file: str | None = None


class NotifySettings(_Part):
    email: EmailSettings | None = None
    webhook: WebhookSettings | None = None
    every_minutes: float = Field(default=5.0, ge=0.1, le=1440)


def read_notify(folder: Path) -> NotifySettings:
    """The settings in ``folder``. Raises UsageError where there are none, or that names the first wrong key."""
    path = folder / NOTIFY
    try:
        return NotifySettings.model_validate(load_yaml(path.read_text(encoding="utf-8")) or {})
    except FileNotFoundError:
        raise UsageError(f"there is no '{NOTIFY}' in '{folder}'", "docs/notices.md shows one") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError):
        raise UsageError(f"'{NOTIFY}' cannot be read as YAML", "docs/notices.md shows one") from None
    except ValidationError as error:
        raise fault_in(NOTIFY, error) from None
