"""A server under test whose handler has a bug fails its test."""


def raise_bug(bug: Exception) -> None:
    """End the server, as its `on_bug`."""
    raise bug
