"""From a card's state to a verdict: no reason means Healthy, each reason says what to do.

Missing data is no fault: only what is known to be wrong makes a reason.
"""

from biren_plugin.core.model import Card, Device, NodeState


def judge(device: Device) -> Device:
    """The device with every reason that its card gives to be Unhealthy."""
    return device.because(*_reasons(device.card))


def _reasons(card: Card) -> list[str]:
    reasons = []
    if card.node is NodeState.MISSING:
        reasons.append(
            f"device node {card.path} is missing; see `dmesg | grep -i biren` on the node"
        )
    if card.node is NodeState.OTHER:
        reasons.append(f"{card.path} is no character device; remove it and reload the driver")
    if card.hung:
        reasons.append(
            f"reading its attributes hangs; see `dmesg`: the driver of {card.name} may hang"
        )
    return reasons
