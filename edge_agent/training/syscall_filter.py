"""A seccomp filter: the kernel refuses this process the network, other programs and other processes, until it ends.

By ctypes: libseccomp's Python bindings need its shared library and have had no release for years, and a list of calls
to refuse is a dozen lines of filter (man 2 seccomp).
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass

SET_MODE_FILTER, ALL_THREADS = 1, 1
ALLOW, KILL_PROCESS, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
LOAD_WORD, JUMP_IF_EQUAL, JUMP_IF_AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
CALL_AT, MACHINE_AT = 0, 4
"""Where the filter's input has the number of the call, and the kind of machine."""
NO_NUMBER = 0xFFFFFFFF
X32_CALLS = 0x40000000
"""From here on the numbers are the same calls again, in another calling convention of x86-64."""

REFUSED = {
    # name: (x86-64, aarch64)
    "socket": (41, 198),
    "connect": (42, 203),
    "accept": (43, 202),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "bind": (49, 200),
    "listen": (50, 201),
    "socketpair": (53, 199),
    "fork": (57, NO_NUMBER),
    "vfork": (58, NO_NUMBER),
    "execve": (59, 221),
    "kill": (62, 129),
    "ptrace": (101, 117),
    "rt_sigqueueinfo": (129, 138),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "mount": (165, 40),
    "init_module": (175, 105),
    "tkill": (200, 130),
    "kexec_load": (246, 104),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "unshare": (272, 97),
    "accept4": (288, 242),
    "rt_tgsigqueueinfo": (297, 240),
    "perf_event_open": (298, 241),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "sendmmsg": (307, 269),
    "setns": (308, 268),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "finit_module": (313, 273),
    "bpf": (321, 280),
    "execveat": (322, 281),
    "userfaultfd": (323, 282),
    "pidfd_send_signal": (424, 424),
    "io_uring_setup": (425, 425),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
}
"""Networks, programs, other processes, and what would lead around either. Threads and `abort` stay possible."""


@dataclass(frozen=True, slots=True)
class _Machine:
    """The number of its kind, the column of its calls in `REFUSED`, and its number of seccomp(2)."""

    audit: int
    column: int
    seccomp: int


MACHINES = {
    "x86_64": _Machine(0xC000003E, 0, 317),
    "aarch64": _Machine(0xC00000B7, 1, 277),
}
"""Those that onnxruntime has wheels for."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


class SyscallFilterError(Exception):
    """This kernel takes no filter; says why."""


def refuse_calls() -> None:
    """Have the kernel answer every call in `REFUSED` with EPERM, in all threads; there is no way back.

    Needs `no_new_privs`.

    Raises:
        SyscallFilterError: a machine without a list here, or a kernel without seccomp.
    """
    machine = MACHINES.get(platform.machine())
    if machine is None:
        raise SyscallFilterError(f"no list of calls for {platform.machine()}")
    instructions = b"".join(_instructions(machine))
    program = _Program(len(instructions) // 8, instructions)
    library = ctypes.CDLL(None, use_errno=True)
    mode, flags = ctypes.c_long(SET_MODE_FILTER), ctypes.c_long(ALL_THREADS)
    if library.syscall(ctypes.c_long(machine.seccomp), mode, flags, ctypes.byref(program)):
        raise SyscallFilterError(os.strerror(ctypes.get_errno()))


def _instructions(machine: _Machine) -> Iterator[bytes]:
    """The filter, in the kernel's classic BPF."""
    numbers = [each[machine.column] for each in REFUSED.values() if each[machine.column] != NO_NUMBER]
    yield _instruction(LOAD_WORD, MACHINE_AT)
    yield _instruction(JUMP_IF_EQUAL, machine.audit, if_true=1)
    yield _instruction(RETURN, KILL_PROCESS)
    yield _instruction(LOAD_WORD, CALL_AT)
    yield _instruction(JUMP_IF_AT_LEAST, X32_CALLS, if_true=len(numbers) + 1)
    for place, number in enumerate(numbers):
        yield _instruction(JUMP_IF_EQUAL, number, if_true=len(numbers) - place)
    yield _instruction(RETURN, ALLOW)
    yield _instruction(RETURN, REFUSE)


def _instruction(code: int, value: int, *, if_true: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, 0, value)
