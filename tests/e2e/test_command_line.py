"""The vendor's flags are accepted in all their forms; a wrong one gives one line and status 2."""

import os
import re
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from biren_plugin import __version__
from biren_plugin.simulate.host import SimulatedHost
from tests.e2e.conftest import GPU
from tests.e2e.daemon import COMMAND, DEADLINE, DaemonProcess, run_command
from tests.kubelet.client import KubeletProcess
from tests.support.recorded import HOSTS

VENDORS_FLAGS = (
    "--cdi-feature",
    "--container-runtime",
    "--mount-host-path",
    "--overwrite-cdi-config",
    "--pulse",
)
OWN_FLAGS = (
    "--host-root",
    "--device-plugin-dir",
    "--cdi-dir",
    "--mount-dri-device",
    "--log-level",
    "--nfd-features-dir",
    "--config",
    "--version",
)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_the_help_lists_every_flag_and_command(flag: str) -> None:
    result = run_command(flag)
    assert result.returncode == 0
    assert not result.stderr
    for word in (*VENDORS_FLAGS, *OWN_FLAGS, "simulate", "devices", "doctor"):
        assert word in result.stdout


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_the_version_is_printed(flag: str) -> None:
    result = run_command(flag)
    assert (result.returncode, result.stdout) == (0, f"br-gpu-device-plugin {__version__}\n")


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        (["--pulse", "300"], {"pulse=300"}),
        (["--pulse=300"], {"pulse=300"}),
        (["--cdi-feature"], {"cdi_feature=True"}),
        (["--cdi-feature=true"], {"cdi_feature=True"}),
        (["--cdi-feature=1", "--mount-host-path=t"], {"cdi_feature=True", "mount_host_path=True"}),
        (["--cdi-feature=false", "--mount-host-path=0", "--overwrite-cdi-config=f"], set()),
        (["--pulse", "300", "--pulse=7"], {"pulse=7"}),
        (["--cdi-feature", "--pulse=7", "--cdi-feature=false"], {"pulse=7"}),
        (["--cdi-feature=false", "--cdi-feature"], {"cdi_feature=True"}),
        (["--container-runtime", "runc", "--pulse", "0"], set()),
        (["--container-runtime", "kata", "--container-runtime=runc"], set()),
        (["--overwrite-cdi-config", "--mount-dri-device", "--cdi-dir=/nowhere"],
         {"overwrite_cdi_config=True", "mount_dri_device=True", "cdi_dir=/nowhere"}),
        (["--log-level", "debug"], {"log_level=debug"}),
    ],
    ids=lambda value: " ".join(sorted(value) if isinstance(value, set) else value),
)  # fmt: skip
def test_flags_are_accepted_in_the_forms_of_the_vendors_parser(
    daemon: DaemonProcess, flags: list[str], settings: set[str]
) -> None:
    daemon.start(*flags)
    line = daemon.wait_for_line(f"br-gpu-device-plugin {__version__}; settings: ")
    said = set(line.partition("settings: ")[2].split(", "))
    fixtures = (
        "host_root=", "device_plugin_dir=", "pod_resources_dir=", "status_dir=", "log_format=",
        "recover_after=0.0",
    )  # fmt: skip
    assert {each for each in said if not each.startswith(fixtures)} == settings
    daemon.wait_for_line("waiting for .*plugins: no such directory")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--pulse"], "--pulse"),
        (["--pulse", "often"], "--pulse often: give a whole number"),
        (["--pulse", "-5"], "--pulse -5: give whole seconds from 0"),
        (["--pulse=1.5"], "--pulse 1.5: give a whole number"),
        (["--pulse=1\n2"], "--pulse"),
        (["--pulse=90000"], "--pulse 90000: give whole seconds from 0"),
        (["--cdi-feature=maybe"], "--cdi-feature=maybe: give true or false"),
        (["--no-cdi-feature"], "--no-cdi-feature"),
        (["--cdi_feature"], "--cdi_feature"),
        (["--container-runtime", "docker"], '"runc", "kata"'),
        (["--log-level=chatty"], '"debug", "info", "warning", "error"'),
        (["--bogus"], "--bogus"),
        (["-p", "3"], "-p"),
        (["serve"], "there is no command 'serve'"),
        (["simulate", "extra"], "simulate: takes no 'extra'"),
        (["--puls", "3"], "--puls (did you mean --pulse?); see"),
        (["simulate", "--gpus", "0"], "--gpus 0: give a number from 1"),
        (["simulate", "--gpus", "many"], "--gpus many: give a whole number"),
        (["simulate", "--svi", "2"], "give GPU:INSTANCES, as in 6:2,7:4"),
        (["simulate", "--svi", "9:2"], "GPUs are 0 to 7"),
        (["simulate", "--svi", "1:3"], "1, 2 or 4 instances"),
        (["simulate", "--svi", "1:2,1:4"], "--svi 1:4: GPU 1 is already split"),
        (["devices", "--yaml"], "--yaml"),
        (["cdi", "write"], 'Unknown command "write"'),
        (["cdi", "generate", "--format=toml"], '"yaml", "json"'),
        (["cdi", "check", "--container-runtime=docker"], '"runc", "kata"'),
    ],
    ids=lambda value: repr(" ".join(value)) if isinstance(value, list) else "",
)
def test_wrong_words_give_one_line_and_status_2(words: list[str], what: str) -> None:
    result = run_command(*words)
    assert result.returncode == 2
    assert not result.stdout
    assert result.stderr.startswith("br-gpu-device-plugin: ")
    assert result.stderr.count("\n") == 1
    assert what in result.stderr


def test_overwrite_without_cdi_causes_a_warning(daemon: DaemonProcess) -> None:
    daemon.start("--overwrite-cdi-config")
    daemon.wait_for_line("WARNING --overwrite-cdi-config has no effect: give --cdi-feature too")


def test_flags_without_effect_for_kata_cause_a_warning(daemon: DaemonProcess) -> None:
    daemon.start("--container-runtime", "kata", "--mount-host-path", "--mount-dri-device")
    daemon.wait_for_line("WARNING --mount-host-path has no effect: a virtual machine")
    daemon.wait_for_line("WARNING --mount-dri-device has no effect: a virtual machine")


def test_the_log_level_leaves_out_less_important_lines(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1})
    daemon.start("--log-level", "warning")
    kubelet.wait_for_list(GPU, healthy=1)
    host.pull_node("card_0")
    daemon.wait_for_line("card_0 is Unhealthy")
    assert not daemon.matching(" INFO ")


def test_each_important_event_is_one_log_line(
    host: SimulatedHost, kubelet: KubeletProcess, daemon: DaemonProcess
) -> None:
    host.add_gpus({0: 1, 1: 1})
    daemon.start()
    kubelet.wait_for_list(GPU, healthy=2)
    kubelet.admit(GPU, 1)
    daemon.wait_for_line("registered and watched")
    assert daemon.end() == 0
    wanted: list[Callable[[str], bool]] = [
        lambda line: f"INFO    br-gpu-device-plugin {__version__}; settings: " in line,
        lambda line: line.endswith(f"INFO    {GPU}: found card_0, card_1 (2)"),
        lambda line: f"INFO    {GPU}: registered and watched" in line,
        lambda line: line.endswith(f"INFO    {GPU}: allocated card_0"),
        lambda line: line.endswith("INFO    stopping: SIGTERM"),
    ]
    warnings = [line for line in daemon.lines if " WARNING " in line]
    assert len([line for line in warnings if "cannot tell which pod holds which card" in line]) == 1
    assert len([line for line in warnings if "cannot load" in line]) == 1, "the library is a dummy"
    told = [line for line in daemon.lines if line not in warnings]
    assert len(warnings) + len(wanted) == len(daemon.lines) == len(told) + 2, daemon.lines
    for line, is_right in zip(told, wanted, strict=True):
        assert is_right(line), line


def test_settings_come_from_the_environment_and_a_file_too(
    folder: Path, daemon: DaemonProcess
) -> None:
    (folder / "settings.yaml").write_text("pulse: 300\nlog-level: debug\n")
    daemon.environment.update(
        BR_GPU_CONFIG=f"{folder / 'settings.yaml'}", BR_GPU_LOG_LEVEL="info", BR_GPU_PULZE="1"
    )
    daemon.start("--recover-after=5")
    line = daemon.wait_for_line("settings: ")
    assert "pulse=300 (file)" in line
    assert "recover_after=5" in line
    assert "log_level" not in line
    assert len(daemon.matching("WARNING .*BR_GPU_PULZE: unknown setting")) == 1


def test_a_wrong_settings_file_gives_one_line_and_status_2(folder: Path) -> None:
    path = folder / "settings.yaml"
    path.write_text("pulse: 300\nhealth-mod: off\n")
    result = run_command("--config", f"{path}")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"br-gpu-device-plugin: {path}, line 2: health-mod: there is no such setting; "
        "did you mean health-mode?\n"
    )


def test_the_help_of_doctor_starts_with_its_own_flags() -> None:
    shown = run_command("doctor", "--help").stdout
    assert shown.index("--report") < shown.index("Settings of the daemon") < shown.index("--pulse")


@pytest.mark.parametrize("command", ["devices", "doctor", "status"])
def test_the_schemas_named_in_the_help_are_installed(command: str) -> None:
    shown = " ".join(re.sub(r"[│\n]", " ", run_command(command, "--help").stdout).split())
    folder = Path(sysconfig.get_path("data")) / "share/br-gpu-device-plugin/schema"
    assert "share/br-gpu-device-plugin/schema" in shown
    for name in re.findall(r"[a-z]+\.schema\.json", shown):
        assert (folder / name).is_file()


def test_too_few_descriptors_are_not_blamed_on_standard_output() -> None:
    said = subprocess.run(
        ["sh", "-c", 'ulimit -n 7; "$@"', "sh", *COMMAND, "devices", "--topology"],
        capture_output=True,
        text=True,
    )
    assert said.returncode == 1
    assert said.stderr == (
        "br-gpu-device-plugin: Too many open files: this process may open 7; "
        "raise the limit (ulimit -n) to 128 at least\n"
    )


@pytest.mark.parametrize("flags", [[], ["--offer-by=dra"], ["--metrics-address=127.0.0.1:1"]])
def test_a_daemon_that_cannot_be_loaded_for_want_of_descriptors_ends_with_advice(
    tmp_path: Path, flags: list[str]
) -> None:
    """With ten descriptors the event loop starts, and the modules of a mode are imported within it."""
    limit = 10 if flags else 7
    said = subprocess.run(
        [
            "sh",
            "-c",
            f'ulimit -n {limit}; "$@"',
            "sh",
            *COMMAND,
            f"--status-dir={tmp_path}",
            *flags,
        ],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert said.returncode == 1
    assert "Traceback" not in said.stderr
    assert said.stderr.splitlines()[-1] == (
        f"br-gpu-device-plugin: Too many open files: this process may open {limit}; "
        "raise the limit (ulimit -n) to 128 at least"
    )
    if flags:
        assert f"only {limit} files may be open" in said.stderr


def test_a_full_disk_below_standard_output_is_reported() -> None:
    with Path("/dev/full").open("w") as full:
        said = subprocess.run([*COMMAND, "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert said.returncode == 1
    assert said.stderr == "br-gpu-device-plugin: No space left on device: standard output\n"


@pytest.mark.parametrize("module", ["signal", "attrs"])
def test_ctrl_c_during_imports_causes_no_traceback(tmp_path: Path, module: str) -> None:
    # A module that is imported early, and that is interrupted while it is.
    (tmp_path / f"{module}.py").write_text("import os\nos.kill(os.getpid(), 2)\n")
    said = subprocess.run(
        [*COMMAND, "devices"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}"},
        # As in a terminal: a shell's background process ignores the signal, and so do its children.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        capture_output=True,
        text=True,
    )
    assert (said.returncode, said.stdout, said.stderr) == (130, "", "")


def test_status_reports_a_status_dir_that_is_not_a_directory(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    said = run_command("status", f"--status-dir={path}")
    assert said.returncode == 1
    assert said.stderr == f"br-gpu-device-plugin: {path} is not a directory; see --status-dir\n"


@pytest.mark.parametrize("words", [["devices"], ["devices", "--topology"], ["--help"], ["status"]])
def test_a_closed_output_causes_no_traceback(words: list[str]) -> None:
    # >&- of a shell: Python then has None where its standard output was.
    said = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *COMMAND, *words],
        env={**os.environ, "BR_GPU_HOST_ROOT": f"{HOSTS / 'mixed'}"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "Traceback" not in said.stderr
    assert said.returncode == (1 if "status" in words else 0)


def test_the_daemon_keeps_running_without_a_reader_of_its_log(
    host: SimulatedHost, folder: Path
) -> None:
    command = [*COMMAND, f"--host-root={host.root}", f"--status-dir={folder / 'status'}"]
    process = subprocess.Popen(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command])
    try:
        deadline = time.monotonic() + DEADLINE
        while not (folder / "status/status.sock").exists():
            assert process.poll() is None, "it has ended"
            assert time.monotonic() < deadline
            time.sleep(0.05)  # a socket that appears sets no event
    finally:
        process.terminate()
        assert process.wait(DEADLINE) == 0


def test_an_error_that_quotes_a_long_or_unprintable_value_is_a_short_line() -> None:
    said = run_command("--pulse", f"\x1b[31m{'x' * 5000}")
    assert said.returncode == 2
    assert "\x1b" not in said.stderr
    assert len(said.stderr) < 1100
    assert said.stderr.endswith(": give a whole number\n")


def test_an_output_whose_encoding_lacks_a_character_gets_an_escape(tmp_path: Path) -> None:
    (tmp_path / "é").mkdir()
    said = subprocess.run(
        [*COMMAND, "devices", f"--host-root={tmp_path / 'é'}"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0
    assert "\\xe9/sys/class/biren: it does not exist" in said.stdout
