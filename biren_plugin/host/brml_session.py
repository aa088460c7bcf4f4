"""What Biren's management library (BRML) reports of the cards. Optional: a node may not have it.

Every call here blocks, and with a broken driver it may never return: call it in a thread that can be
abandoned. One `Brml` serves any number of threads; no thread waits for another's call.
"""

from pathlib import Path
from typing import Any, Final

from biren_plugin.core.parse.brml import (
    MAX_LINKS,
    CardReading,
    CommonAncestor,
    KnownCard,
    LibraryFacts,
    P2PLink,
    ReturnCode,
    believable_node_id,
    card_reading,
    member,
    svi_split,
    text,
)
from biren_plugin.core.parse.vendor import LIBRARY_FOLDERS, LIBRARY_SONAME
from biren_plugin.errors import LibraryCallFailed
from biren_plugin.host.brml_calls import BrmlCalls
from biren_plugin.host.host_paths import resolve, under

_MAX_GPUS: Final = 256
"""More than any server holds: a greater count is garbage, and not worth that many calls."""

_GPU_SENSOR: Final = 0
_SHUTDOWN, _SLOWDOWN = 0, 1
_CORRECTED, _UNCORRECTED = 0, 1
_SINCE_DRIVER_LOAD: Final = 0
_ENABLED: Final = 1
_Fields = tuple[str | None, ...]
_READINGS: Final[tuple[tuple[str, tuple[int, ...], _Fields], ...]] = (
    ("brmlDeviceGetHealthStatus", (), ("status",)),
    ("brmlDeviceGetSviMode", (), ("svi_current", "svi_pending")),
    ("brmlDeviceGetInstanceNumber", (), ("instance",)),
    ("brmlDeviceGetUUID", (), ("uuid",)),
    ("brmlDeviceGetGpuInfo", (), ("product_name", None, "serial", None)),
    ("brmlDeviceGetPciInfo", (), (None, None, None, None, None, None, "pci_address")),
    ("brmlDeviceGetNumaNode", (), ("numa_node",)),
    ("brmlDeviceGetMemoryInfo", (), ("memory_total", None, "memory_used")),
    ("brmlDeviceGetTemperature", (_GPU_SENSOR,), ("temperature",)),
    ("brmlDeviceGetTemperatureThreshold", (_SHUTDOWN,), ("shutdown_temperature",)),
    ("brmlDeviceGetTemperatureThreshold", (_SLOWDOWN,), ("slowdown_temperature",)),
    ("brmlDeviceGetTotalEccErrors", (_CORRECTED, _SINCE_DRIVER_LOAD), ("ecc_corrected",)),
    ("brmlDeviceGetTotalEccErrors", (_UNCORRECTED, _SINCE_DRIVER_LOAD), ("ecc_uncorrected",)),
    ("brmlDeviceGetPowerUsage", (), ("power",)),
    ("brmlDeviceGetCurrentClocksThrottleReasons", (), ("throttle",)),
    ("brmlDeviceGetUtilizationRates", (), ("gpu_utilization", "memory_utilization")),
)
"""Function, arguments after the device, and the field of `CardReading` for each value that it writes."""


def find_library(root: Path) -> list[str]:
    """Return where the library may be, in the order to try; the host's root is `root`.

    On the host itself, the loader's choice comes first. In a container that sees the host below `root`,
    only the host's files count; the loader looks for their dependencies in the container.
    """
    found = [
        real for folder in LIBRARY_FOLDERS if (real := resolve(root, f"{folder}/{LIBRARY_SONAME}"))
    ]
    by_loader = [LIBRARY_SONAME] if root == Path("/") else []
    return by_loader + [str(under(root, real)) for real in dict.fromkeys(found)]


class Brml:
    """The library at `path`, loaded. Raises `LibraryUnusable` as `BrmlCalls` does.

    The other methods may be called between `init()` and `shutdown()`. They get the handles again each
    time: once a GPU is re-split, an old handle may lead anywhere.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._calls = BrmlCalls(path)

    def init(self) -> None:
        """Open the library. Raises `LibraryCallFailed`, for example if the driver is not loaded."""
        self._need("brmlInit")

    def shutdown(self) -> None:
        """Close the library; it stays open for other users in this process."""
        self._calls.call("brmlShutdown")  # a failure leaves nothing to do

    def facts(self) -> LibraryFacts:
        """Return which library this is, and which driver it found."""
        driver_version = self._ask("brmlSystemGetDriverVersion")
        library_version = self._ask("brmlSystemGetBRMLVersion")
        return LibraryFacts(
            path=self._path,
            driver_version=text(driver_version[0]) if driver_version else None,
            library_version=text(library_version[0]) if library_version else None,
            lacking=self._calls.lacking,
        )

    def known_cards(self) -> dict[int, KnownCard]:
        """Return the cards that the library lists, by node id, without those that do not answer.

        Raises `LibraryCallFailed` if the number of GPUs cannot be read.
        """
        (count,) = self._need("brmlDeviceGetCount")
        known = {}
        for index in range(min(count, _MAX_GPUS)):
            gpu = self._ask("brmlDeviceGetHandleByIndex", index)
            if gpu is None:
                continue
            modes = self._ask("brmlDeviceGetSviMode", *gpu)
            split = svi_split(modes[0]) if modes else None
            for card in self._cards_of(gpu, split):
                number = self._ask("brmlDeviceGetNodeId", *card)
                if number and believable_node_id(number[0]):
                    known[number[0]] = KnownCard(index, split)
        return known

    def _cards_of(self, gpu: list[int], split: int | None) -> list[list[int]]:
        if split is None or split == 1:
            return [gpu]
        # *Assumed*: a GPU's instances have the ids 0, 1, 2, 3.
        found = (self._ask("brmlDeviceGetGpuInstanceById", *gpu, n) for n in range(split))
        return [instance for instance in found if instance]

    def read_card(self, number: int) -> CardReading:
        """Return the library's reading of `card_<number>`; a value that it does not report is None.

        Raises `LibraryCallFailed` if the library does not know the card.
        """
        device = self._device(number)
        reported: dict[str, int | bytes] = {}
        timed_out = False
        for function, arguments, fields in _READINGS:
            code, values = self._calls.call(function, device, *arguments)
            timed_out = timed_out or code == ReturnCode.TIMEOUT
            if code == ReturnCode.SUCCESS:
                pairs = zip(fields, values, strict=True)
                reported |= {field: value for field, value in pairs if field}
        reported |= self._links_of(device)
        return card_reading(number, reported, timed_out=timed_out)

    def _links_of(self, device: int) -> dict[str, int | bytes]:
        """Return how many links to other GPUs the card has, and how many are up; nothing if one is unknown."""
        number = self._ask("brmlDeviceGetBrLinkNumber", device)
        if not number or number[0] not in range(1, MAX_LINKS + 1):
            return {}
        states = [self._ask("brmlDeviceGetBrLinkState", device, link) for link in range(number[0])]
        if None in states:
            return {}
        return {"links": number[0], "links_up": sum(state == [_ENABLED] for state in states)}

    def link(self, a: int, b: int) -> P2PLink | None:
        """Return the link between two cards, by node id. Raises as `read_card` does."""
        status = self._ask("brmlDeviceGetP2PStatus_v2", self._device(a), self._device(b))
        return member(P2PLink, status[0]) if status else None

    def ancestor(self, a: int, b: int) -> CommonAncestor | None:
        """Return the closest common ancestor of two cards, by node id. Raises as `read_card` does."""
        function = "brmlDeviceGetTopologyCommonAncestor"
        level = self._ask(function, self._device(a), self._device(b))
        return member(CommonAncestor, level[0]) if level else None

    def _device(self, number: int) -> int:
        """Return the handle of a card: of the instance if its GPU is split."""
        function = "brmlDeviceGetHandleByNodeId"
        (device,) = self._need(function, number)
        if device is None:
            raise LibraryCallFailed(f"{function}({number})", ReturnCode.UNKNOWN, "no handle")
        return int(device)

    def _need(self, function: str, *arguments: int) -> list[Any]:
        """Return the values that the function wrote. Raises `LibraryCallFailed`."""
        code, values = self._calls.call(function, *arguments)
        if code != ReturnCode.SUCCESS:
            call = f"{function}({', '.join(map(str, arguments))})"
            raise LibraryCallFailed(call, code, self._calls.meaning(code))
        return values

    def _ask(self, function: str, *arguments: int) -> list[Any] | None:
        """Return the values that the function wrote; None if it failed, or wrote a null handle."""
        code, values = self._calls.call(function, *arguments)
        return values if code == ReturnCode.SUCCESS and None not in values else None
