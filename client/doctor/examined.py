"""What is examined: where the coordinator is and how one gets there, the site's folders, and the site's sources.

Read with more patience than the daemon has: a folder that the daemon would refuse is what the doctor is called for.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from wardround.client.consent import Source
from wardround.client.doctor.words import Finding, failed, ok, warning
from wardround.client.feeds.settings import FeedSource
from wardround.client.link import AboutLink, password_in
from wardround.client.settings import SiteSettings, opt_out_sources, read_settings
from wardround.protocol.errors import UsageError
from wardround.protocol.identity import check_site_id


@dataclass(frozen=True, slots=True)
class TableAt:
    """One data source of site.yaml."""

    connector: str
    path: Path
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Examined:
    """``host`` None: no coordinator is known, so the way there is not examined.

    ``data`` and ``opt_outs`` None: nobody could say which there are. ``found``: what reading all this showed.
    """

    site: str | None = None
    host: str | None = None
    port: int = 0
    ca: Path | None = None
    proxy_url: str | None = None
    proxy_user: str | None = field(default=None, repr=False)
    proxy_password: str | None = field(default=None, repr=False)
    runtime_port: int | None = None
    site_folder: Path | None = None
    link_folder: Path | None = None
    data: tuple[TableAt, ...] | None = None
    opt_outs: tuple[tuple[Path, Source], ...] | None = None
    feeds: tuple[FeedSource, ...] = ()
    found: tuple[Finding, ...] = ()


def examined_from(link_folder: Path | None, site_folder: Path | None) -> Examined:
    """What the two folders say. Either may be left out: the SuperNode's user sees its own only.

    Without ``link_folder`` it is the one that site.yaml or ``site join`` names. Raises nothing: what cannot be read is
    among ``found``.
    """
    examined = Examined(site_folder=site_folder)
    if site_folder is not None:
        examined, settings = _with_settings(examined, site_folder)
        if link_folder is None:
            link_folder = _noted(site_folder, settings)
    if link_folder is None:
        return _also(
            examined,
            warning("link", "This site has not joined a coordinator yet.", "Ask for a code: wardround site join."),
        )
    return _with_link(replace(examined, link_folder=link_folder), link_folder)


def _with_settings(examined: Examined, folder: Path) -> tuple[Examined, SiteSettings]:
    try:
        settings = read_settings(folder)
    except UsageError:
        # The reason is not repeated: it may quote what somebody wrote there.
        return _also(
            examined,
            failed(
                "settings",
                "site.yaml cannot be read, or a setting in it is not understood.",
                "Run 'wardround site start': it names the setting.",
            ),
        ), SiteSettings()
    try:
        about = json.loads((folder / "site.json").read_bytes())
        site = check_site_id(str(about["site"]))
    except (OSError, ValueError, KeyError, TypeError):
        examined = _also(
            examined,
            failed(
                "site-folder",
                "The site's folder has no site.json that can be read.",
                "Name the right folder, or run this as the daemon's user.",
            ),
        )
    else:
        examined = replace(examined, site=site)
    data = tuple(TableAt(one.connector, folder / one.path, one.options) for one in settings.data)
    paths = [folder / one.path for one in settings.opt_outs]
    opt_outs = tuple(zip(paths, opt_out_sources(settings, folder), strict=True))
    examined = replace(examined, data=data, opt_outs=opt_outs, feeds=settings.feeds)
    return _also(examined, ok("settings", "site.yaml is understood.")), settings


def _noted(folder: Path, settings: SiteSettings) -> Path | None:
    if settings.link is not None:
        return folder / settings.link
    try:
        return Path(json.loads((folder / "link.json").read_bytes())["link"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _with_link(examined: Examined, folder: Path) -> Examined:
    try:
        about = AboutLink.model_validate_json((folder / "link.json").read_bytes())
    except (OSError, ValidationError):
        return _also(
            examined,
            failed(
                "link",
                "The link folder has no link.json that can be read.",
                "Run this as a user who may read it, or join again with a new code.",
            ),
        )
    parts = urlsplit(f"//{about.superlink}")
    examined = replace(
        examined,
        site=examined.site or about.site,
        host=parts.hostname,
        port=parts.port or 0,
        ca=folder / "ca.pem",
        proxy_url=about.proxy,
        proxy_user=about.proxy_user,
        runtime_port=about.runtime_port,
    )
    if examined.site != about.site:
        return _also(
            examined,
            failed(
                "link",
                "The link folder is that of another site.",
                "Correct 'link' in site.yaml, or name the right link folder.",
            ),
        )
    if about.proxy_password_file is not None:
        try:
            examined = replace(examined, proxy_password=password_in(folder / about.proxy_password_file))
        except (UsageError, OSError):
            return _also(
                examined,
                failed(
                    "link",
                    "The file with the proxy's password is missing, empty, or closed to this user.",
                    "Write the password on one line into proxy.password in the link folder.",
                ),
            )
    return _also(examined, ok("link", "The site knows its coordinator."))


def _also(examined: Examined, finding: Finding) -> Examined:
    return replace(examined, found=(*examined.found, finding))
