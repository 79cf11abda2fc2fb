"""The documents say what the program does: links, commands, settings, registries and schemas are compared.

Every gate is a function from a text to its faults. Each is also run on a text with a fault in it, because a
gate that reads nothing passes everything.
"""

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
import typing
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import typer
import yaml
from pyarrow import parquet
from pydantic import BaseModel
from safetensors import safe_open

from wardround.client.connectors import CONNECTORS
from wardround.client.tasks import TASKS
from wardround.conf.compose import GROUPS, compose_configuration
from wardround.conf.schema import Configuration, parse_configuration
from wardround.conf.statistics import parse_statistics
from wardround.console.cli import app
from wardround.protocol.errors import WardroundError
from wardround.protocol.plan import StudyPlan
from wardround.protocol.statistics import Statistics
from wardround.protocol.tasks import Programmed
from wardround.simulations.datasets import DATASETS
from wardround.simulations.faults import FaultKind
from wardround.simulations.result import SimulationResult
from wardround.strategies import STRATEGIES
from wardround.strategies.statistics import STATISTICS

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("protocol", "privacy", "strategies", "conf", "server", "client", "simulations", "console")
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
TOP = [ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def ident(path: Path) -> str:
    return str(path.relative_to(ROOT))


def fences(text: str, language: str = "") -> list[str]:
    """The fenced code blocks of one language ('' is a block without a language)."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def prose(text: str) -> str:
    """The text without its fenced code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def broken_links(text: str, beside: Path) -> list[str]:
    """Relative links whose file, or whose heading in it, does not exist."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (beside / name).resolve() if name else None
        if file is None or file.exists():
            if anchor and anchor not in _anchors(file.read_text(encoding="utf-8") if file else text):
                found.append(target)
        else:
            found.append(target)
    return found


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [*PAGES, *TOP], ids=ident)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    assert broken_links(path.read_text(encoding="utf-8"), path.parent) == []


def test_a_link_to_nothing_is_found() -> None:
    text = "# Here\n[a](docs/index.md) [b](docs/no.md) [c](#here) [d](#there)\n"
    text += "[e](docs/index.md#decisions) [f](docs/index.md#x)"
    assert broken_links(text, ROOT) == ["docs/no.md", "#there", "docs/index.md#x"]


def test_every_page_can_be_reached_from_the_index() -> None:
    links = re.findall(r"\]\(([^)]+)\)", page("docs/index.md"))
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")} - {"index.md"}
    assert pages - set(links) == set()


def commands(text: str) -> list[list[str]]:
    """The words of every line of a plain code block that calls make or wardround."""
    lines = [line for block in fences(text) for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if re.match(r"(make|wardround)\b", line)]


def unknown_commands(text: str) -> list[str]:
    """Make targets, make variables and sub-commands that do not exist."""
    makefile = page("Makefile")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.M))
    variables = set(re.findall(r"^([A-Z_]+) \?=", makefile, re.M))
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    found = []
    for program, *words in commands(text):
        if program == "make":
            found += [word for word in words if "=" not in word and word not in targets]
            found += [word for word in words if "=" in word and word.partition("=")[0] not in variables]
        elif not words or words[0] not in known | {"--help"}:
            found.append(" ".join(words))
    return found


def own_studies(text: str) -> dict[str, str]:
    """Study files that a page itself defines, by name: YAML blocks that begin with their file's name."""
    blocks = [(re.match(r"# (\w+\.yaml)\n", block), block) for block in fences(text, "yaml")]
    return {match[1]: block.partition("\n")[2] for match, block in blocks if match}


def simulations(text: str) -> list[list[str]]:
    return [words[2:] for words in commands(text) if words[:2] == ["wardround", "simulate"]]


PLUGIN = re.compile(r"(task|strategy)=\./|\+task\.settings\.")


def uncomposable(text: str) -> list[str]:
    """Simulations whose overrides do not make a configuration. Studies that the page defines are run elsewhere.

    So are plugins, which no page brings along: without them the rest must compose.
    """
    own = {f"study={name}" for name in own_studies(text)}
    found = []
    for words in simulations(text):
        overrides = [word for word in words if not PLUGIN.match(word)]
        if own & set(words):
            continue
        try:
            parse_configuration(compose_configuration(overrides))
        except WardroundError as error:
            found.append(f"{overrides}: {error.message}")
    return found


@pytest.mark.parametrize("path", [*PAGES, *TOP], ids=ident)
def test_every_command_exists_and_every_override_composes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert unknown_commands(text) == []
    assert uncomposable(text) == []


def test_an_unknown_command_and_a_wrong_override_are_found() -> None:
    text = "```\nmake demo\nmake coffee SUGAR=1 # x\nwardround simulat\nwardround simulate rounds=3 strategi=x\n```\n"
    assert unknown_commands(text) == ["coffee", "SUGAR=1", "simulat"]
    assert len(uncomposable(text)) == 1 and "strategi" in uncomposable(text)[0]
    assert len(uncomposable("```\nwardround simulate min_sites=many\n```\n")) == 1


def test_the_pages_hold_commands_at_all() -> None:
    assert len(simulations(page("docs/configuration.md"))) >= 5


def test_the_readme_begins_with_two_commands() -> None:
    assert fences(page("README.md"))[0] == "make demo\nmake test\n"


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml") if not path.stem.startswith("_"))


REGISTRIES: dict[str, tuple[str, Iterable[str]]] = {
    "strategies": ("docs/strategies.md", STRATEGIES),
    "statistics": ("docs/statistics.md", STATISTICS),
    "connectors": ("docs/data.md", CONNECTORS),
    "data sets": ("docs/data.md", DATASETS),
    "tasks": ("docs/configuration.md", TASKS),
    "faults": ("docs/configuration.md", [kind.name.lower() for kind in FaultKind]),
    **{group: ("docs/configuration.md", choices(group)) for group in GROUPS},
}


def unmentioned(names: Iterable[str], text: str) -> list[str]:
    """Names that the text never gives in code letters or as a heading."""
    mentioned = set(re.findall(r"`([^`\n]+)`", text)) | set(re.findall(r"^#+ (\S+)$", text, re.M))
    return [name for name in names if name not in mentioned]


@pytest.mark.parametrize("registry", REGISTRIES)
def test_every_member_of_a_registry_is_in_its_page(registry: str) -> None:
    where, names = REGISTRIES[registry]
    assert list(names), "an empty registry checks nothing"
    assert unmentioned(names, page(where)) == []


def test_the_file_that_the_page_of_statistics_shows_asks_what_it_says() -> None:
    (text,) = fences(page("docs/statistics.md"), "yaml")
    task = parse_statistics(yaml.safe_load(text)).task
    assert isinstance(task, Statistics)
    assert [query.name for query in task.queries] == ["patients", "age", "cholesterol"]


def test_a_member_without_a_word_is_found() -> None:
    assert unmentioned([*STRATEGIES, "fednew"], page("docs/strategies.md")) == ["fednew"]


def wrong_parameters(text: str, registry: dict[str, Any]) -> list[str]:
    """Strategies whose section does not give the parameters of the code with their defaults."""
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    found = []
    for name, kind in registry.items():
        given = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", sections.get(name, ""), re.M))
        wanted = {f.name: "none" if f.default is None else str(f.default) for f in dataclasses.fields(kind)}
        found += [] if given == wanted else [name]
    return found


def test_parameters_of_strategies_and_their_defaults_are_those_of_the_code() -> None:
    assert wrong_parameters(page("docs/strategies.md"), STRATEGIES) == []


def test_a_wrong_default_of_a_strategy_is_found() -> None:
    text = page("docs/strategies.md")
    assert "| `mu` | 0.01 |" in text
    assert wrong_parameters(text.replace("| `mu` | 0.01 |", "| `mu` | 0.1 |"), STRATEGIES) == ["fedprox"]


def missing_files(text: str) -> list[str]:
    """Paths and dotted names of our packages, in code letters, that do not exist. <x> stands for a file to write."""
    found = []
    for name in re.findall(r"`([^`\n]+)`", prose(text)):
        is_path = re.fullmatch(rf"({'|'.join((*FOLDERS, 'tests', 'scripts', 'benchmarks'))})/[\w./-]*", name)
        is_dotted = re.fullmatch(r"wardround(\.\w+)+", name)
        if (is_path and not (ROOT / name).exists()) or (is_dotted and not _exists(name)):
            found.append(name)
    return found


def _exists(dotted: str) -> bool:
    parts = dotted.split(".")
    for length in range(len(parts), 1, -1):
        try:
            if find_spec(".".join(parts[:length])) is None:
                continue
        except ModuleNotFoundError:
            continue
        if length == len(parts):
            return True
        module = __import__(".".join(parts[:length]), fromlist=["x"])
        return len(parts) == length + 1 and hasattr(module, parts[length])
    return False


@pytest.mark.parametrize("path", PAGES, ids=ident)
def test_every_module_that_a_page_names_exists(path: Path) -> None:
    assert missing_files(path.read_text(encoding="utf-8")) == []


def test_a_module_that_is_gone_is_found() -> None:
    text = "`protocol/plan.py` `protocol/plans.py` `strategies/` `strategies/<x>.py`\n"
    text += "`wardround.simulations.run` `wardround.no.where`"
    assert missing_files(text) == ["protocol/plans.py", "wardround.no.where"]


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The pydantic models inside a type, in whatever unions and tuples."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in models_in(part)]


def schema_keys(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Every key that a person can write, with [] for a list of parts and <name> for a column."""
    keys = set()
    for name, field in model.model_fields.items():
        inner = [part for part in models_in(field.annotation) if part is not Programmed]
        path = f"{prefix}{name}"
        if path == "contract.columns":
            path = "contract.columns.<name>"
        elif typing.get_origin(field.annotation) is tuple and inner:
            path += "[]"
        if inner:
            keys |= {key for part in inner for key in schema_keys(part, f"{path}.")}
        elif path != "contract.columns.<name>.name":  # written as the key of the column
            keys.add(path)
    return keys


def composed_keys(data: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a composed configuration, with its key written as in the page."""
    if isinstance(data, list) and data and all(isinstance(item, dict) for item in data):
        for item in data:
            yield from composed_keys(item, f"{path}[]")
    elif isinstance(data, dict) and data and not path.endswith((".codes", ".structures")):
        for name, value in data.items():
            step = "<name>" if path == "contract.columns" else name
            yield from composed_keys(value, f"{path}.{step}" if path else step)
    else:
        yield path, data


@lru_cache
def keys_of_choices() -> frozenset[str]:
    """The keys that any choice of any group composes to."""
    composed = [compose_configuration([f"{group}={choice}"]) for group in GROUPS for choice in choices(group)]
    return frozenset(key for configuration in composed for key, _ in composed_keys(configuration))


def wanted_keys(model: type[BaseModel]) -> set[str]:
    """The keys of the schema, of every choice of every group, and of the parameters of every strategy."""
    return (
        schema_keys(model)
        | set(keys_of_choices())
        | {f"strategy.parameters.{f.name}" for kind in STRATEGIES.values() for f in dataclasses.fields(kind)}
    )


def documented(text: str) -> dict[str, str]:
    """Key -> default, from the tables of settings."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| `")]
    return {row[0].strip().strip("`"): row[3].strip() for row in rows if len(row) == 5}


def settings_faults(text: str, model: type[BaseModel]) -> list[str]:
    """Keys without a row, rows without a key, and defaults that are not those of a run without overrides."""
    told, wanted = documented(text), wanted_keys(model)
    found = [f"not documented: {key}" for key in sorted(wanted - told.keys())]
    found += [f"no such key: {key}" for key in sorted(told.keys() - wanted)]
    composed = dict(composed_keys(compose_configuration([])))
    for key, default in told.items():
        may_be_left_out = key.startswith(("study.", "contract.columns.")) or key == "contract.label.meaning"
        if key not in composed:
            found += [f"no default: {key}"] if default and key in wanted else []
        elif (
            (default or not may_be_left_out)
            and yaml.safe_load(default) != composed[key]
            and not (default == "" and composed[key] is False)
        ):
            found.append(f"default of {key} is {composed[key]!r}")
    return found


def test_the_page_of_settings_names_every_key_with_its_default() -> None:
    assert settings_faults(page("docs/configuration.md"), Configuration) == []


def test_a_new_key_a_stale_row_and_a_wrong_default_are_found() -> None:
    class Inner(BaseModel):
        depth: int = 0

    class Newer(Configuration):
        surprise: int = 0
        parts: tuple[Inner, ...] = ()

    text = page("docs/configuration.md")
    assert settings_faults(text, Newer) == ["not documented: parts[].depth", "not documented: surprise"]
    row = "| `rounds` | integer | 1 to 10000 | 15 |"
    assert row in text
    assert settings_faults(text.replace(row, row.replace("15", "16")), Configuration) == ["default of rounds is 15"]
    stale = text.replace("| `min_sites` |", "| `min_hospitals` |")
    assert settings_faults(stale, Configuration) == [
        "not documented: min_sites",
        "no such key: min_hospitals",
    ]


def write_tables(folder: Path) -> None:
    """Three made-up tables in the form of the example: several records a patient, some cells missing."""
    generator = np.random.Generator(np.random.PCG64(5))
    folder.mkdir()
    for name, people in (("north", 120), ("south", 90), ("west", 60)):
        who = np.repeat(np.arange(people), generator.integers(1, 3, people))
        age = generator.integers(20, 95, people)[who]
        crp = generator.gamma(2.0, 10.0, len(who)).round(1)
        columns = {
            "patient": [f"{name}-{number}" for number in who],
            "age": age.astype(str).tolist(),
            "sex": generator.choice(["f", "m"], people)[who].tolist(),
            "crp": ["" if generator.random() < 0.1 else str(value) for value in crp],
            "readmitted": (generator.random(len(who)) < 1 / (1 + np.exp(-(age - 60) / 10)))
            .astype(int)
            .astype(str)
            .tolist(),
        }
        if name == "west":
            parquet.write_table(pa.table(columns), folder / "west.parquet")
        else:
            mark = ";" if name == "south" else ","
            lines = [mark.join(columns), *(mark.join(row) for row in zip(*columns.values(), strict=True))]
            (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of the example's runs, made as the page says: its file, its commands, its tables."""
    place = tmp_path_factory.mktemp("docs")
    text = page("docs/configuration.md")
    for name, content in own_studies(text).items():
        (place / name).write_text(content, encoding="utf-8")
    write_tables(place / "tables")
    own = {f"study={name}" for name in own_studies(text)}
    for overrides in [words for words in simulations(text) if own & set(words)]:
        done = subprocess.run(
            [sys.executable, "-m", "wardround.console.cli", "simulate", *overrides],
            cwd=place,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    return sorted((place / "runs").iterdir())


@pytest.mark.slow
def test_the_worked_example_runs_as_it_is_written(runs: list[Path]) -> None:
    assert len(runs) == 3
    results = [SimulationResult.model_validate_json((run / "result.json").read_bytes()) for run in runs]
    assert {result.privacy.mode for result in results} == {"local", "none"}
    for result in results:
        assert [site.site for site in result.sites] == ["north", "south", "west"]
        assert all(site.rounds_in_sum == len(result.rounds) for site in result.sites)


def test_the_python_example_runs_as_it_is_written() -> None:
    (example,) = fences(page("docs/configuration.md"), "python")
    done = subprocess.run([sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "site-0002" in done.stdout


def run_example(example: str) -> str:
    done = subprocess.run([sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_federates_a_torch_module_in_thirty_lines() -> None:
    (example,) = fences(page("README.md"), "python")
    assert 0 < len(example.splitlines()) <= 30 and "torch.nn." in example
    statement, *sites, last = run_example(example + "print(net)").split("\n", 4)
    assert "-differentially private for any single patient" in statement
    found = [re.fullmatch(r"(\w+) +epsilon (\d\.\d\d)  AUROC (\d\.\d\d)", site) for site in sites]
    assert [match and match[1] for match in found] == ["east", "north", "south"]
    assert all(match and 2.5 < float(match[2]) <= 3 and 0.75 < float(match[3]) < 1 for match in found)
    assert last.startswith("Sequential")


FEDAVG_OF_FLOWER = """
from flwr.app import Context, Message, RecordDict, ArrayRecord
from wardround.protocol.parameters import initial_weights
from flwr.supercore.task_identity import TaskIdentity
import numpy as np, torch

TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1

def federate(start, rounds):
    model, net = start, Net()
    shapes = [(name, tuple(p.shape)) for name, p in net.named_parameters()]
    for _ in range(rounds):
        parts, at = {}, 0
        for name, shape in shapes:
            parts[name] = torch.tensor(model[at : at + int(np.prod(shape))].reshape(shape))
            at += parts[name].numel()
        total, weight = 0.0, 0
        for partition in range(3):
            context = Context(1, 1, {"partition-id": partition}, RecordDict(), {"learning-rate": 0.3, "local-steps": 5})
            message = Message(RecordDict({"arrays": ArrayRecord(parts)}), 1, "train")
            message.metadata.__dict__["_message_id"] = "1"
            answer = app(message, context).content
            arrays = answer["arrays"].to_torch_state_dict()
            n = int(answer["metrics"]["num-examples"])
            total = total + n * np.concatenate([arrays[name].numpy().ravel() for name, _ in shapes]).astype(np.float64)
            weight += n
        model = (total / weight).astype(np.float32)
    return model

start = initial_weights(same.plan.layout, "uniform", 0)
flower = federate(start, 10)
print(float(np.abs(flower - same.model).max()), float(np.abs(flower - start).max()))
print(float(np.abs(federate(start, 9) - same.model).max()))
"""


def test_the_flower_app_of_the_guide_and_what_becomes_of_it_end_at_the_same_model() -> None:
    before, after = fences(page("docs/from-flower.md"), "python")
    statement, difference, one_round_less, _ = run_example(before + after + FEDAVG_OF_FLOWER).split("\n")
    apart, moved = map(float, difference.split())
    assert "-differentially private for any single patient" in statement
    assert apart < 1e-5 and moved > 0.1
    assert float(one_round_less) > 1e-3


def sections(text: str, marks: str) -> dict[str, set[str]]:
    """Heading -> the names in code letters in the first cells of the table below it."""
    found: dict[str, set[str]] = {}
    heading = ""
    for line in text.splitlines():
        if re.match(r"#+ ", line):
            heading = line.removeprefix(f"{marks} ") if line.startswith(f"{marks} ") else ""
        elif heading and line.startswith("| `"):
            found.setdefault(heading, set()).update(re.findall(r"`([^`]+)`", line.split("|")[1]))
    return found


def result_faults(text: str, model: type[BaseModel]) -> list[str]:
    """Classes of the result whose section does not name exactly their fields."""
    told, found, waiting, seen = sections(text, "###"), [], [model], set()
    while waiting:
        part = waiting.pop()
        if part in seen:
            continue
        seen.add(part)
        if told.get(part.__name__) != set(part.model_fields):
            found.append(part.__name__)
        waiting += [inner for field in part.model_fields.values() for inner in models_in(field.annotation)]
    return found + sorted(told.keys() - {part.__name__ for part in seen})


def test_every_field_of_the_result_is_documented() -> None:
    assert result_faults(page("docs/result.md"), SimulationResult) == []


def test_a_new_field_of_the_result_is_found() -> None:
    Newer = type("SimulationResult", (SimulationResult,), {"__annotations__": {"mood": str}, "mood": "good"})
    assert result_faults(page("docs/result.md"), Newer) == ["SimulationResult"]
    assert result_faults(page("docs/result.md").replace("| `roc` |", "| `rock` |"), SimulationResult) == ["CurveResult"]


def file_faults(text: str, run: Path) -> list[str]:
    """Differences between the page and the files that a run left."""
    told = sections(text, "##")
    files = {path.name for path in run.iterdir()}
    named = set(re.findall(r"^\| `([\w.]+)` \|", text, re.M))
    result = json.loads((run / "result.json").read_bytes())
    metrics = {name for record in result["rounds"] for name in record["metrics"]}
    columns = set(parquet.read_schema(run / "rounds.parquet").names) - metrics
    with safe_open(run / "model.safetensors", "np") as file:
        metadata = set(file.metadata())
    plan = set(json.loads((run / "plan.json").read_bytes()))
    # A field that was added later is not written while it has its default (docs/adr/0019).
    plan |= {name for name, field in StudyPlan.model_fields.items() if field.json_schema_extra}
    found = [f"file {name}" for name in sorted(files - named)]
    found += [f"rounds.parquet {name}" for name in sorted(columns ^ told["rounds.parquet"])]
    found += [f"model.safetensors {name}" for name in sorted(metadata ^ told["model.safetensors"])]
    found += [f"plan.json {name}" for name in sorted(plan ^ told["plan.json"])]
    return found + ([] if plan == set(StudyPlan.model_fields) else ["plan.json lacks a field"])


@pytest.mark.slow
def test_the_files_of_a_run_are_those_of_the_page(runs: list[Path]) -> None:
    for run in runs:
        assert file_faults(page("docs/result.md"), run) == []


@pytest.mark.slow
def test_a_column_a_key_and_a_file_that_the_page_lacks_are_found(runs: list[Path]) -> None:
    text = page("docs/result.md").replace("| `model_after` | string | hash of the model after the round |", "")
    text = text.replace("| `layout` |", "| `map` |").replace("| `configuration.json` |", "| configuration |")
    text = text.replace("| `code_version` |", "| `version` |")
    assert file_faults(text, runs[0]) == [
        "file configuration.json",
        "rounds.parquet model_after",
        "model.safetensors layout",
        "model.safetensors map",
        "plan.json code_version",
        "plan.json version",
    ]


def decision_faults(text: str) -> list[str]:
    """What a page of decisions lacks."""
    headings = re.findall(r"^## (.+)$", text, re.M)
    found = [] if headings == ["Context", "Decision", "Consequences", "What would change our mind"] else ["headings"]
    return found + ([] if "\nStatus: " in text else ["status"]) + (["length"] if text.count("\n") >= 50 else [])


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "adr").glob("*.md")), ids=ident)
def test_a_decision_says_why_and_what_would_change_it(path: Path) -> None:
    assert decision_faults(path.read_text(encoding="utf-8")) == []


def test_a_decision_without_its_parts_is_found() -> None:
    assert decision_faults("# 0000\n\n## Context\n" + "\n" * 50) == ["headings", "status", "length"]


# Put together here, so that this file does not name them either.
SHARED = "/".join(("..", "shared"))
FOLDERS_OF_A_MACHINE = ["/" + name for name in ("work/", "tmp/w/", "home/", "root/")]
REGISTRIES_OF_PACKAGES = [name + "." + end for name, end in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", ""))]
PLACES = re.compile("|".join(map(re.escape, [SHARED, *FOLDERS_OF_A_MACHINE, *REGISTRIES_OF_PACKAGES])))
HOSTS = {
    "localhost",
    "127.0.0.1",
    "download.pytorch.org",
    "www.apache.org",
    "www.w3.org",
    "doi.org",
    "arxiv.org",
    "www.rfc-editor.org",
    # Names of vocabularies in a PDF's metadata; nobody asks these hosts.
    "ns.adobe.com",
    "purl.org",
    "www.aiim.org",
    # Names of code systems in FHIR; nobody asks these hosts.
    "hl7.org",
    "terminology.hl7.org",
    "loinc.org",
    "snomed.info",
    "unitsofmeasure.org",
    "www.nlm.nih.gov",
    "fhir.de",
    "www.whocc.no",
    "www.ama-assn.org",
    "www.cms.gov",
}
DATA_FOLDER = {"Makefile", ".ci/run"}
"""Where the folder that WARDROUND_DATA names may be looked for."""


def forbidden_places(text: str, name: str) -> list[str]:
    """Machine paths, hosts of registries, and addresses at hosts that nobody agreed on."""
    lines = text.splitlines()
    if name in DATA_FOLDER:
        lines = [line.replace(f"{SHARED}/data", "") for line in lines]
    found = [match[0] for line in lines for match in PLACES.finditer(line)]
    hosts = re.findall(r"https?://([\w.-]+)", text)
    # RFC 2606 keeps what lies below example.org for examples.
    return found + [host for host in hosts if host not in HOSTS and not host.endswith(".example.org")]


def tracked() -> list[Path]:
    """Every file that is, or is about to be, in version control."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode == 0:
        return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    hidden = {".venv", ".links", "build", "dist", "runs", "__pycache__"}
    return [path for path in ROOT.rglob("*") if path.is_file() and not hidden & set(path.relative_to(ROOT).parts)]


def test_no_file_names_a_machine_or_a_registry() -> None:
    files = tracked()
    assert ROOT / "README.md" in files and len(files) > 50
    found = {}
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if faults := forbidden_places(text, ident(path)):
            found[ident(path)] = faults
    assert found == {}


def test_a_machine_path_and_a_strange_host_are_found() -> None:
    assert forbidden_places(f"see {SHARED}/data", "README.md") == [SHARED]
    assert forbidden_places(f"{SHARED}/data and {SHARED}/design", "Makefile") == [SHARED]
    for place in (*FOLDERS_OF_A_MACHINE, *REGISTRIES_OF_PACKAGES):
        assert forbidden_places(f"cd {place}x", "docs/walk.md") == [place]
    scheme = "https:" + "//"
    text = f"{scheme}example.org/x {scheme}download.pytorch.org/whl/cpu"
    assert forbidden_places(text, "README.md") == ["example.org"]
