"""CDI from a consumer's view: the schema of a written spec, and a runtime's interpretation of it.

No code of the plugin is used: a spec is read as the CDI specification defines it.
"""

import json
from pathlib import Path
from typing import Any

import attrs
import jsonschema

_SCHEMA = json.loads((Path(__file__).parents[2] / "schema/cdi.schema.json").read_text())
_VALIDATOR = jsonschema.Draft202012Validator(_SCHEMA)


@attrs.frozen
class Resolved:
    """What a container gets, in no order: a runtime has none either."""

    nodes: frozenset[tuple[str, str]]
    """Path, the same on the host and in the container, and permissions."""
    mounts: frozenset[tuple[str, str]]
    """Host path, container path; all are read-only."""


def validate(spec: dict[str, Any]) -> None:
    """Raise unless the spec matches the schema and has no duplicate device."""
    _VALIDATOR.check_schema(_SCHEMA)
    _VALIDATOR.validate(spec)
    names = [device["name"] for device in spec["devices"]]
    assert len(set(names)) == len(names)


def resolve(spec: dict[str, Any], full_names: list[str]) -> Resolved:
    """Return what a runtime injects for these names; raises `KeyError` for an unknown name."""
    devices = {f"{spec['kind']}={each['name']}": each["containerEdits"] for each in spec["devices"]}
    edits = [devices[name] for name in full_names]
    if edits:
        edits.append(spec.get("containerEdits", {}))
    mounts = [mount for each in edits for mount in each.get("mounts", [])]
    assert all("ro" in mount["options"] for mount in mounts)
    return Resolved(
        frozenset(
            (node["path"], node["permissions"])
            for each in edits
            for node in each.get("deviceNodes", [])
        ),
        frozenset((mount["hostPath"], mount["containerPath"]) for mount in mounts),
    )
