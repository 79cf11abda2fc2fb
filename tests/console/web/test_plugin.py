"""The code of others on the page *Decide*, and on the command line: read before it is approved, and escaped."""

from collections.abc import Callable
from html import unescape
from typing import Any

import pytest

from wardround.console.commands.site_study import approve_command, request_command, show_command
from wardround.protocol.errors import UsageError
from wardround.protocol.identity import Identity
from wardround.protocol.messages import Standing
from wardround.protocol.plan import StudyPlan
from wardround.protocol.plugins import Manifest, Plugin, PluginTask, SignedPlugin, TensorSpec, sign_plugin

ADA = Identity.generate("ada")
FIRST = "from torch import nn\n\ndef build(features):\n    return nn.Linear(features, 1)\n"
EVIL = FIRST + '# </pre><script>alert("x")</script> \x1b[2J \u202e\nimport socket\n'


def signed(text: str, version: str) -> SignedPlugin:
    manifest = Manifest(name="tried", version=version, kind="model", summary="A <b>linear</b> model")
    return sign_plugin(Plugin(manifest=manifest, files={"tried/__init__.py": text}), ADA)


def proposed(world: Any, helpers: Any, plugin: SignedPlugin, rounds: int) -> StudyPlan:
    tensors = (TensorSpec(name="weight", shape=(1, 18), fan_in=18), TensorSpec(name="bias", shape=(1,), fan_in=1))
    task = PluginTask(plugin=plugin.ref, tensors=tensors).model_dump(mode="json")
    words = (f"rounds={rounds}", "privacy.noise_multiplier=3.5")
    made = helpers.plan_of(*words).model_dump() | {"title": "With a plugin", "task": task}
    plan: StudyPlan = world.proposed(StudyPlan.model_validate(made))
    return plan


def shown(client: Any, plan: StudyPlan) -> Any:
    return client.get(f"/studies/{plan.digest}/decide")


def test_a_plugin_is_read_before_it_is_approved_and_the_next_against_the_last(
    world: Any, client_as: Callable[[str], Any], helpers: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, client = signed(FIRST, "1.0"), signed(EVIL, "1.1"), client_as("officer")
    plan = proposed(world, helpers, first, 4)
    # Not installed: nobody could read it, so nobody can sign.
    answer = shown(client, plan)
    assert f"with digest {first.plugin.digest} is not installed here" in unescape(answer.text)
    assert "What you sign" not in answer.text
    with pytest.raises(UsageError, match="not installed here"):
        approve_command(world.path, plan.digest[:12], [], "training", 1, None, True)
    with pytest.raises(UsageError, match="not installed here"):
        request_command(world.path, plan.digest[:12], "training", 1, None, False, None)
    world.folder.plugins.install(first.encoded, ADA.public)
    answer = shown(client, plan)
    assert "no version was approved here before" in answer.text and "+    return nn.Linear(features, 1)" in answer.text
    assert "What you sign" in answer.text and first.plugin.digest in answer.text and ADA.public.key.hex() in answer.text
    assert "A &lt;b&gt;linear&lt;/b&gt; model" in answer.text
    world.granted(plan, "training")
    assert world.office.study(plan.digest).standing is Standing.APPROVED
    # The next version: what changed, with everything that means harm to a reader spelt out.
    later = proposed(world, helpers, second, 5)
    world.folder.plugins.install(second.encoded, ADA.public)
    answer = shown(client, later)
    text = unescape(answer.text)
    assert f"({'<code>'}{first.plugin.digest[:12]}</code>)" in answer.text
    assert "<script>alert" not in answer.text and "&lt;script&gt;alert" in answer.text
    assert "\x1b" not in text and "\\x1b[2J" in text and "\u202e" not in text and "\\u202e" in text
    assert "+import socket" in text and "+from torch import nn" not in text
    assert "imports socket; network ('socket')" in text
    capsys.readouterr()
    show_command(world.path, later.digest[:12], False)
    said = capsys.readouterr().out
    assert "gained: network ('socket')" in said and "    +import socket" in said and "\x1b" not in said
    assert f"Against the version that was approved here before, {first.plugin.digest[:12]}:" in said


def test_a_plan_without_a_plugin_has_no_such_section(world: Any, client_as: Callable[[str], Any]) -> None:
    answer = client_as("officer").get(f"/studies/{world.examples['digest']}/decide")
    assert answer.status_code == 200 and "Code of others" not in answer.text
