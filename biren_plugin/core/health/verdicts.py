"""Turns findings of probes into verdicts: no reason means Healthy, and each reason comes with advice.

1. A card is judged by its identity (its GPU, its split, its instance): a new name changes nothing.
2. An indirect probe is suspect if, within `MOMENT`, it condemns the cards of at least `SUSPECT_FROM` GPUs
   whose device nodes exist, and finds none of the others healthy. Its findings are then warnings, until
   it has found one of them healthy for a `MOMENT`. A card that it condemned earlier stays condemned, and
   cards it has no data for are not counted.
3. A device that is Unhealthy because of what the inventory knows (a new split, a pod that still holds
   it) is not judged: its state is unclear.
4. Each probe has a mode (`modes`): its findings count (`enforce`), are warnings (`observe`), or are not
   looked for (`off`).
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

import attrs

from biren_plugin.core.health.evidence import Evidence, History
from biren_plugin.core.health.modes import HealthMode, ProbeMode, modes_of
from biren_plugin.core.health.probes import PROBES, Finding, Probe, find
from biren_plugin.core.health.recovery import STEADY, Recovery
from biren_plugin.core.model import Device, Identity, Inventory, Snapshot
from biren_plugin.core.observed import Observed
from biren_plugin.core.parse.brml import LibraryStatus
from biren_plugin.core.parse.card import NodeState
from biren_plugin.records import frozen, mutable

SUSPECT_FROM: Final = 3
"""GPUs: instances of one GPU share its PCI function, so they do not count separately."""
MOMENT: Final = 10.0
"""Seconds: two rounds of the library."""

_INDIRECT: Final = tuple(probe for probe in PROBES if probe.indirect)


@frozen
class HealthPolicy:
    """The operator's choices about verdicts."""

    mode: HealthMode = "enforce"
    disabled: frozenset[str] = frozenset()
    """Names of probes that are not used."""
    probes: Mapping[str, HealthMode] = attrs.Factory(dict)
    """The mode of single probes, by name; takes precedence over the two above."""
    unhealthy_on: LibraryStatus = LibraryStatus.CRITICAL
    recover_after: float = STEADY
    """Seconds that a card must be healthy before it returns to service."""

    @property
    def modes(self) -> Mapping[str, ProbeMode]:
        """The mode of every probe, by name, and what decides it."""
        always = {probe.name: probe.always for probe in PROBES}
        return modes_of(always, self.mode, self.disabled, self.probes)


@mutable
class _Record:
    """What is remembered of one card."""

    history: History
    counted: Recovery
    """The recovery that is reported to the kubelet."""
    observed: Recovery
    """The recovery that would have been reported if no probe were only observed."""
    opinions: dict[Probe, tuple[bool, float]] = attrs.Factory(dict)
    """Whether each indirect probe condemns the card, and since when; without probes that have no data."""


class _Suspect(NamedTuple):
    """A probe that is set aside."""

    text: str
    """A sentence about it."""
    condemned_before: frozenset[Identity]
    """Cards that it condemned while it was not suspect: these findings still count."""


class HealthKeeper:
    """Judges observations, one after the other."""

    def __init__(self, policy: HealthPolicy = HealthPolicy()) -> None:
        self._policy = policy
        modes = policy.modes
        self._off = frozenset(name for name, each in modes.items() if each.mode == "off")
        self._observed = frozenset(name for name, each in modes.items() if each.mode == "observe")
        self._records: dict[Identity, _Record] = {}
        self._suspects: dict[Probe, _Suspect] = {}
        self._module_seen = False

    def judge(self, inventory: Inventory, seen: Observed, now: float) -> Inventory:
        """Return the inventory with every device's reasons and warnings."""
        module_gone = self._module_gone(seen)
        judged = [
            device
            for each in inventory.lists
            for device in each.devices
            if device.healthy  # rule 3
        ]
        listed = {device.identity for each in inventory.lists for device in each.devices}
        for identity in self._records.keys() - listed:
            del self._records[identity]
        for identity in self._records.keys() - {device.identity for device in judged}:
            self._records[identity].counted.lose_sight()
            self._records[identity].observed.lose_sight()
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
        return attrs.evolve(
            inventory,
            lists=lists,
            suspects=tuple(each.text for each in self._suspects.values()),
        )

    def _find(self, device: Device, seen: Observed, module_gone: bool, now: float) -> list[Finding]:
        record = self._records.get(device.identity)
        if record is None:
            steady = self._policy.recover_after
            record = _Record(History(), Recovery(steady), Recovery(steady))
            self._records[device.identity] = record
        library, number = seen.library, device.card.number
        evidence = Evidence(
            device,
            record.history,
            now,
            module_gone=module_gone,
            library_hung=library is not None and number in library.hung,
            library_knows=library is None or not library.known or number in library.known,
            reading=library.readings.get(number) if library is not None else None,
            unhealthy_on=self._policy.unhealthy_on,
        )
        found = find(evidence, self._off)
        severe = {finding.probe for finding in found if finding.severe}
        before, record.opinions = record.opinions, {}
        for probe in _INDIRECT:
            condemned = probe in severe
            if condemned or probe.can_tell(evidence):
                last = before.get(probe)
                same = last is not None and last[0] == condemned
                record.opinions[probe] = last if last is not None and same else (condemned, now)
        return found

    def _module_gone(self, seen: Observed) -> bool:
        """Return whether the module was unloaded: a built-in driver has none, so it must have been there.

        A module that is being unloaded removes its class directory first.
        """
        snapshot = seen.snapshot or Snapshot()
        self._module_seen |= bool(snapshot.module_loaded)
        is_gone = snapshot.module_loaded is False
        return self._module_seen and (is_gone or not snapshot.driver_loaded)

    def _suspect(
        self, judged: Sequence[Device], findings: Mapping[Identity, list[Finding]], now: float
    ) -> None:
        standing = [
            device
            for device in judged
            if device.card.present and device.card.node is NodeState.CHARACTER_DEVICE
        ]
        for probe in _INDIRECT:
            opinions = {
                device.identity: self._records[device.identity].opinions[probe]
                for device in standing
                if probe in self._records[device.identity].opinions
            }
            if probe in self._suspects:
                healthy = [since for condemned, since in opinions.values() if not condemned]
                if not opinions or any(now - since >= MOMENT for since in healthy):
                    del self._suspects[probe]
            elif opinions and all(condemned for condemned, _ in opinions.values()):
                moment = max(since for _, since in opinions.values()) - MOMENT
                at_once = [identity for identity, (_, since) in opinions.items() if since >= moment]
                if len({gpu for gpu, _, _ in at_once}) >= SUSPECT_FROM:
                    example = next(
                        each.text for each in findings[at_once[0]] if each.probe == probe
                    )
                    before = frozenset(opinions.keys() - set(at_once))
                    self._suspects[probe] = _describe_suspect(probe, at_once, before, example)

    def _verdict(self, device: Device, found: Sequence[Finding], now: float) -> Device:
        record = self._records[device.identity]
        set_aside = {
            probe
            for probe, suspect in self._suspects.items()
            if device.identity not in suspect.condemned_before
        }
        severe = [each for each in found if each.severe and each.probe not in set_aside]
        warnings = [each.text for each in found if not each.severe]
        warnings += [
            f"not counted, as the probe is suspect: {each.text}"
            for each in found
            if each.severe and each.probe in set_aside
        ]
        counted = severe
        if self._observed:
            counted = [each for each in severe if each.probe.name not in self._observed]
            others = [each for each in severe if each.probe.name in self._observed]
            observed = record.observed.update(others, set_aside, now)
            warnings += [f"observed, not counted: {text}" for text in observed]
        reasons = record.counted.update(counted, set_aside, now)
        if not reasons and not warnings:
            return device
        counting = {each.probe.name for each in counted}
        return attrs.evolve(
            device,
            reasons=reasons,
            warnings=tuple(warnings),
            recovering=bool(reasons) and record.counted.is_waiting,
            faults=tuple(sorted(counting)) if reasons else (),
            warned=tuple(sorted({each.probe.name for each in found} - counting)),
        )


def _describe_suspect(
    probe: Probe, at_once: Collection[Identity], before: frozenset[Identity], example: str
) -> _Suspect:
    cards = f"{len(at_once)} {'other ' if before else ''}cards"
    return _Suspect(
        f"probe {probe.name} condemned all {cards} at once ({example}): it is "
        "set aside until it finds one of them healthy, and the cards stay in service; "
        "check the driver and the management library on the node",
        before,
    )
