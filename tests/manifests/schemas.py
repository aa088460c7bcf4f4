"""Objects against Kubernetes' own schemas."""

import json
from collections.abc import Mapping
from typing import Any

from jsonschema import Draft4Validator, Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4, DRAFT202012

from tests.manifests.render import Object
from tests.manifests.tools import FETCHED, missing

OTHERS = {"ServiceMonitor", "PrometheusRule", "SecurityContextConstraints"}
"""Kinds of the Prometheus operator and OpenShift, whose schemas are not Kubernetes'."""


def complaints(objects: list[Object], version: str) -> list[str]:
    """What the schemas of that Kubernetes say against the objects; unknown fields and kinds count."""
    folder = FETCHED / "schemas" / version
    if not folder.exists():
        missing(f"schemas of Kubernetes {version}")
    definitions = json.loads((folder / "_definitions.json").read_text())
    # Those of Kubernetes up to 1.24 are of draft 4, and call their definitions otherwise.
    modern = "$defs" in definitions
    draft, validator = (DRAFT202012, Draft202012Validator) if modern else (DRAFT4, Draft4Validator)
    registry: Registry[bool | Mapping[str, Any]] = Registry().with_resource(
        "/api/_definitions.json" if modern else "_definitions.json",
        Resource.from_contents(definitions, default_specification=draft),
    )
    found = []
    for each in objects:
        if each["kind"] in OTHERS:
            continue
        group, _, served = each["apiVersion"].rpartition("/")
        words = [each["kind"].lower(), *([group.partition(".")[0]] if group else []), served]
        file = folder / f"{'-'.join(words)}.json"
        if file.exists():
            schema = json.loads(file.read_text())
            errors = validator(schema, registry=registry).iter_errors(each)
            found += [error.message for error in errors]
        else:
            found.append(f"{each['kind']} of {each['apiVersion']} is unknown")
    return found
