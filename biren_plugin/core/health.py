"""From what the probes find to verdicts: no reason means Healthy, each reason says what to do.

1. A card is judged by its identity (its GPU, its split, its instance): a new name changes nothing.
2. An indirect probe that condemns every card of a node with at least `SUSPECT_FROM` GPUs within
   `MOMENT`, while their device nodes stand, is itself the suspect: what it finds is a warning until
   it finds one of them well, that has been there for a `MOMENT` (a card that just came was not
   asked yet).
3. A device that is Unhealthy for what the inventory knows (a new split, a pod that still holds it)
   is not judged: it is not clear what it is.
4. Modes: `enforce`; `observe`, in which only a card that is not there counts, and everything else
   is a warning; `off`, in which nothing else is looked at.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import attrs

from biren_plugin.core.library import LibraryStatus
from biren_plugin.core.model import Device, Inventory, NodeState
from biren_plugin.core.observed import Observed
from biren_plugin.core.probes import ALWAYS, OPTIONAL, PROBES, Finding, History, Look, find
from biren_plugin.core.recovery import Recovery

HealthMode = Literal["enforce", "observe", "off"]
Identity = tuple[int | None, str, int]

SUSPECT_FROM: Final = 3
"""GPUs: instances of one GPU share its PCI function, so they tell nothing apart."""
MOMENT: Final = 10.0
"""Seconds: two rounds of the library."""

_INDIRECT: Final = tuple(probe.name for probe in PROBES if probe.indirect)


@attrs.frozen
class HealthPolicy:
    """What the operator decides about verdicts."""

    mode: HealthMode = "enforce"
    disabled: frozenset[str] = frozenset()
    """Names of probes that are not looked at."""
    unhealthy_on: LibraryStatus = LibraryStatus.CRITICAL
    recover_after: float = 30.0
    """Seconds that a card must be well before it returns to service."""


@attrs.define
class _Patient:
    """What is remembered of one card."""

    history: History
    known_since: float
    counted: Recovery
    """Of what the kubelet is told."""
    observed: Recovery
    """In `observe`: of what it would have been told."""
    since: dict[str, float] = attrs.Factory(dict)
    """By probe, since when it has condemned the card."""


class HealthKeeper:
    """Judges every look in turn."""

    def __init__(self, policy: HealthPolicy = HealthPolicy()) -> None:
        self._policy = policy
        self._disabled = policy.disabled | (set(OPTIONAL) if policy.mode == "off" else set())
        self._patients: dict[Identity, _Patient] = {}
        self._suspects: dict[str, str] = {}
        """Probes that are set aside, each with a sentence."""
        self._module_seen = False

    def judge(self, inventory: Inventory, seen: Observed, now: float) -> Inventory:
        """The inventory with every device's reasons and warnings."""
        module_gone = self._module_gone(seen)
        judged = [
            device
            for each in inventory.lists
            for device in each.devices
            if device.healthy  # rule 3
        ]
        listed = {device.identity for each in inventory.lists for device in each.devices}
        for identity in self._patients.keys() - listed:
            del self._patients[identity]
        findings = {
            device.identity: self._find(device, seen, module_gone, now) for device in judged
        }
        self._suspect(judged, findings, now)
        verdicts = {
            device.identity: self._verdict(device, findings[device.identity], now)
            for device in judged
        }
        lists = tuple(
            attrs.evolve(
                each,
                devices=tuple(
                    verdicts[device.identity] if device.healthy else device
                    for device in each.devices
                ),
            )
            for each in inventory.lists
        )
        return attrs.evolve(inventory, lists=lists, suspects=tuple(self._suspects.values()))

    def _find(self, device: Device, seen: Observed, module_gone: bool, now: float) -> list[Finding]:
        patient = self._patients.get(device.identity)
        if patient is None:
            steady = self._policy.recover_after
            patient = _Patient(History(), now, Recovery(steady), Recovery(steady))
            self._patients[device.identity] = patient
        library, number = seen.library, device.card.number
        look = Look(
            device,
            patient.history,
            now,
            module_gone=module_gone,
            library_hung=library is not None and number in library.hung,
            library_knows=library is None or not library.known or number in library.known,
            reading=library.readings.get(number) if library is not None else None,
            unhealthy_on=self._policy.unhealthy_on,
        )
        found = find(look, self._disabled)
        severe = {finding.probe for finding in found if finding.severe}
        patient.since = {probe: patient.since.get(probe, now) for probe in severe}
        return found

    def _module_gone(self, seen: Observed) -> bool:
        """A driver that is built in has no module: only one that was there can be missed."""
        loaded = seen.snapshot.module_loaded if seen.snapshot is not None else None
        self._module_seen |= bool(loaded)
        return self._module_seen and loaded is False

    def _suspect(
        self, judged: Sequence[Device], findings: Mapping[Identity, list[Finding]], now: float
    ) -> None:
        standing = [
            device
            for device in judged
            if device.card.present and device.card.node is NodeState.CHARACTER_DEVICE
        ]
        enough = len({device.card.physical_id for device in standing}) >= SUSPECT_FROM
        for probe in _INDIRECT:
            patients = [self._patients[device.identity] for device in standing]
            times = [each.since[probe] for each in patients if probe in each.since]
            if probe in self._suspects:
                if not patients or any(
                    probe not in each.since and now - each.known_since >= MOMENT
                    for each in patients
                ):
                    del self._suspects[probe]
            elif enough and len(times) == len(patients) and max(times) - min(times) <= MOMENT:
                example = next(
                    finding.text
                    for finding in findings[standing[0].identity]
                    if finding.probe == probe
                )
                self._suspects[probe] = (
                    f"probe {probe} condemned all {len(standing)} cards at once ({example}): it is "
                    "set aside until it tells them apart, and the cards stay in service; "
                    "check the driver and the management library on the node"
                )

    def _verdict(self, device: Device, found: Sequence[Finding], now: float) -> Device:
        patient = self._patients[device.identity]
        severe = [each for each in found if each.severe and each.probe not in self._suspects]
        warnings = [each.text for each in found if not each.severe]
        warnings += [
            f"not counted, as the probe is suspect: {each.text}"
            for each in found
            if each.severe and each.probe in self._suspects
        ]
        counted = severe
        if self._policy.mode == "observe":
            counted = [each for each in severe if each.probe in ALWAYS]
            others = [each for each in severe if each.probe not in ALWAYS]
            observed = patient.observed.update(others, self._suspects.keys(), now)
            warnings += [f"observed, not counted: {text}" for text in observed]
        reasons = patient.counted.update(counted, self._suspects.keys(), now)
        if not reasons and not warnings:
            return device
        return attrs.evolve(device, reasons=reasons, warnings=tuple(warnings))
