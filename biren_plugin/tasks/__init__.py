"""The tasks of a resource's subtree. None imports another; `resource` connects them by boards."""
