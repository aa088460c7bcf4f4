"""The checks of `doctor`, by subject. Each check takes the daemon's settings and yields its rows.

A check may block, and may hang: `doctor` runs each in a thread that it can abandon. A check that is not
possible yields a row `unknown`, neither a warning nor a failure.
"""

import os


def in_pod() -> bool:
    """Return whether this process runs in a pod: the kubelet sets the API server's address in each container."""
    return "KUBERNETES_SERVICE_HOST" in os.environ
