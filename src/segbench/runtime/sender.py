"""Which process sent a signal. Python's handlers do not say it, the system does (`si_pid` of sigaction(2))."""

from __future__ import annotations

import ctypes
import logging
import signal
import sys
from collections.abc import Callable

log = logging.getLogger(__name__)

_SA_SIGINFO = 4
_SI_PID = 16
"""Where `si_pid` lies in a siginfo_t of 64-bit Linux."""


class _SigAction(ctypes.Structure):
    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ubyte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


def sender_of(signum: int) -> Callable[[], int]:
    """Note who sends a signal, before the handler that Python has for it now; a new handler ends it.

    Compiled code stands in front of Python's own: at that point no Python code may run.

    Returns:
        a function that gives the process of the last signal; 0: unknown, as elsewhere than on 64-bit Linux.
    """
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8:
        log.warning("who sends %s is not known on this system", signal.Signals(signum).name)
        return lambda: 0
    from numba import cfunc, types

    system = ctypes.CDLL(None, use_errno=True)
    last = (ctypes.c_int32 * 1)()
    now = _SigAction()
    system.sigaction(signum, None, ctypes.byref(now))
    handler_of_python = ctypes.CFUNCTYPE(None, ctypes.c_int)(now.handler)
    copy = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)(("memcpy", system))
    place = ctypes.addressof(last)

    @cfunc(types.void(types.int32, types.uintp, types.uintp))
    def noting(number, info, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        copy(place, info + _SI_PID, 4)
        handler_of_python(number)

    new = _SigAction(handler=noting.address, mask=now.mask, flags=now.flags | _SA_SIGINFO)
    system.sigaction(signum, ctypes.byref(new), None)

    def sender(kept: tuple[object, ...] = (noting, handler_of_python, copy, last)) -> int:
        # What the compiled code uses lives as long as this function.
        return int(last[0])

    return sender
