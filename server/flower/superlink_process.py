"""The SuperLink's own process, started by the supervisor with the coordinator's folder."""

import asyncio
import logging
import os
import sys
import threading
import time
from pathlib import Path

from wardround.server.door import door
from wardround.server.flower.superlink import Listening, serve
from wardround.server.folder import CoordinatorFolder


def main() -> None:
    """Serve the folder's SuperLink until a signal, or the end of the supervisor, ends it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for noisy in ("flwr", "httpx", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    folder = CoordinatorFolder.open(Path(sys.argv[1]))
    listening = Listening(
        host=folder.about.listen_host,
        port=folder.about.public_port,
        runtime_port=folder.runtime_port,
        database=folder.path / "superlink.sqlite",
        secret=folder.superexec_secret(),
        certificate=folder.certificate,
        key=folder.certificate_key,
    )
    asyncio.run(serve(listening, door(folder)))


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


if __name__ == "__main__":
    main()
