"""What is read from the node: sysfs, /dev, the driver's files, the kubelet's folder.

Nothing in here decides; what was read goes to `core` as text and states.
"""
