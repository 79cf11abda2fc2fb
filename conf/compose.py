"""From the words on a command line to one plain configuration, through Hydra's compose API.

Configuration names things and never imports them: no ``_target_``, no class paths. Overrides are checked word by word
first, so that a typo is answered with the key that was meant.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from wardround.protocol.errors import UsageError, did_you_mean

GROUPS: Final = ("study", "task", "strategy", "privacy", "simulation")

_PLUGIN: Final = "_plugin"
"""What ``task=FOLDER`` and ``strategy=FOLDER`` choose: nobody writes it."""

_DOCS: Final = "see docs/configuration.md for every setting and its range"

if TYPE_CHECKING:
    # Hydra takes half a second to import.
    from hydra.core.override_parser.types import Override

Compose: TypeAlias = Callable[[Sequence[str]], dict[str, Any]]
"""``compose_configuration``."""


def compose_configuration(overrides: Sequence[str]) -> dict[str, Any]:
    """Compose ``conf/`` with ``overrides`` (Hydra's grammar) into plain data.

    ``study=FILE.yaml`` takes a study of one's own: a file like those in ``conf/study``. ``task=FOLDER`` and
    ``strategy=FOLDER`` note a plugin's path; ``simulations.plugins`` reads what lies there.

    Raises:
        UsageError: an override cannot be read, or names a key or choice that does not exist.
    """
    with composer() as compose:
        return compose(overrides)


@contextmanager
def composer() -> Iterator[Compose]:
    """``compose_configuration`` for many lists of overrides: the same choices of groups are composed once."""
    from hydra import initialize_config_module

    with TemporaryDirectory() as folder, initialize_config_module("wardround.conf", version_base=None):
        known: dict[tuple[str, ...], Any] = {}

        def compose(overrides: Sequence[str]) -> dict[str, Any]:
            words = [_own_study(word, Path(folder)) for given in overrides for word in _own_plugin(given)]
            return _compose(words, [f"hydra.searchpath=[file://{folder}]"], known)

        yield compose


def _own_study(word: str, folder: Path) -> str:
    """Put the study file that ``word`` names where Hydra finds it by name; other words pass unchanged."""
    key, _, value = word.partition("=")
    if key != "study" or not value.endswith((".yaml", ".yml")):
        return word
    path = Path(value)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"no study file '{value}' that can be read", "give the path of a YAML file") from None
    (folder / "study").mkdir(exist_ok=True)
    (folder / "study" / "own_study.yaml").write_text(f"# @package _global_\n{text}", encoding="utf-8")
    return "study=own_study"


def _own_plugin(word: str) -> list[str]:
    """``task=FOLDER`` or ``strategy=FOLDER`` (a wheel, a signed file) as two settings; other words pass unchanged.

    A name of ours is never a folder: what has a ``/`` in it is one for sure.
    """
    key, _, value = word.partition("=")
    if key not in ("task", "strategy"):
        return [word]
    named = "/" in value or value in (".", "..") or value.endswith((".whl", ".json"))
    if not named and (value in choices_of(key) or not Path(value, "pyproject.toml").is_file()):
        return [word]
    return [f"{key}={_PLUGIN}", f"plugins.{key}={json.dumps(str(Path(value).resolve()))}"]


def parse_overrides(words: Sequence[str]) -> "list[Override]":
    """``words`` by Hydra's grammar. Raises UsageError for what it cannot read."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_overrides(list(words))
    except HydraException as error:
        raise UsageError(
            f"an override cannot be read: {str(error).splitlines()[0]}", "write key=value, for example rounds=10"
        ) from None


def _compose(words: list[str], search: list[str], bases: dict[tuple[str, ...], Any]) -> dict[str, Any]:
    """``bases`` keeps what each list of choices of groups composes to."""
    from hydra import compose
    from hydra.core.override_parser.types import OverrideType
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    parsed = parse_overrides(words)
    if any(override.is_sweep_override() for override in parsed):
        raise UsageError("one run takes one value for each key", "give a single value, or run: wardround sweep")
    for override in parsed:
        if override.key_or_group in GROUPS:
            _check_choice(override.key_or_group, str(override.value()))
    try:
        choices = tuple(word for word, override in zip(words, parsed, strict=True) if override.key_or_group in GROUPS)
        if choices not in bases:
            bases[choices] = compose("config", [*search, *choices])
        base = bases[choices]
        known = set(_keys(OmegaConf.to_container(base)))
        for override in parsed:
            if override.key_or_group not in GROUPS and not override.is_add():
                _check_key(override.key_or_group, known)
        settings = [override for override in parsed if override.key_or_group not in GROUPS]
        if all(override.type is OverrideType.CHANGE and override.package is None for override in settings):
            # As Hydra applies them: one after the other to what the groups composed to.
            chosen = deepcopy(base)
            for override in settings:
                OmegaConf.update(chosen, override.key_or_group, override.value(), merge=True)
        else:
            chosen = compose("config", [*search, *words])
        composed = OmegaConf.to_container(chosen, resolve=True)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise UsageError(f"the configuration cannot be composed: {str(error).splitlines()[0]}", _DOCS) from None
    assert isinstance(composed, dict)
    return {str(key): value for key, value in composed.items()}


def choices_of(group: str) -> list[str]:
    """The files of a group, by name."""
    from importlib.resources import files

    names = [f.name.removesuffix(".yaml") for f in files("wardround.conf").joinpath(group).iterdir()]
    return sorted(name for name in names if not name.startswith("_"))


def _check_choice(group: str, choice: str) -> None:
    if (group == "study" and choice == "own_study") or choice == _PLUGIN:
        return
    known = choices_of(group)
    if choice not in known:
        raise UsageError(f"there is no {group} '{choice}'", did_you_mean(choice, known))


def _check_key(key: str, known: set[str]) -> None:
    if key not in known:
        raise UsageError(f"there is no setting '{key}'", _nearest(key, known))


def _nearest(key: str, known: set[str]) -> str:
    """Compare whole keys first, then last words, so that 'privcy.epsilon' and 'epsilonn' both find a key."""
    leaf = key.rsplit(".", 1)[-1]
    by_leaf = [name for name in sorted(known) if name.rsplit(".", 1)[-1] == leaf]
    if by_leaf:
        return did_you_mean(key, by_leaf) if len(by_leaf) > 1 else f"did you mean '{by_leaf[0]}'?"
    hint = did_you_mean(key, known)
    return hint if hint.startswith("did you mean") else f"known groups: {', '.join(GROUPS)}; see docs/configuration.md"


def _keys(data: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(data, dict):
        for name, value in data.items():
            yield f"{prefix}{name}"
            yield from _keys(value, f"{prefix}{name}.")
