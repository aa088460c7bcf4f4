"""The five methods of DevicePlugin again, with their answers counted and timed."""

import time
from collections.abc import AsyncGenerator, Callable, Sequence

from biren_plugin.core.admission import PreferenceRequest
from biren_plugin.core.container_edits import ContainerEdits
from biren_plugin.core.model import DeviceList
from biren_plugin.daemon_state import Counters, Outcome
from biren_plugin.errors import RequestRefused
from biren_plugin.wire.device_plugin import Plugin


class CountedPlugin:
    """Answers as `plugin` does, and tells `counters`."""

    def __init__(self, plugin: Plugin, resource: str, counters: Counters) -> None:
        self._plugin = plugin
        self._resource = resource
        self._counters = counters

    @property
    def watch(self) -> Callable[[], AsyncGenerator[DeviceList, None]]:
        """The lists of one stream."""
        return self._plugin.watch

    def prefer(self, requests: Sequence[PreferenceRequest]) -> list[list[str]]:
        """The ids to choose. Raises `RequestRefused`."""
        began = time.perf_counter()
        try:
            return self._plugin.prefer(requests)
        finally:
            self._counters.preferring.add(time.perf_counter() - began)

    def allocate(self, requests: Sequence[Sequence[str]]) -> list[ContainerEdits]:
        """What each container gets. Raises `RequestRefused`."""
        began = time.perf_counter()
        outcome: Outcome = "failed"
        try:
            answer = self._plugin.allocate(requests)
            outcome = "answered"
        except RequestRefused:
            outcome = "refused"
            raise
        finally:
            self._counters.allocating.add(time.perf_counter() - began)
            self._counters.allocations[self._resource, outcome] += 1
        return answer
