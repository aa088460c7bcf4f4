"""The daemon on a real node: etcd, API server, scheduler, controllers, kubelet, containerd and runc.

`nox -s cluster` starts the node in namespaces of its own and runs these tests there. Tests that need
no kubelet run wherever containerd is; the others are skipped without Kubernetes' own programs.
"""
