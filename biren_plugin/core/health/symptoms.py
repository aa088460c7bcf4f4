"""What a probe finds: a sentence with advice, and whether it puts the card out of service."""

import attrs


@attrs.frozen
class Symptom:
    """A fault that a probe found."""

    text: str
    """A sentence, with advice."""
    severe: bool
    """Whether the symptom puts the card out of service; otherwise it is a warning."""


def severe(text: str) -> Symptom:
    """Return a symptom that puts the card out of service."""
    return Symptom(text, severe=True)


def warning(text: str) -> Symptom:
    """Return a symptom with which the card stays in service."""
    return Symptom(text, severe=False)
