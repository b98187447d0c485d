"""Runs a command as on a machine that lacks something: `python3 scripts/lacking.py landlock=EPERM seccomp -- COMMAND ...`.

For tests and measurements of what Framehook's children are confined by; the product itself has no switch that takes a piece
of that away. What a command lacks, its children lack too:

    landlock, seccomp, close_range   these system calls fail: with ENOSYS, as in a kernel without them, or with the error
                                     that is given, as in a container whose filter refuses them
    users                            root may not become another user
    root                             the command runs as `nobody`

With nothing but `--` before it a command lacks nothing, and is run behind a filter all the same.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

# The numbers of system calls: of x86-64 and of 64-bit ARM. The newer ones are the same everywhere.
COLUMN = {"x86_64": 0, "aarch64": 1}.get(platform.machine())
PRCTL, SECCOMP = (157, 167), (317, 277)
CLOSE_RANGE = (436, 436)
LANDLOCK = [(444, 444), (445, 445), (446, 446)]

PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 22, 24, 38
SECCOMP_MODE_FILTER = 2
CAP_SETGID, CAP_SETUID = 6, 7
NOBODY = 65534

# Each system call with the first argument that is refused, where it is not all of them.
CALLS = {
    "landlock": [(call, None) for call in LANDLOCK],
    "seccomp": [(SECCOMP, None), (PRCTL, PR_SET_SECCOMP)],
    "close_range": [(CLOSE_RANGE, None)],
}

# Classic BPF: load a word of what is known about the call, compare, return.
LOAD, IF_EQUAL, RETURN = 0x20, 0x15, 0x06
NUMBER_AT, FIRST_ARGUMENT_AT = 0, 16
ALLOW, FAIL_WITH = 0x7FFF0000, 0x00050000

libc = ctypes.CDLL(None, use_errno=True)


def main():
    arguments = sys.argv[1:]
    if "--" not in arguments or not arguments[arguments.index("--") + 1:]:
        sys.exit(__doc__)
    end = arguments.index("--")
    lacking = dict(word.partition("=")[::2] for word in arguments[:end])
    if unknown := lacking.keys() - CALLS.keys() - {"users", "root"}:
        sys.exit(f"lacking.py: nothing is known of {', '.join(sorted(unknown))}")
    refuse([(call, first, getattr(errno, lacking[name] or "ENOSYS"))
            for name in CALLS if name in lacking for call, first in CALLS[name]])
    if "users" in lacking:
        for capability in (CAP_SETGID, CAP_SETUID):
            prctl(PR_CAPBSET_DROP, capability)
    if "root" in lacking and os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    command = arguments[end + 1:]
    os.execvp(command[0], command)


def refuse(calls):
    """Gives this process, and what it starts, a filter that lets everything else through."""
    if COLUMN is None:
        sys.exit(f"lacking.py: the system calls of {platform.machine()} are not known here")
    program = []
    for call, first, error in calls:
        body = [(RETURN, 0, FAIL_WITH | error)]
        if first is not None:
            body = [(LOAD, 0, FIRST_ARGUMENT_AT), (IF_EQUAL, len(body), first), *body]
        program += [(LOAD, 0, NUMBER_AT), (IF_EQUAL, len(body), call[COLUMN]), *body]
    program.append((RETURN, 0, ALLOW))
    code = b"".join(struct.pack("=HBBI", what, 0, otherwise, value) for what, otherwise, value in program)
    buffer = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    # Root needs no promise for a filter; so what it starts can still show whether it makes that promise itself.
    if os.geteuid() != 0:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(Program(len(program), ctypes.addressof(buffer))))


def prctl(option, argument, more=0):
    if libc.prctl(option, ctypes.c_ulong(argument), more, 0, 0) != 0:
        number = ctypes.get_errno()
        sys.exit(f"lacking.py: prctl {option}: {os.strerror(number)}")


if __name__ == "__main__":
    main()
