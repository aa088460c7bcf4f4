"""Which directories of a container are the host's."""

from biren_plugin.commands.doctor.directory_checks import mount_types, type_at

POD = """\
700 600 0:100 / / ro,relatime - overlay overlay rw,lowerdir=/a
701 700 0:101 / /proc rw,nosuid - proc proc rw
702 700 0:102 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k
703 700 0:6 / /dev rw,nosuid shared:2 - devtmpfs udev rw
704 700 0:22 / /sys ro,nosuid - sysfs sysfs ro
705 700 8:1 /var/lib/kubelet/device-plugins /var/lib/kubelet/device-plugins rw - ext4 /dev/sda1 rw
706 700 8:1 /x /with\\040space rw - ext4 /dev/sda1 rw
a line of garbage
"""


def test_the_last_of_several_mounts_over_each_other_counts() -> None:
    assert mount_types(POD)["/dev"] == "devtmpfs"


def test_a_mount_above_a_path_counts_for_it_but_the_root_does_not() -> None:
    types = mount_types(POD)
    assert type_at("/sys/class/biren", types) == "sysfs"
    assert type_at("/var/lib/kubelet/device-plugins", types) == "ext4"
    assert type_at("/with space/in it", types) == "ext4"
    assert type_at("/var/lib/kubelet/pod-resources", types) is None
    assert type_at("/", types) is None
