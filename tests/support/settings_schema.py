"""schema/settings.schema.json as the fields of `Settings` make it.

After a change of a setting: `python -m tests.support.settings_schema > schema/settings.schema.json`.
"""

import json
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import attrs

from biren_plugin.core.setting_field import (
    HELP,
    Absolute,
    Between,
    EachMatching,
    Matching,
    Members,
    key_of,
)
from biren_plugin.core.settings import SETTINGS

SCHEMA: Final = Path(__file__).parents[2] / "schema/settings.schema.json"
_TYPES: Final = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    Path: "string",
    Path | None: "string",
}


def document() -> dict[str, Any]:
    """The schema."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "br-gpu-device-plugin --config FILE",
        "description": "The daemon's settings, each under its flag's name. All are optional.",
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": {key_of(field.name): _property(field) for field in SETTINGS},
    }


def _property(field: "attrs.Attribute[Any]") -> dict[str, Any]:
    kind: Any = field.type
    valid = field.validator
    described: dict[str, Any] = {"description": field.metadata[HELP]}
    if get_origin(kind) is Literal:
        described["enum"] = list(get_args(kind))
    elif get_origin(kind) is tuple:
        described["type"] = "array"
        described["items"] = {"type": "string"}
        if isinstance(valid, Members):
            described["items"]["enum"] = list(valid.names)
        if isinstance(valid, EachMatching):
            described["items"]["pattern"] = f"^({valid.pattern})$"
    else:
        described["type"] = _TYPES[kind]
        if isinstance(valid, Between):
            described |= {"minimum": valid.least, "maximum": valid.most}
        if isinstance(valid, Matching | Absolute):
            described["pattern"] = f"^{valid.pattern}$"
        elif described["type"] == "string":
            described["minLength"] = 1
    default = field.default
    if isinstance(default, tuple):
        default = list(default)
    elif isinstance(default, Path):
        default = str(default)
    if default not in (None, ""):
        described["default"] = default
    return described


if __name__ == "__main__":
    print(json.dumps(document(), indent=2))
