"""The examples for DRA, and which devices of a pool their requests select.

CEL is evaluated as the API server does it: a name that a device lacks is an error.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import cel

from biren_plugin.core.dra.pool import Pool
from biren_plugin.core.parse.vendor import DRA_DRIVER
from tests.manifests.render import Object, overlay, read_objects
from tests.manifests.tools import MANIFESTS

EXAMPLES: Final = {path.stem: path for path in sorted((MANIFESTS / "examples/dra").glob("*.yaml"))}
"""Files by name."""
_UNITS: Final = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_QUANTITY: Final = re.compile(r"([0-9]+)(|Ki|Mi|Gi)")


def objects_of(path: Path) -> list[Object]:
    """The objects of an example."""
    return read_objects(path.read_text())


def specs_of(objects: list[Object]) -> dict[str, Object]:
    """What each claim or template asks for, by name."""
    return {
        each["metadata"]["name"]: each["spec"].get("spec", each["spec"])["devices"]
        for each in objects
        if each["kind"] in ("ResourceClaim", "ResourceClaimTemplate")
    }


def subrequests(devices: Object) -> Iterator[Object]:
    """Each thing that a claim asks for, alternatives one by one."""
    for request in devices["requests"]:
        yield from request.get("firstAvailable") or [request["exactly"]]


def selected(request: Object, pool: Pool) -> list[str]:
    """The names of the pool's devices that a request takes, by its class and its own selectors."""
    [found] = [
        each["spec"]
        for each in overlay("dra")
        if (each["kind"], each["metadata"]["name"]) == ("DeviceClass", request["deviceClassName"])
    ]
    selectors = [*found["selectors"], *request.get("selectors", ())]
    return [
        device["name"]
        for part in pool.slices
        for device in part
        if all(evaluate(each["cel"]["expression"], device) for each in selectors)
    ]


def evaluate(expression: str, device: Object) -> bool:
    """What an expression says of a device, which is as a slice has it."""
    context = cel.Context()
    context.add_variable("device", _as_cel_sees(device))
    context.add_function("quantity", _quantity)
    context.add_function("semver", _semver)
    context.add_function("compareTo", lambda one, other: (one > other) - (one < other))
    answer = cel.evaluate(expression, context)
    assert isinstance(answer, bool), expression
    return answer


def attribute_of(device: Object, name: str) -> Any:
    """The value of `domain/name`; KeyError without it."""
    domain, _, short = name.rpartition("/")
    return _as_cel_sees(device)["attributes"][domain][short]


def _as_cel_sees(device: Object) -> Object:
    attributes: dict[str, Object] = {}
    for key, value in device["attributes"].items():
        domain, _, name = key.rpartition("/")
        attributes.setdefault(domain or DRA_DRIVER, {})[name] = _value(value)
    capacity = {name: _quantity(each["value"]) for name, each in device["capacity"].items()}
    return {"driver": DRA_DRIVER, "attributes": attributes, "capacity": {DRA_DRIVER: capacity}}


def _value(typed: Mapping[str, Any]) -> Any:
    [(kind, value)] = typed.items()
    return _semver(value) if kind == "version" else value


def _quantity(text: str) -> int:
    match = _QUANTITY.fullmatch(text)
    assert match is not None, f"{text!r} is no quantity"
    return int(match[1]) * _UNITS[match[2]]


def _semver(text: str) -> list[int]:
    return [int(part) for part in text.split(".")]
