"""What the bundle of a study names as its ClientApp. It is a name only: the site's daemon answers (``executor``)."""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from wardround.protocol.errors import UsageError

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Refuses: patients' data, keys and ledger are the daemon's, and no process that Flower starts has them."""
    raise UsageError("rounds are answered by the site's daemon only", "run 'wardround site start'")
