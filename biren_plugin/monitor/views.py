"""What people look at while the daemon runs, as tasks for it to keep running.

A failure of one is said once: it is no fault of the cards, and the next try comes by itself.
"""

from collections.abc import Awaitable, Callable
from functools import partial

from biren_plugin.core.settings import Settings
from biren_plugin.daemon_state import DaemonState, follow_health
from biren_plugin.monitor.status_socket import serve_status


def views_of(state: DaemonState, settings: Settings) -> dict[str, Callable[[], Awaitable[None]]]:
    """The tasks that `settings` ask for, by name."""
    views: dict[str, Callable[[], Awaitable[None]]] = {
        "health-times": partial(follow_health, state),
        "status": partial(serve_status, settings.status_dir, state),
    }
    if settings.metrics_address:
        from biren_plugin.monitor.http import serve_endpoint  # h11 and prometheus: 3 MiB

        views["metrics"] = partial(serve_endpoint, *settings.metrics_host_and_port(), state)
    return views
