"""A researcher's model at a hospital, from the author's signature to an answered round, and every way to be refused."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wardround.client.plugins.children import WORKER
from wardround.client.plugins.loading import compiled
from wardround.client.store.keys import OfficerCard
from wardround.conf.compose import compose_configuration
from wardround.conf.planning import make_plan
from wardround.conf.schema import parse_configuration
from wardround.console.commands.site_plugin import install_command, list_command, remove_command
from wardround.protocol.entry import parse_content
from wardround.protocol.errors import UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.incoming import Propose, Train, ask_bytes
from wardround.protocol.ledger import Refuse
from wardround.protocol.messages import Refusal, RefusalCode, Reply
from wardround.protocol.outgoing import bytes_to_send, parse_answer
from wardround.protocol.plan import StudyPlan
from wardround.protocol.plugins import Manifest, Plugin, sign_plugin
from wardround.server.study import Study
from wardround.simulations.cohorts import declared_patients
from wardround.simulations.plugins.configured import with_plugins
from wardround.strategies import strategy_from

SOURCE = '''
"""Made for a test."""
from torch import nn

def build(features):
    return nn.Linear(features, 1)
'''
ADA = Identity.generate("ada")
Planned = Callable[..., StudyPlan]


def plugin_of(source: str = SOURCE, version: str = "1.0") -> Plugin:
    manifest = Manifest(name="tried_here", version=version, kind="model", summary="a linear model")
    return Plugin(manifest=manifest, files={"tried_here/__init__.py": source})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tried_here-1.0.plugin.json"
    path.write_bytes(sign_plugin(plugin_of(), ADA).encoded)
    return path


@pytest.fixture
def card(tmp_path: Path) -> Path:
    path = tmp_path / "ada.pub"
    path.write_text(OfficerCard(officer="ada", key=ADA.public.key.hex()).model_dump_json())
    return path


def plan_with(file: Path, *words: str) -> StudyPlan:
    """A plan that names the plugin of ``file``: one step of few patients, so that it has few slots."""
    from datetime import UTC, datetime

    given = ("rounds=1", "local.steps=1", "privacy.sampling_probability=0.01", "privacy.noise_multiplier=2.0", *words)
    composed = compose_configuration(["study=heart_disease", f"task={file}", "secagg=off", *given])
    configuration = parse_configuration(with_plugins(composed))
    return make_plan(configuration, declared_patients(configuration), datetime.now(UTC).date())


def whole(ask: Any) -> bytes:
    return b"".join(bytes(part) for part in ask_bytes(ask))


def asked(desk: Any, plan: StudyPlan) -> Reply | Refusal:
    """What the desk answers when the coordinator proposes the plan and asks for its first round."""
    desk.answer("query.hello", plan.digest, [whole(Propose(plan.canonical.decode()))])
    request = Study(plan, strategy_from(plan.strategy)).open_round(0.0).request
    (answer,) = desk.answer("train.round", plan.digest, [whole(Train(request, None))])
    found = parse_answer(bytes_to_send(answer), "va")
    assert isinstance(found, Reply | Refusal)
    return found


def last_reason(desk: Any) -> str:
    rows = desk.members.store.execute("SELECT content FROM entries ORDER BY number").fetchall()
    facts = [parse_content(bytes(content)).fact for (content,) in rows]
    return [fact.reason for fact in facts if isinstance(fact, Refuse)][-1]


def test_it_runs_once_it_is_installed_and_approved_and_at_no_other_time(
    consortium: Any, file: Path, card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    allowed = consortium.folders["va"].path / "policy.yaml"
    allowed.write_text("secure_aggregation_from: 5\n")
    plan, desk = plan_with(file), consortium.desk("va")
    sys.modules.pop("tried_here", None)  # the plan's author has built the model in this process, as one does
    assert isinstance(asked(desk, plan), Refusal)
    assert last_reason(desk) == f"the plugin 'tried_here' with digest {plugin_of().digest} is not installed here"
    # Another version is another plugin.
    other = tmp_path / "other.json"
    other.write_bytes(sign_plugin(plugin_of(version="1.1"), ADA).encoded)
    install_command(consortium.folders["va"].path, other, card)
    assert isinstance(asked(desk, plan), Refusal)
    assert last_reason(desk).endswith(f"is not installed here; of that name {plugin_of(version='1.1').digest[:12]} is")
    # Installed, and nobody approved a plan that names it.
    install_command(consortium.folders["va"].path, file, card)
    assert isinstance(asked(desk, plan), Refusal) and last_reason(desk) == "the plan is proposed here"
    assert desk.ledger.state.blocks == {} and "tried_here" not in sys.modules
    consortium.approve(plan, "va")
    desk = consortium.desk("va")
    answer = asked(desk, plan)
    assert isinstance(answer, Reply) and desk.ledger.charged(plan.digest) == 1
    assert answer.vector.shape == (plan.layout.size + 1,)
    assert "tried_here" not in sys.modules, "the daemon's process has imported a plugin"
    capsys.readouterr()
    list_command(consortium.folders["va"].path, False)
    shown = capsys.readouterr().out
    assert plugin_of().digest in shown and plugin_of(version="1.1").digest in shown
    remove_command(consortium.folders["va"].path, plugin_of().digest[:12])
    assert isinstance(asked(consortium.desk("va"), plan), Refusal)


def test_what_was_changed_on_disk_or_signed_by_another_is_not_installed_and_does_not_run(
    consortium: Any, file: Path, card: Path, tmp_path: Path
) -> None:
    folder = consortium.folders["va"]
    text = file.read_text()
    changed = tmp_path / "changed.json"
    changed.write_text(text.replace("nn.Linear(features, 1)", "nn.Linear(features, 1) "))
    with pytest.raises(UsageError, match="changed after its author signed it"):
        install_command(folder.path, changed, card)
    forged = tmp_path / "forged.json"
    forged.write_bytes(sign_plugin(plugin_of(), Identity.generate("ada")).encoded)
    with pytest.raises(UsageError, match="another key than the card's"):
        install_command(folder.path, forged, card)
    assert folder.plugins.held() == () and not (folder.path / "plugins").exists()
    install_command(folder.path, file, card)
    place = folder.plugins.path / f"{plugin_of().digest}.json"
    assert place.stat().st_mode & 0o777 == 0o600
    place.write_text(text.replace("Made for a test", "Made for a theft"))
    assert "changed on disk" in str(folder.plugins.fault(plan_with(file)))


def test_without_differential_privacy_nothing_bounds_a_plugin_so_it_does_not_run(
    consortium: Any, file: Path, card: Path
) -> None:
    folder = consortium.folders["va"]
    install_command(folder.path, file, card)
    composed = compose_configuration(["study=heart_disease", f"task={file}", "secagg=off", "privacy=none", "rounds=1"])
    configuration = parse_configuration(with_plugins(composed))
    from datetime import UTC, datetime

    plan = make_plan(configuration, declared_patients(configuration), datetime.now(UTC).date())
    consortium.approve(plan, "va")
    desk = consortium.desk("va")
    answer = asked(desk, plan)
    assert isinstance(answer, Refusal) and answer.code is RefusalCode.POLICY
    assert "no differential privacy" in last_reason(desk)


def test_a_machine_that_cannot_isolate_refuses_the_study_and_charges_nothing(
    consortium: Any, file: Path, card: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (consortium.folders["va"].path / "policy.yaml").write_text("secure_aggregation_from: 5\n")
    plan = plan_with(file)
    install_command(consortium.folders["va"].path, file, card)
    consortium.approve(plan, "va")
    # The worker is told that it runs on a machine for which there is no list of system calls.
    monkeypatch.setattr("wardround.client.plugins.children.WORKER", NO_SECCOMP + WORKER)
    desk = consortium.desk("va")
    answer = asked(desk, plan)
    assert isinstance(answer, Refusal) and answer.code is RefusalCode.UNAVAILABLE
    assert "plugins cannot be isolated on this machine" in last_reason(desk)
    assert desk.ledger.state.blocks == {}


NO_SECCOMP = 'import platform; platform.machine = lambda: "riscv64"'


def test_a_plugin_is_compiled_and_never_run_by_what_reads_it() -> None:
    """Reading a plugin to its end runs none of it."""
    code = compiled(plugin_of("raise SystemExit('ran')\n" + SOURCE))
    assert list(code) == ["tried_here.__init__"]
