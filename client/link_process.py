"""The link supervisor as a process: ``wardround site link``, or a child of a daemon that runs for one user.

It ends with the process that started it, unless the service manager did: nothing of a site is ever left behind.
"""

import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from wardround.client.link import LinkFolder
from wardround.client.link_supervisor import LinkSupervisor


def run_link(path: Path, end_with_parent: bool) -> None:
    """Keep the SuperNode of this link folder running until a signal."""
    told: list[int] = []
    parent = os.getppid()

    def stop(number: int, frame: FrameType | None) -> None:
        told.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    link = LinkFolder.open(path)
    LinkSupervisor(link, lambda: bool(told) or (end_with_parent and os.getppid() != parent)).run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    run_link(Path(sys.argv[1]), end_with_parent=True)
