"""The chart's README, from the comments in its values.yaml."""

import io
import json
import re
from typing import Any, Final

from ruamel.yaml import YAML

_HEAD: Final = """\
# Chart br-gpu-device-plugin

Made of values.yaml by `nox -s manifests -- --write`. Each choice, and when to make it, is described in
[docs/deployment.md](../../docs/deployment.md).

```sh
kubectl apply --filename manifests/base/namespace.yaml
helm upgrade --install biren manifests/chart --namespace biren-gpu --set image.repository=REGISTRY/br-gpu-device-plugin
```

| value | default | |
| --- | --- | --- |
"""
_COMMENTED: Final = re.compile(r"((?:^ *# .*\n)+)^( *)(\w+):", re.M)


def chart_readme(values: str) -> str:
    """A row for each value that has a comment above it, as each must."""
    defaults: dict[str, Any] = YAML(typ="safe").load(io.StringIO(values))
    rows = {}
    for comment, indent, key in _COMMENTED.findall(values):
        path, group = (f"image.{key}", defaults["image"]) if indent else (key, defaults)
        text = " ".join(line.strip(" #") for line in comment.splitlines())
        rows[path] = f"| `{path}` | `{json.dumps(group[key])}` | {text} |\n"
    missing = {*defaults, *(f"image.{key}" for key in defaults["image"])} - {*rows, "image"}
    assert not missing, f"no comment in values.yaml: {missing}"
    return _HEAD + "".join(rows.values())
