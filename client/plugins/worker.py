"""The process behind the wall: it holds a plugin that has not run, and starts one child for each patient.

``children.Worker`` starts it and speaks with it over one socket. No code of the plugin ever runs in this process, and
no byte of a patient ever reaches it: for each patient the daemon hands over one end of a new socket, and the child that
is forked then shuts itself in, runs the plugin, reads that patient's records from that socket, answers, and is killed.
So a plugin begins every patient as it was before the first, and has nobody to tell.

    daemon -> worker   FORK with a descriptor   a child answers on it
    daemon -> worker   KILL                     the child is no more; the worker answers DONE
"""

import array
import gc
import json
import os
import resource
import signal
import socket
from typing import Any, Final

from wardround.client.plugins.isolation import (
    EXTRA_MEMORY,
    confine,
    harden,
    landlock,
    proven,
    shared_memory,
)
from wardround.client.plugins.loading import Code, built, compiled, imported
from wardround.protocol.errors import WardroundError
from wardround.protocol.plugins import Plugin

FORK, KILL, DONE = b"F", b"K", b"D"
READY: Final = b"ready"

LENGTH: Final = 8
"""Bytes, big-endian, before every message."""

MOST_REQUEST: Final = 1 << 31

_COPIES: Final = 24
"""Float32 copies of the model that a patient's process may hold."""


def send(connection: socket.socket, data: bytes) -> None:
    """One message: its length, and its bytes."""
    connection.sendall(len(data).to_bytes(LENGTH, "big") + data)


def receive(read: Any, most: int) -> bytes:
    """The next message of at most ``most`` bytes. Raises EOFError, and ValueError for one that is longer."""
    length = int.from_bytes(_exactly(read, LENGTH), "big")
    if length > most:
        raise ValueError("a message is too long")
    return _exactly(read, length)


def _exactly(read: Any, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = read(min(count - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def main(descriptor: int) -> None:
    """Get ready, say so (or why not), and fork until the daemon closes its end."""
    control = socket.socket(fileno=descriptor)
    try:
        harden()
        given = json.loads(receive(control.recv, MOST_REQUEST))
        plugin = Plugin.model_validate(given["plugin"])
        code, package = compiled(plugin), plugin.manifest.name
        _warm_up()
        if len(os.listdir("/proc/self/task")) != 1 or shared_memory():
            raise RuntimeError
        memory = _held() + EXTRA_MEMORY + _COPIES * 4 * int(given["size"])
        landlock()
        if not proven(lambda: confine(memory, 5)):
            raise RuntimeError
    except WardroundError as error:
        send(control, error.message.encode())
        return
    except Exception:
        send(control, b"plugins cannot be isolated on this machine (a wall does not hold)")
        return
    send(control, READY)
    gc.collect()
    gc.freeze()  # what is here is shared with the children as long as nobody writes to it
    _serve(control, code, package, given, memory)


def _serve(control: socket.socket, code: Code, package: str, given: dict[str, Any], memory: int) -> None:
    child = 0
    while True:
        word, ancillary, _, _ = control.recvmsg(1, socket.CMSG_SPACE(4))
        if word == FORK and not child:
            descriptor = array.array("i", ancillary[0][2][:4])[0]
            child = os.fork()
            if child == 0:
                try:
                    _answer(descriptor, control.fileno(), code, package, given, memory)
                finally:
                    os._exit(0)
            os.close(descriptor)
            continue
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            child = 0
        if word != KILL:
            return
        control.sendall(DONE)


def _answer(descriptor: int, control: int, code: Code, package: str, given: dict[str, Any], memory: int) -> None:
    """In the child: shut in, then the plugin, then the patient. The answer is raw float32, little-endian."""
    os.close(control)
    os.dup2(descriptor, 3)
    os.closerange(4, 1 << 16)
    confine(memory, int(given["seconds"]))
    from wardround.client.plugins.loss import computed

    module, loss = built(imported(code, package), given["kind"], int(given["features"]), given["settings"])
    request = receive(lambda count: os.read(3, count), MOST_REQUEST)
    answer = computed(module, loss, request, given).tobytes()
    answer = len(answer).to_bytes(LENGTH, "big") + answer
    while answer:
        answer = answer[os.write(3, answer) :]


def _warm_up() -> None:
    """Import, and use once, what a model needs: behind the wall no file can be opened any more."""
    import abc
    import collections
    import dataclasses
    import enum
    import functools
    import itertools
    import math
    import random
    import typing

    import numpy
    import torch
    from safetensors.numpy import load, save

    from wardround.client.plugins import loss as _loss

    torch.set_num_threads(1)
    model = torch.nn.Sequential(
        torch.nn.Linear(2, 4), torch.nn.LayerNorm(4), torch.nn.GELU(), torch.nn.Dropout(0.1), torch.nn.Linear(4, 1)
    )
    value = model(torch.zeros(3, 2))
    target = torch.zeros(3, 1)
    total = torch.nn.functional.binary_cross_entropy_with_logits(value, target) + (value - target).square().mean()
    torch.autograd.grad(total, list(model.parameters()))
    load(save({"x": numpy.zeros(1)}))
    torch.manual_seed(0)
    del abc, collections, dataclasses, enum, functools, itertools, math, random, typing, _loss


def _held() -> int:
    """Bytes of this process's address space."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
