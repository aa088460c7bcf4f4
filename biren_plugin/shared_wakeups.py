"""The moments at which the tasks of an idle daemon wake, all of them at once.

A process that wakes from sleep pays for it, a third of a millisecond in a trio loop; each further task that
wakes at the same moment costs a tenth of that.
"""

import trio


def until_wakeup(interval: float) -> float:
    """Return the seconds, at most `interval`, until the next multiple of `interval` on trio's clock."""
    now = trio.current_time()
    wakeup = (now // interval + 1) * interval
    return wakeup - now if wakeup > now else interval  # a product may be rounded down
