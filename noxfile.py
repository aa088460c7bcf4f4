"""Everything that a change must pass: `nox`. Figures: `nox -s bench`.

Sessions on nox' own Python share one environment: one of its own for each took a fifth of CI's time.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nox

PYTHONS = ["3.11", "3.12", "3.13"]
MAIN_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PROTO_FOLDER = "biren_plugin/wire/_proto"
IMAGE_TESTS = "tests/manifests/test_image.py"
SHARED = Path(".nox/shared").absolute()
GROUPS = ("test", "lint", "types", "package")

nox.options.sessions = [
    "lint", "types", "protos", "tests", "e2e", "coverage", "package", "manifests", "image",
]  # fmt: skip
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"
nox.needs_version = ">=2025.2"


def group(name: str) -> tuple[str, ...]:
    """The requirements of one dependency group in pyproject.toml."""
    project = nox.project.load_toml("pyproject.toml")
    return nox.project.dependency_groups(project, name)


def compiler() -> tuple[str, ...]:
    """The requirements for compiling the tests' C library; empty where this machine has a compiler."""
    return () if shutil.which("cc") else group("compiler")


def show_pyenvs_pythons() -> None:
    """Set PYENV_VERSION so that pyenv offers all of `PYTHONS`; by default it offers one Python."""
    if shutil.which("pyenv") is None or "PYENV_VERSION" in os.environ:
        return
    listed = subprocess.run(
        ["pyenv", "versions", "--bare"],  # noqa: S607 - the one on PATH is the one whose shims are
        capture_output=True, text=True, check=False,
    ).stdout.split()  # fmt: skip
    wanted = [each for each in listed if each.rpartition(".")[0] in PYTHONS]
    if wanted:
        os.environ["PYENV_VERSION"] = ":".join([*wanted, "system"])


show_pyenvs_pythons()
# Where this is set, each of the hundreds of processes that the tests start would compile all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def prepare(session: nox.Session) -> Callable[..., None]:
    """Installs the package and what tests it; returns a function that runs a command there, with `env` added."""
    bin_ = SHARED / "bin"
    if session.python in (None, MAIN_PYTHON):
        share(session)
    else:
        session.install("--no-compile", "-e", ".", *group("test"), *compiler())
        bin_ = Path(session.bin)

    def run(command: str, *arguments: str, env: dict[str, str] | None = None) -> None:
        path = f"{bin_}{os.pathsep}{os.environ['PATH']}"
        variables = {"PATH": path, "VIRTUAL_ENV": str(bin_.parent), **(env or {})}
        session.run(str(bin_ / command), *arguments, env=variables, external=True)

    return run


def share(session: nox.Session) -> None:
    """Create the shared environment, unless it is already as pyproject.toml asks for."""
    needs = ["-e", ".", *(need for name in GROUPS for need in group(name)), *compiler(), "nox"]
    stamp, wanted = SHARED / "installed", f"{sys.executable}\n{Path('pyproject.toml').read_text()}"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    session.run(
        sys.executable, "-m", "virtualenv", "--clear", "--quiet", f"{SHARED}", external=True
    )
    # Compiling is left to the imports: most of what is installed is never imported.
    pip = [f"{SHARED}/bin/python", "-m", "pip", "install", "--quiet", "--no-compile"]
    session.run(*pip, *needs, external=True)
    stamp.write_text(wanted)


def installed(version: str) -> bool:
    """Whether that Python runs here: version managers leave shims of Pythons that do not."""
    python = shutil.which(f"python{version}")
    if python is None:
        return False
    return subprocess.run([python, "--version"], capture_output=True, check=False).returncode == 0  # noqa: S603 - a Python found on PATH


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Style, structured concurrency (ruff's ASYNC), imports, and what the documents must list."""
    run = prepare(session)
    run("ruff", "check", ".")
    run("ruff", "format", "--check", ".")
    run("lint-imports")
    run("pytest", "-n", "2", "tests/docs", "tests/lint")


@nox.session(name="format", venv_backend="none")
def format_(session: nox.Session) -> None:
    """Formats the code, and fixes what ruff can fix safely."""
    run = prepare(session)
    run("ruff", "check", "--fix-only", ".")
    run("ruff", "format", ".")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Strict types, in the tests too."""
    run = prepare(session)
    run("mypy")


@nox.session(venv_backend="none")
def protos(session: nox.Session) -> None:
    """The generated code is what the compilers generate from schema/; `-- --write` writes it."""
    run = prepare(session)
    target = Path() if "--write" in session.posargs else Path(session.create_tmp())
    run(
        "python", "-m", "grpc_tools.protoc", f"-I{PROTO_FOLDER}=schema",
        f"--python_out={target}", f"--pyi_out={target}", f"--purerpc_out={target}",
        *(f"{PROTO_FOLDER}/{proto.name}" for proto in sorted(Path("schema").glob("*.proto"))),
    )  # fmt: skip
    for written in sorted((target / PROTO_FOLDER).glob("*_*.py*")):
        if written.read_bytes() != (Path(PROTO_FOLDER) / written.name).read_bytes():
            session.error(f"{written.name} differs from schema/: nox -s protos -- --write")


RUNNING = [version for version in PYTHONS if installed(version)] or [MAIN_PYTHON]
THOROUGH = next((version for version in RUNNING if version != MAIN_PYTHON), MAIN_PYTHON)
"""The Python that tries all examples of each property: without coverage if possible, which takes twice the time."""


@nox.session(python=RUNNING)
def tests(session: nox.Session) -> None:
    """All tests in the process, with coverage; on other Pythons, those of the package's own code."""
    run = prepare(session)
    elsewhere = ["cluster", "e2e", "lint", "manifests", "package"]
    measured = ["coverage", "run", "-m"]
    if session.python != MAIN_PYTHON:
        # Neither the tests' own helpers nor documents depend on the version of Python.
        elsewhere += ["bench", "docs", "kubelet", "support"]
        measured = ["python", "-m"]
    others = ["-n", "2", "--dist", "worksteal", *(f"--ignore=tests/{each}" for each in elsewhere)]
    environment = {"HYPOTHESIS_PROFILE": "same" if session.python == THOROUGH else "brief"}
    run(*measured, "pytest", *others, *session.posargs, env=environment)


@nox.session(venv_backend="none")
def e2e(session: nox.Session) -> None:
    """The installed command as a process, against the independent kubelet."""
    run = prepare(session)
    # These tests mostly wait for processes: more of them run at once than there are cores.
    parallel = ["-n", "4", "--dist", "worksteal"]
    run("coverage", "run", "-m", "pytest", *parallel, "tests/e2e", *session.posargs)


@nox.session(venv_backend="none")
def coverage(session: nox.Session) -> None:
    """Branches that `tests` and `e2e` went through: all of core/, nearly all of the rest."""
    run = prepare(session)
    run("coverage", "combine", "--quiet")
    run("coverage", "report", "--include=biren_plugin/core/*", "--fail-under=99")
    run("coverage", "report", "--fail-under=90")


@nox.session(venv_backend="none")
def package(session: nox.Session) -> None:
    """The wheel and the sdist build, install with the newest pip, and run."""
    run = prepare(session)
    run("pytest", "-n", "2", "tests/package", *session.posargs)


@nox.session(venv_backend="none")
def manifests(session: nox.Session) -> None:
    """What is deployed, through kubectl, helm and promtool; `-- --write` renders it again."""
    run = prepare(session)
    run("python", "-m", "tests.manifests.fetch")
    if "--write" in session.posargs:
        run("python", "-m", "tests.manifests.render")
    run("pytest", "-n", "2", "tests/manifests", f"--ignore={IMAGE_TESTS}")


@nox.session(venv_backend="none")
def image(session: nox.Session) -> None:
    """The image, built by podman, and the daemon in it; skipped where podman or mmdebstrap is missing."""
    run = prepare(session)
    run("python", "-m", "tests.manifests.fetch")
    run("pytest", IMAGE_TESTS, *session.posargs)


@nox.session(python="3.11")
def lock(session: nox.Session) -> None:
    """Lock the image's dependencies, for the Python of its base image."""
    session.install("pip-tools>=7.4")
    options = [
        "--quiet", "--upgrade", "--generate-hashes", "--strip-extras", "--no-annotate",
        "--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host",
    ]  # fmt: skip
    for name, kind in (
        ("requirements.txt", []),
        ("build-requirements.txt", ["--only-build-deps", "--build-deps-for=wheel"]),
    ):
        session.run(
            "pip-compile", *options, *kind, f"--output-file=manifests/image/{name}",
            "pyproject.toml", env={"CUSTOM_COMPILE_COMMAND": "nox -s lock"},
        )  # fmt: skip


@nox.session(venv_backend="none")
def pictures(session: nox.Session) -> None:
    """The README's picture, from a run of `simulate`."""
    run = prepare(session)
    run("python", "-m", "tests.support.pictures")


@nox.session(venv_backend="none")
def soak(session: nox.Session) -> None:
    """A week in ten minutes; `-- --seconds N`, `-- --seed N` and `-- --restarts N`."""
    run = prepare(session)
    run("python", "-m", "tests.soak", *session.posargs)


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """The figures beside their targets; `-- --json FILE`, `--baseline FILE`, `--plots FOLDER`."""
    run = prepare(session)
    run("python", "-m", "tests.bench", *session.posargs)


@nox.session(venv_backend="none")
def figures(session: nox.Session) -> None:
    """The tables of docs/figures.md and README, and the plots: `-- RUN.json --node NODE.json`."""
    run = prepare(session)
    run("python", "-m", "tests.bench.pages", *session.posargs)


@nox.session(venv_backend="none")
def ratios(session: nox.Session) -> None:
    """The figures that must hold on any machine: ratios within one run, never times."""
    run = prepare(session)
    run("python", "-m", "tests.bench.ratios")


@nox.session(venv_backend="none")
def cluster(session: nox.Session) -> None:
    """The daemon on a real node, as root; `-- --binaries DIR`, `-- --soak SECONDS --seed N`."""
    run = prepare(session)
    run("python", "-m", "tests.cluster", *session.posargs)
