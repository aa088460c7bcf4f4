#!/bin/sh
# Whether a Biren card of this node has a fault, for Node Problem Detector: 0 no, 1 yes, 2 unknown.
# On the node: a daemon outside of a pod is asked directly, one in a pod through the container runtime.
if command -v br-gpu-device-plugin >/dev/null 2>&1; then
    exec br-gpu-device-plugin status --problem
fi
container=$(crictl ps --quiet --label io.kubernetes.container.name=k8s-device-plugin \
    --label io.kubernetes.pod.namespace="${NAMESPACE:-biren-gpu}" 2>/dev/null | head -n 1)
if [ -z "$container" ]; then
    echo "unknown: no container of br-gpu-device-plugin runs on this node"
    exit 2
fi
text=$(crictl exec --sync "$container" br-gpu-device-plugin status --problem 2>/dev/null)
status=$?
echo "${text:-unknown: crictl exec failed}"
# crictl passes on only whether the command failed.
case "$status $text" in
    "0 "*) exit 0 ;;
    *" unknown:"* | *" ") exit 2 ;;
    *) exit 1 ;;
esac
