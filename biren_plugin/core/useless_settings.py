"""Settings that have no effect with the others."""

from typing import Final

from biren_plugin.core.setting_field import key_of
from biren_plugin.core.settings import Settings, is_given

_DRIVER: Final = "a virtual machine has its own driver"
_OWN_FILE: Final = "under dra, each claim has a CDI file of its own"
_NEEDS_CDI: Final = "give --cdi-feature too"
_NEEDS_DRA: Final = "give --offer-by dra too"


def without_effect(settings: Settings) -> dict[str, str]:
    """Return given flags that have no effect with the others, and why."""
    is_dra, is_kata, hami = settings.offer_by == "dra", settings.offers_groups, settings.hami
    has_no_file = _OWN_FILE if is_dra else "" if settings.cdi_feature else _NEEDS_CDI
    chooses_file = settings.file is not None and settings.file.chosen_from is not None
    why = {
        "mount_host_path": _DRIVER if is_kata else "",
        "mount_dri_device": _DRIVER if is_kata else "",
        "visible_devices": _DRIVER if is_kata else "",
        "monitoring_resource": "a VFIO group cannot be shared"
        if is_kata
        else "under dra, claims with adminAccess do the same"
        if is_dra
        else "",
        "cdi_feature": _OWN_FILE if is_dra else "",
        "overwrite_cdi_config": has_no_file,
        "cdi_dir": has_no_file,
        "placement": "under dra, the scheduler chooses the cards" if is_dra else "",
        "unhealthy_on": "the management library knows no VFIO groups"
        if is_kata
        else "--health-mode is off"
        if settings.health_mode == "off"
        else "",
        "evict_on": "" if is_dra else _NEEDS_DRA,
        "kubelet_root": "" if is_dra else _NEEDS_DRA,
        "kubeconfig": "" if is_dra or hami else "give --offer-by dra or --hami too",
        "node_name": ""
        if is_dra or hami or chooses_file
        else "give --offer-by dra, --hami or --config-dir too",
    }
    return {
        f"--{key_of(name)}": text for name, text in why.items() if text and is_given(settings, name)
    }
