"""Ways to break the daemon, for tests that must notice each: a patch that its process loads at its start."""

import os
import signal
from pathlib import Path
from typing import Final

WAYS: Final = {
    "registers late": """
import trio
from biren_plugin.device_plugin import registration
connect = registration._dial
async def connect_late(*arguments):
    await trio.sleep(60)
    return await connect(*arguments)
registration._dial = connect_late
""",
    "leaves a device out in one step": """
import attrs
from biren_plugin.wire import messages
write_list = messages.write_list
def write_healthy(offered):
    healthy = tuple(each for each in offered.devices if each.healthy)
    return write_list(attrs.evolve(offered, devices=healthy))
messages.write_list = write_healthy
""",
    "forgets the control node": """
from biren_plugin.core import container_edits
container_edits.shared_nodes = lambda _host: ()
""",
    "keeps the lock": """
import pathlib, subprocess
from biren_plugin.device_plugin import folder_lock
take = folder_lock._try
def take_and_keep(path):
    held = take(path)
    if isinstance(held, folder_lock.HeldFolder):
        # A process that outlives the daemon holds the descriptor too, and so the lock.
        none = subprocess.DEVNULL
        keeper = subprocess.Popen(
            ["sleep", "60"], pass_fds=[held._descriptor], stdin=none, stdout=none, stderr=none
        )
        pathlib.Path(__file__).with_name("keeper").write_text(str(keeper.pid))
    return held
folder_lock._try = take_and_keep
""",
    "answers another card": """
from biren_plugin.device_plugin import plugin_server
cards_for = plugin_server.cards_for
def other_cards_for(requests, offered, inventory):
    others = [[f"card_{int(id_[5:]) ^ 1}" for id_ in ids] for ids in requests]
    return cards_for(others, offered, inventory)
plugin_server.cards_for = other_cards_for
""",
}


ENDS_BETWEEN_FILE_AND_ANSWER: Final = """
import os, signal
from biren_plugin.files.claim_files import ClaimFiles
write = ClaimFiles.write
def write_and_end(files, uid, spec):
    write(files, uid, spec)
    os.kill(os.getpid(), signal.SIGKILL)
ClaimFiles.write = write_and_end
"""
"""Kills a DRA driver in its first Prepare, once the claim's file is written."""


def broken(way: str, folder: Path) -> dict[str, str]:
    """The environment that breaks a daemon in that way; `folder` gets the patch."""
    return patched(WAYS[way], folder)


def patched(patch: str, folder: Path) -> dict[str, str]:
    """The environment of a process that runs `patch` at its start; `folder` gets the patch."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(patch)
    return {"PYTHONPATH": str(folder)}


def end_what_it_left(folder: Path) -> None:
    """Ends the process with which a broken daemon keeps the lock."""
    keeper = folder / "keeper"
    if keeper.exists():
        os.kill(int(keeper.read_text()), signal.SIGKILL)
