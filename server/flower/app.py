"""What the bundle of a study names as its ServerApp. The coordinator runs it from its own installation (``task``)."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from wardround.protocol.errors import UsageError

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Refuses: a study needs the coordinator's folder, which only ``wardround coordinator start`` gives it."""
    raise UsageError("a study runs under 'wardround coordinator start' only", "start it there")
