"""What `doctor` looks at, by theme. Each check takes the daemon's settings and gives its rows.

A check may block, and may hang: `doctor` runs each in a thread that it can leave. What keeps a check
from being made gives a row that says so (`unknown`), neither a warning nor a failure.
"""

import os


def in_pod() -> bool:
    """Whether this process runs in a pod: the kubelet tells each container where the API server is."""
    return "KUBERNETES_SERVICE_HOST" in os.environ
