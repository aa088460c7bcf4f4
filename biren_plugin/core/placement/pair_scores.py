"""How close two cards are: one scale for every source.

1. A pair's link counts first, with the weights of the vendor's own plugin: (link type + 1) squared,
   so 9 for a direct link, 4 for an indirect one, 1 for none, or where it is unknown. `LINK_WEIGHT` is
   more than all distances of a node together: a choice that is best on this scale is never below
   the vendor's on the vendor's measure.
2. Then the distance counts, from 0 (apart) to 5 (one board), in the library's own steps
   (`CommonAncestor`); if the library does not report it, sysfs decides, in the same steps.
3. Instances of one GPU share its memory: they count as directly linked, and one step closer than
   any two GPUs can be.
"""

import functools
from typing import Final, NamedTuple

from biren_plugin.core.parse.brml import CommonAncestor, P2PLink
from biren_plugin.records import frozen

LINK_WEIGHT: Final = 1 << 24
"""The value of one unit of the vendor's measure in steps of distance: more than 1024 cards can add up."""
SAME_GPU: Final = 9 * LINK_WEIGHT + 6
"""The score of two instances of one GPU, above every other."""

_STEP: Final = 10  # between two members of CommonAncestor
_ROOT_PORT: Final = 2  # the part of a PCI path that leads to one: root bus, root port
_BELOW_A_SWITCH: Final = 2  # what follows a switch: its port downwards, the function


@frozen
class Pair:
    """How two cards are connected."""

    ancestor: CommonAncestor
    link: P2PLink | None = None
    """None if the library does not report it."""
    same_gpu: bool = False

    @functools.cached_property
    def score(self) -> int:
        """Return the pair's score; the higher, the closer."""
        if self.same_gpu:
            return SAME_GPU
        weight = ((self.link or P2PLink.NONE) + 1) ** 2
        return weight * LINK_WEIGHT + (CommonAncestor.SYSTEM - self.ancestor) // _STEP

    @property
    def words(self) -> str:
        """Return the description, as it follows the names of the cards."""
        if self.same_gpu:
            return "on one GPU"
        if self.link:
            return "directly linked" if self.link is P2PLink.DIRECT else "indirectly linked"
        return _WORDS[self.ancestor]


_WORDS: Final = {
    CommonAncestor.BOARD: "on one board",
    CommonAncestor.PCIE_SWITCH: "behind one PCIe switch",
    CommonAncestor.PCIE_SWITCHES: "behind one root port",
    CommonAncestor.HOST_BRIDGE: "behind one host bridge",
    CommonAncestor.NUMA_NODE: "on one NUMA node",
    CommonAncestor.SYSTEM: "apart",
}


class Place(NamedTuple):
    """The place of a card in sysfs; fields as in `Card`."""

    gpu: int | None = None
    pci_path: tuple[str, ...] = ()
    numa_node: int | None = None


def pair_in_sysfs(one: Place, two: Place) -> Pair:
    """Return how sysfs alone shows two cards at these places."""
    return _pair(_ancestor(one, two), _same_gpu(one, two))


@functools.cache  # a node has thousands of pairs, of which there are a dozen kinds
def _pair(ancestor: CommonAncestor, same_gpu: bool) -> Pair:
    return Pair(ancestor, same_gpu=same_gpu)


def _same_gpu(one: Place, two: Place) -> bool:
    if one.gpu is not None and two.gpu is not None:
        return one.gpu == two.gpu
    return bool(one.pci_path) and one.pci_path == two.pci_path


def _ancestor(one: Place, two: Place) -> CommonAncestor:
    """Return the closest common ancestor. A NUMA node is closer than a root bus, and farther than a root port."""
    shared = 0
    for ours, theirs in zip(one.pci_path, two.pci_path, strict=False):
        if ours != theirs:
            break
        shared += 1
    if shared >= _ROOT_PORT:
        below = max(len(one.pci_path), len(two.pci_path)) - shared
        if shared > _ROOT_PORT and below <= _BELOW_A_SWITCH:
            return CommonAncestor.PCIE_SWITCH
        return CommonAncestor.PCIE_SWITCHES
    both_known = one.numa_node is not None and two.numa_node is not None
    if both_known and one.numa_node != two.numa_node:
        return CommonAncestor.SYSTEM
    if shared:
        return CommonAncestor.HOST_BRIDGE
    return CommonAncestor.NUMA_NODE if both_known else CommonAncestor.SYSTEM
