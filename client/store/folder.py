"""A site's own folder: its keys and its database, readable by the site's user only.

::

    north/
        site.json         the site's name
        ledger.sqlite     the ledger, stored answers, members and opt-outs
        keys/site.pem     signs the ledger's entries
        keys/replies.key  seals stored answers   (or WARDROUND_REPLIES_KEY: 64 hex digits)
        keys/patients.key hashes patients' ids
        weights/          weights files that people installed
        plugins/          plugins that people installed
"""

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BaseModel, ConfigDict, ValidationError

from wardround.client.plugins.folder import PluginFolder
from wardround.client.store.database import open_store
from wardround.client.store.keys import read_secret, read_site_key, write_secret, write_site_key
from wardround.client.store.ledger import Ledger, utc_now
from wardround.client.store.replies import KEY_SIZE
from wardround.conf.weights import WeightsFolder
from wardround.protocol.canonical import LABEL_FEED, LABEL_MEMORY, LABEL_PICTURE, LABEL_SECAGG
from wardround.protocol.errors import Unavailable, UsageError
from wardround.protocol.identity import Identity, PublicIdentity, SiteId
from wardround.protocol.ledger import Officers
from wardround.protocol.weights import FOLDER as WEIGHTS

REPLIES_KEY: Final = "WARDROUND_REPLIES_KEY"


class _About(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["wardround/site/1"] = "wardround/site/1"
    site: SiteId


@dataclass(frozen=True, slots=True)
class SiteFolder:
    """An opened folder. Private keys are read when they are asked for."""

    path: Path
    site: str

    @classmethod
    def create(
        cls, path: Path, site: str, officers: Sequence[PublicIdentity], clock: Callable[[], datetime] = utc_now
    ) -> "SiteFolder":
        """A new folder with new keys and a ledger whose first entries name the site and its officers.

        Raises:
            UsageError: the folder exists, or two officers share a name or a key.
            Unavailable: it cannot be written.
        """
        named = {officer.site: officer.key.hex() for officer in officers}
        if not named or len(named) < len(officers) or len(set(named.values())) < len(officers):
            raise UsageError(
                "the officers need different names and different keys", "give each officer's own .pub file"
            )
        identity = Identity.generate(site)
        try:
            path.mkdir(mode=0o700)
            (path / "keys").mkdir(mode=0o700)
        except FileExistsError:
            raise UsageError(f"'{path}' exists already", "choose a folder that does not exist yet") from None
        except OSError as error:
            raise Unavailable(f"'{path}' cannot be made: {error.strerror}", "check the path and the disk") from error
        folder = cls(path, site)
        write_site_key(path / "keys" / "site.pem", identity)
        write_secret(path / "keys" / "replies.key", os.urandom(KEY_SIZE))
        write_secret(path / "keys" / "patients.key", os.urandom(KEY_SIZE))
        ledger = folder.ledger(clock)
        ledger.record(Officers(version=1, officers=named))
        ledger.close()
        # Last, so that a folder with it is whole.
        write_secret(path / "site.json", _About(site=site).model_dump_json().encode() + b"\n")
        return folder

    @classmethod
    def open(cls, path: Path) -> "SiteFolder":
        """The folder at ``path``. Raises UsageError when it is none, or when others may look into it."""
        try:
            about = _About.model_validate_json((path / "site.json").read_bytes())
            mode = stat.S_IMODE(path.stat().st_mode)
        except (OSError, ValidationError):
            raise UsageError(f"'{path}' is no site's folder", "make one with 'wardround site init'") from None
        if mode & 0o077:
            raise UsageError(f"others may look into the site's folder '{path}'", f"run: chmod 700 {path}")
        return cls(path, about.site)

    @property
    def database(self) -> Path:
        return self.path / "ledger.sqlite"

    @property
    def weights(self) -> WeightsFolder:
        """The weights files that people installed here."""
        return WeightsFolder(self.path / WEIGHTS)

    @property
    def plugins(self) -> PluginFolder:
        """The plugins that people installed here."""
        return PluginFolder(self.path / "plugins")

    def identity(self) -> Identity:
        """The site's name and private key."""
        return read_site_key(self.path / "keys" / "site.pem", self.site)

    def replies_key(self) -> bytes:
        """32 bytes, from the environment or else from the file."""
        text = os.environ.get(REPLIES_KEY)
        if text is None:
            return _checked(read_secret(self.path / "keys" / "replies.key"), "keys/replies.key")
        try:
            return _checked(bytes.fromhex(text), REPLIES_KEY)
        except ValueError:
            raise UsageError(f"{REPLIES_KEY} is not in hex", "give 64 hex digits") from None

    def memory_key(self) -> bytes:
        """32 bytes that seal what strategies let this site remember; lives as long as the stored answers."""
        return HKDF(SHA256(), 32, salt=None, info=LABEL_MEMORY.encode()).derive(self.replies_key())

    def inputs_secret(self) -> bytes:
        """32 bytes under which secure aggregation names this site's inputs; lives as long as the stored answers."""
        info = LABEL_SECAGG.encode() + b"\x00inputs"
        return HKDF(SHA256(), 32, salt=None, info=info).derive(self.replies_key())

    def patients_key(self) -> bytes:
        """32 bytes under which patients' ids are hashed; with another key every patient would be a new one."""
        return _checked(read_secret(self.path / "keys" / "patients.key"), "keys/patients.key")

    def pictures_key(self) -> bytes:
        """32 bytes under which kept pictures are named; lives as long as the key of the patients' ids."""
        return HKDF(SHA256(), 32, salt=None, info=LABEL_PICTURE.encode()).derive(self.patients_key())

    def feeds_key(self) -> bytes:
        """32 bytes under which the watermarks of feeds name what was read; lives as long as that of the ids."""
        return HKDF(SHA256(), 32, salt=None, info=LABEL_FEED.encode()).derive(self.patients_key())

    def ledger(self, clock: Callable[[], datetime] = utc_now) -> Ledger:
        """The site's ledger, open for writing."""
        return Ledger(open_store(self.database), self.site, self.identity(), clock)


def _checked(key: bytes, name: str) -> bytes:
    if len(key) != KEY_SIZE:
        raise UsageError(f"{name} has {len(key)} bytes instead of {KEY_SIZE}", "restore the key from the site's backup")
    return key
