"""Ports of 127.0.0.1 for the servers that tests and benchmarks start.

A port that the system is asked for (``bind`` to port 0) is free again until the server has started, and may then be
somebody else's. These are below those that systems hand out (Linux from 32,768, macOS from 49,152) and below those that
links and coordinators draw for themselves (from 20,000), and are given once.
"""

import os
import random
import socket

_PORTS = range(10_000, 20_000)
_SHARES = 16
"""Of the ports: processes of pytest-xdist draw from a share each, so that two never draw the same."""

_given: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on and that this process has not been given before."""
    share = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SHARES
    ports = _PORTS[share::_SHARES]
    for port in random.Random(os.urandom(8)).sample(ports, len(ports)):
        if port in _given:
            continue
        with socket.socket() as probe:
            # As servers do: a port of which only ended connections are left is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise OSError(f"no port of 127.0.0.1 from {ports[0]} to {ports[-1]} is free")
