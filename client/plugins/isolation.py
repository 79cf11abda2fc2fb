"""What a process may do that has code of strangers and one patient's record in it: compute, and answer on one pipe.

Linux seccomp (seccomp(2)) with a list of what is allowed: every other system call fails with EPERM, whatever it is, so
no file can be opened, no socket made, no process started, traced or signalled. It needs no privilege, no namespace and
no library, and a process cannot take it off. Landlock (landlock(7)) is a second wall around files and TCP where the
kernel has it. ``confine`` raises unless the first wall stands, and ``proven`` tries it: a wall that only should stand
is none.
"""

import ctypes
import errno
import os
import platform
import resource
import signal
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

from wardround.protocol.errors import Unavailable

EXTRA_MEMORY: Final = 256 << 20
"""Bytes that a patient's process may add to what its parent holds, beside room for the model."""

HOW_TO_MEND: Final = "a plugin needs Linux on x86_64 or aarch64, and a process that may use seccomp(2): docs/plugins.md"

_ARCHITECTURES: Final = {
    # machine: (AUDIT_ARCH_*, number of seccomp(2), numbers of what is allowed)
    "x86_64": (
        0xC000003E,
        317,
        # read write close fstat mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn sched_yield mremap
        # madvise getpid exit time gettimeofday sigaltstack gettid futex sched_getaffinity restart_syscall clock_gettime
        # exit_group set_robust_list getrandom membarrier rseq
        *(0, 1, 3, 5, 9, 10, 11, 12, 13, 14, 15, 24, 25, 28, 39, 60, 96, 131, 186, 201, 202, 204, 219, 228, 231, 273),
        *(318, 324, 334),
    ),
    "aarch64": (
        0xC00000B7,
        277,
        # The same calls; this machine has no time(2).
        *(63, 64, 57, 80, 222, 226, 215, 214, 134, 135, 139, 124, 216, 233, 172, 93, 169, 132, 178, 98, 123, 128, 113),
        *(94, 99, 278, 283, 293),
    ),
}

_LANDLOCK_CREATE: Final = 444
_LANDLOCK_RESTRICT: Final = 446
_FILE_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""Rights on files that a version of Landlock knows, as a number of bits; later versions have those of 5."""

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_SECCOMP_SET_MODE_FILTER: Final = 1
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def harden() -> None:
    """For a process that no code of strangers runs in: no new rights, no core file, no look into its memory."""
    _checked(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _checked(_libc().prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def confine(memory: int, seconds: int) -> None:
    """Shut this process in, for good: limits on memory (bytes of address space) and processor time, and seccomp.

    Raises:
        Unavailable: the kernel does not do it; nothing may run here then.
    """
    for limit, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        try:
            resource.setrlimit(limit, (most, most))
        except (OSError, ValueError):
            raise _impossible("a limit cannot be set") from None
    libc = _libc()
    _checked(libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    code, call = _filter()
    program = _Program(len(code) // 8, code)
    _checked(libc.syscall(call, _SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(program)), "seccomp")


def landlock() -> int:
    """Take all rights on files and TCP from this process and what it starts. Returns Landlock's version; 0: none."""
    libc = _libc()
    version = int(libc.syscall(_LANDLOCK_CREATE, None, 0, 1))
    if version < 1:
        return 0
    rights = (1 << _FILE_RIGHTS.get(version, 16)) - 1
    attributes = struct.pack("QQ", rights, 3)[: 16 if version >= 4 else 8]
    ruleset = libc.syscall(_LANDLOCK_CREATE, attributes, len(attributes), 0)
    _checked(ruleset, "landlock")
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _checked(libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0), "landlock")
    os.close(ruleset)
    return version


def proven(confined: Callable[[], None]) -> bool:
    """Whether a child of this process that ran ``confined`` is refused everything that it must not do."""
    child = os.fork()
    if child == 0:
        try:
            confined()
            os._exit(0 if all(map(_denied, _FORBIDDEN)) else 1)
        except BaseException:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def shared_memory() -> bool:
    """Whether this process could leave a word for another one in memory that both may write."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        return any(line.split(maxsplit=2)[1][1::2] == "ws" for line in maps)


def _filter() -> tuple[bytes, int]:
    """The program in classic BPF, and the number of seccomp(2), for this machine."""
    try:
        architecture, call, *allowed = _ARCHITECTURES[platform.machine()]
    except KeyError:
        raise _impossible(f"no list of system calls for {platform.machine()}") from None
    count = len(allowed)
    # Offsets in struct seccomp_data: 0 the call's number, 4 the architecture. A number of the x32 ABI is on no list.
    program = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    program += [(_EQUAL, count - index, 0, number) for index, number in enumerate(allowed)]
    program += [(_RETURN, 0, 0, _ERRNO | errno.EPERM), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program), call


_FORBIDDEN: Final[tuple[Callable[[], Any], ...]] = (
    lambda: os.open("/etc/passwd", os.O_RDONLY),
    lambda: os.open(".", os.O_RDONLY),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
    os.fork,
    lambda: os.kill(os.getppid(), 0),
    lambda: os.kill(0, 0),
    lambda: os.listdir("/"),
    lambda: os.execv("/bin/false", ["false"]),
    lambda: os.mkdir("/tmp/wardround-wall"),
    lambda: os.memfd_create("wall"),
    lambda: os.pipe(),
)


def _denied(act: Callable[[], Any]) -> bool:
    try:
        found = act()
    except OSError as error:
        return error.errno == errno.EPERM
    if act is os.fork and found == 0:
        os._exit(0)
    return False


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result < 0:
        raise _impossible(f"{what}: {os.strerror(ctypes.get_errno())}")


def _impossible(why: str) -> Unavailable:
    return Unavailable(f"plugins cannot be isolated on this machine ({why})", HOW_TO_MEND)
