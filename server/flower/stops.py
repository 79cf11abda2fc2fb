"""Lets a site hear that people stopped a study, while it trains.

Flower answers a question about a run that is over with an error, and the same error whether people stopped the study
or the coordinator crashed in the middle of it. A site must go on in the second case: its answer will be fetched by the
run that follows, at no further privacy.
"""

from collections.abc import Callable
from typing import Final

from flwr.common.constant import SubStatus
from flwr.common.serde import run_to_proto
from flwr.proto.run_pb2 import GetRunRequest, GetRunResponse
from flwr.server.superlink.linkstate import LinkState
from flwr.superlink.servicer.fleet import fleet_handlers

Handler = Callable[[GetRunRequest, LinkState], GetRunResponse]

_stock: Final[Handler] = fleet_handlers.get_run


def tell_of_stops() -> None:
    """From now on this process's SuperLink names a run that people stopped, to the nodes of its federation."""
    vars(fleet_handlers)["get_run"] = run_or_stop


def run_or_stop(request: GetRunRequest, state: LinkState) -> GetRunResponse:
    """Flower's ``GetRun``, which also answers for a run that people stopped.

    Raises:
        FlowerError: the run is over for another reason, is not there, or is not this node's.
    """
    for run in state.get_run_info(run_ids=[request.run_id]):
        allowed = state.federation_manager.has_node(request.node.node_id, run.federation_id)
        if allowed and run.status.sub_status == SubStatus.STOPPED:
            return GetRunResponse(run=run_to_proto(run))
    return _stock(request, state)
