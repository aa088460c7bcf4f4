"""The functions of Biren's management library (BRML), bound with ctypes: types in, values out.

Every call blocks, and with a broken driver it may never return. The library may be called from
several threads at once (according to its header); nothing here changes after construction.

Source of names, types and structures: the library's public header, `brml.h`.
"""

import ctypes
import errno
import os
from collections.abc import Callable
from ctypes import c_char, c_char_p, c_int, c_uint, c_ulonglong, c_void_p
from typing import Any, Final

from biren_plugin.core.parse.brml import ReturnCode, text
from biren_plugin.errors import LibraryMissing, LibraryUnusable

_TEXT_SIZE: Final = 80
"""Bytes of the buffer for a string; the size is passed as a separate argument after the pointer."""
_Text = c_char * _TEXT_SIZE
_Device = c_void_p


class _Memory(ctypes.Structure):
    _fields_ = (("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong))


class _PciInfo(ctypes.Structure):
    _fields_ = (
        ("domain", c_uint),
        ("bus", c_uint),
        ("device", c_uint),
        ("function", c_uint),
        ("pciDeviceId", c_uint),
        ("pciSubSystemId", c_uint),
        ("busId", c_char * 32),
    )


class _GpuInfo(ctypes.Structure):
    _fields_ = (
        ("name", c_char * 96),
        ("id", c_char * 96),
        ("serial", c_char * 96),
        ("board_id", c_char * 96),
    )


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", c_uint), ("memory", c_uint))


class _P2PStatus(ctypes.Structure):
    _fields_ = (("type", c_int), ("count", c_uint), ("port", c_uint * 8))


_Types = tuple[type[Any], ...]
_FUNCTIONS: Final[dict[str, tuple[_Types, _Types]]] = {
    "brmlInit": ((), ()),
    "brmlShutdown": ((), ()),
    "brmlSystemGetDriverVersion": ((), (_Text,)),
    "brmlSystemGetBRMLVersion": ((), (_Text,)),
    "brmlDeviceGetCount": ((), (c_uint,)),
    "brmlDeviceGetHandleByIndex": ((c_uint,), (_Device,)),
    "brmlDeviceGetHandleByNodeId": ((c_uint,), (_Device,)),
    "brmlDeviceGetNodeId": ((_Device,), (c_uint,)),
    "brmlDeviceGetSviMode": ((_Device,), (c_uint, c_uint)),
    "brmlDeviceGetGpuInstanceById": ((_Device, c_uint), (_Device,)),
    "brmlDeviceGetInstanceNumber": ((_Device,), (c_uint,)),
    "brmlDeviceGetUUID": ((_Device,), (_Text,)),
    "brmlDeviceGetGpuInfo": ((_Device,), (_GpuInfo,)),
    "brmlDeviceGetMemoryInfo": ((_Device,), (_Memory,)),
    "brmlDeviceGetPciInfo": ((_Device,), (_PciInfo,)),
    "brmlDeviceGetHealthStatus": ((_Device,), (c_int,)),
    "brmlDeviceGetTemperature": ((_Device, c_int), (c_uint,)),
    "brmlDeviceGetTemperatureThreshold": ((_Device, c_int), (c_uint,)),
    "brmlDeviceGetTotalEccErrors": ((_Device, c_int, c_int), (c_ulonglong,)),
    "brmlDeviceGetPowerUsage": ((_Device,), (c_uint,)),
    "brmlDeviceGetCurrentClocksThrottleReasons": ((_Device,), (c_ulonglong,)),
    "brmlDeviceGetBrLinkNumber": ((_Device,), (c_uint,)),
    "brmlDeviceGetBrLinkState": ((_Device, c_uint), (c_int,)),
    "brmlDeviceGetUtilizationRates": ((_Device,), (_Utilization,)),
    "brmlDeviceGetNumaNode": ((_Device,), (c_uint,)),
    "brmlDeviceGetP2PStatus_v2": ((_Device, _Device), (_P2PStatus,)),
    "brmlDeviceGetTopologyCommonAncestor": ((_Device, _Device), (c_int,)),
}
"""By function: its arguments, and the values it writes through the pointers after those.

All functions return an int; 0 is success.
"""
_INDISPENSABLE: Final = ("brmlInit", "brmlDeviceGetHandleByNodeId")


def _is_empty(path: str) -> bool:
    try:
        return os.stat(path).st_size == 0
    except OSError:
        return False


class BrmlCalls:
    """The library at `path`, loaded.

    Raises `LibraryMissing` if the loader finds no such library, `LibraryUnusable` if it cannot be loaded
    or is a different library.
    """

    def __init__(self, path: str) -> None:
        try:
            library = ctypes.CDLL(path)
        except OSError as error:
            # If a library that this one depends on is missing, the text names that library instead.
            reason = str(error).removeprefix(f"{path}: ")
            if path in str(error) and reason.endswith(os.strerror(errno.ENOENT)):
                raise LibraryMissing(f"there is no {path}") from error
            if _is_empty(path):
                reason = (
                    "it is empty, as on a simulated host; on a real node, install the driver again"
                )
            raise LibraryUnusable(f"cannot load {path}: {reason}") from error
        self._functions = {
            name: _bind(getattr(library, name), takes, writes)
            for name, (takes, writes) in _FUNCTIONS.items()
            if hasattr(library, name)
        }
        self.lacking = tuple(name for name in _FUNCTIONS if name not in self._functions)
        """Functions that this library does not have."""
        for name in _INDISPENSABLE:
            if name in self.lacking:
                raise LibraryUnusable(f"cannot use {path}: it has no function {name}")
        self._error_string: Callable[[int], int | None] | None = None
        if (function := getattr(library, "brmlErrorString", None)) is not None:
            function.argtypes = (c_int,)
            function.restype = c_void_p  # ctypes would read a c_char_p to its end, if it has one
            self._error_string = function

    def call(self, name: str, *arguments: int) -> tuple[int, list[Any]]:
        """Return the function's code, and the values it wrote: integers or bytes, structures field by field.

        A function that the library lacks gives `NOT_SUPPORTED`.
        """
        written = [kind() for kind in _FUNCTIONS[name][1]]
        pointers: list[Any] = []
        for each in written:
            pointers += [each, _TEXT_SIZE] if isinstance(each, _Text) else [ctypes.byref(each)]
        function = self._functions.get(name)
        code = function(*arguments, *pointers) if function else ReturnCode.NOT_SUPPORTED
        return code, [value for each in written for value in _values(each)]

    def meaning(self, code: int) -> str | None:
        """Return the library's text for a code; None if it has no text."""
        address = self._error_string(code) if self._error_string is not None else None
        if not address:
            return None
        chars = ctypes.cast(address, ctypes.POINTER(c_char))
        found = bytearray()
        while len(found) < _TEXT_SIZE and chars[len(found)] != b"\0":  # never past the end
            found += chars[len(found)]
        return text(bytes(found))


def _bind(function: Any, takes: _Types, writes: _Types) -> Callable[..., int]:
    types = list(takes)
    for kind in writes:
        types += [c_char_p, c_uint] if kind is _Text else [ctypes.POINTER(kind)]
    function.argtypes = types
    function.restype = c_int
    bound: Callable[..., int] = function
    return bound


def _values(written: Any) -> list[Any]:
    if isinstance(written, ctypes.Structure):
        return [getattr(written, name) for name, *_ in written._fields_]
    return [written.raw if isinstance(written, _Text) else written.value]
