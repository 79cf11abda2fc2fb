"""Processes that stay and take one job after another; the death of one costs its job and nothing else.

They are started afresh (``spawn``: no lock, thread or random state is copied) and hold each other up nowhere. Ctrl-C is
the parent's to handle; a child whose parent is gone ends after its job.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final, Generic, TypeVar

JobT = TypeVar("JobT")
EndedT = TypeVar("EndedT")

_ONE_THREAD: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(slots=True)
class _Worker(Generic[JobT]):
    process: BaseProcess
    pipe: Connection
    job: JobT | None = field(default=None)


def in_parallel(
    do: Callable[[JobT], EndedT], jobs: Sequence[JobT], processes: int, died: Callable[[JobT], EndedT]
) -> Iterator[EndedT]:
    """``do`` of every job, in ``processes`` processes, as each ends; ``died`` of a job whose process was killed.

    ``do`` and the jobs go over a pipe once. Numerical libraries have one thread in each process. When the caller stops
    iterating, the processes are stopped, in the middle of a job if need be.
    """
    waiting = list(reversed(jobs))
    workers = [_start(do) for _ in range(min(processes, len(jobs)))]
    try:
        for worker in workers:
            _give(worker, waiting)
        while busy := [worker for worker in workers if worker.job is not None]:
            ready = set(wait([worker.pipe for worker in busy]))
            for worker in busy:
                if worker.pipe not in ready or worker.job is None:
                    continue
                try:
                    ended: EndedT = worker.pipe.recv()
                except (EOFError, OSError):
                    ended = died(worker.job)
                    workers[workers.index(worker)] = worker = _replace(worker, do, bool(waiting))
                yield ended
                _give(worker, waiting)
    finally:
        for worker in workers:
            _stop(worker)


def _start(do: Callable[[JobT], EndedT]) -> _Worker[JobT]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(do, theirs), daemon=True)
    with _one_thread():
        process.start()
    theirs.close()
    return _Worker(process, ours)


def _replace(worker: _Worker[JobT], do: Callable[[JobT], EndedT], needed: bool) -> _Worker[JobT]:
    worker.job = None
    if not needed:
        return worker
    _stop(worker)
    return _start(do)


def _give(worker: _Worker[JobT], waiting: list[JobT]) -> None:
    worker.job = waiting.pop() if waiting else None
    if worker.job is not None:
        # A process that is dead already is noticed when it is read from.
        with suppress(OSError):
            worker.pipe.send(worker.job)


def _stop(worker: _Worker[JobT]) -> None:
    worker.pipe.close()
    if worker.job is not None:
        worker.process.terminate()
    worker.process.join(5)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()


def _work(do: Callable[[JobT], EndedT], pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, BrokenPipeError):
        while True:
            pipe.send(do(pipe.recv()))


@contextmanager
def _one_thread() -> Iterator[None]:
    """The environment of a child whose numerical libraries have one thread; they read it when they are loaded."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
