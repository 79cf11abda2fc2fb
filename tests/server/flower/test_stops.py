"""What a SuperNode hears of a run that is over."""

from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.common.constant import Status, SubStatus
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.error import FlowerError
from flwr.supercore.run import Run, RunStatus
from flwr.superlink.servicer.fleet import fleet_handlers

from wardround.server.flower.stops import run_or_stop

Told = Callable[[str, str, int], str]


@pytest.fixture
def told() -> Told:
    """Ends a run and asks as a node: the sub-status that it hears. Only node 7 belongs to the run's federation."""

    def ask(status: str, sub_status: str, node: int) -> str:
        run = Run.create_empty(5)
        run.status = RunStatus(status, sub_status, "")
        state: Any = SimpleNamespace(
            get_run_info=lambda run_ids: [run],
            get_run_status=lambda run_ids: {5: run.status},
            cleanup_run=lambda run_id: None,
            federation_manager=SimpleNamespace(has_node=lambda node_id, federation: node_id == 7),
        )
        answer = run_or_stop(GetRunRequest(node=Node(node_id=node), run_id=5), state)
        return answer.run.status.sub_status

    return ask


def test_a_node_hears_that_people_stopped_its_run(told: Told) -> None:
    assert told(Status.FINISHED, SubStatus.STOPPED, 7) == SubStatus.STOPPED


def test_a_crash_of_the_coordinator_is_no_stop(told: Told) -> None:
    with pytest.raises(FlowerError, match="Run is finished"):
        told(Status.FINISHED, SubStatus.FAILED, 7)


def test_a_node_of_another_federation_hears_nothing(told: Told) -> None:
    with pytest.raises(FlowerError, match="not part of the federation"):
        told(Status.FINISHED, SubStatus.STOPPED, 8)


def test_a_run_that_goes_on_is_answered_as_flower_does(told: Told) -> None:
    assert told(Status.RUNNING, "", 7) == ""


def test_flowers_route_looks_the_handler_up_where_it_is_replaced() -> None:
    router = import_module("flwr.superlink.routers.fleet.router")
    assert router.fleet_handlers is fleet_handlers
