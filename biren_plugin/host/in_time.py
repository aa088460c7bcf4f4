"""Makes a blocking call of a command, which a disk may hold up, in a thread that may be left behind."""

from _thread import allocate_lock, start_new_thread  # `threading` is a millisecond of a `status`
from collections.abc import Callable
from typing import TypeVar

from biren_plugin.errors import DiskHangs, too_slow

T = TypeVar("T")


def in_time(call: Callable[[], T], seconds: float, doing: str) -> T:
    """Return the result of `call`. Raises what `call` raises, and `DiskHangs` after `seconds`.

    `doing` begins the text of that error.
    """
    results: list[T] = []
    errors: list[Exception] = []
    ended = allocate_lock()

    def make() -> None:
        try:
            results.append(call())
        except Exception as error:  # noqa: BLE001 - raised by the caller
            errors.append(error)
        finally:
            ended.release()

    ended.acquire()
    try:
        start_new_thread(make, ())
    except RuntimeError:  # processes have run out: then without a deadline
        make()
    if not ended.acquire(timeout=seconds):
        raise DiskHangs(too_slow(doing, seconds))
    for error in errors:
        raise error
    return results[0]
