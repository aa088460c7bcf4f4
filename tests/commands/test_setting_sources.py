"""A setting's value comes from its flag, else its variable, else the file, else the default."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin
from unittest import mock

import attrs
import jsonschema
import pytest
from cyclopts import App
from hypothesis import given
from hypothesis import strategies as st

from biren_plugin.commands.command_line import run
from biren_plugin.commands.doctor import examination
from biren_plugin.commands.doctor.daemon_checks import check_probes, check_settings_file
from biren_plugin.commands.flags import fill_from_environment, rewrite, with_settings
from biren_plugin.commands.plain_settings import plain_settings
from biren_plugin.commands.run_daemon import unknown_variables
from biren_plugin.core.setting_field import (
    HELP,
    Between,
    EachMatching,
    Members,
    key_of,
    variable_of,
)
from biren_plugin.core.settings import SETTINGS, Settings, SettingsFile
from biren_plugin.errors import UsageError
from tests.support.settings_schema import SCHEMA, document

BY_NAME: Final = {field.name: field for field in SETTINGS}


def read(
    *flags: str, variables: Mapping[str, str] = {}, file: str | bytes | None = None
) -> Settings:
    """Return the settings of a command with these flags, variables and file."""
    taken: list[Settings] = []

    @with_settings
    def command(settings: Settings) -> int:
        taken.append(settings)
        return 0

    app = App(config=[fill_from_environment])
    app.default(command)
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, variables):
        words = list(flags)
        if file is not None:
            path = Path(folder) / "settings.yaml"
            path.write_bytes(file if isinstance(file, bytes) else file.encode())
            words.append(f"--config={path}")
        plain = plain_settings(words, os.environ)
        app(words, exit_on_error=False, print_error=False, result_action="return_value")
    (settings,) = taken
    assert plain in (None, settings)
    assert plain is None or plain.origins == settings.origins
    return settings


def refusal(*flags: str, variables: Mapping[str, str] = {}, file: str | bytes | None = None) -> str:
    """Return why these settings are refused; the path of the file is FILE."""
    with pytest.raises(UsageError) as refused:
        read(*flags, variables=variables, file=file)
    words = str(refused.value).split()
    return " ".join("FILE," if word.endswith("settings.yaml,") else word for word in words)


def values_of(field: "attrs.Attribute[Any]") -> st.SearchStrategy[Any]:
    """Draw valid values of a setting."""
    kind: Any = field.type
    valid = field.validator
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if isinstance(valid, Members):
        return st.lists(st.sampled_from(valid.names), min_size=1).map(tuple)
    if isinstance(valid, EachMatching):
        return st.lists(st.from_regex(valid.pattern, fullmatch=True), min_size=1, max_size=3).map(
            tuple
        )
    if isinstance(valid, Between) and kind is int:
        return st.integers(int(valid.least), int(valid.most))
    if isinstance(valid, Between):
        return st.integers(int(valid.least * 10), int(valid.most * 10)).map(lambda n: n / 10)
    if kind is bool:
        return st.booleans()
    if field.name == "node_name":
        return st.sampled_from(["node-7", "n", "ip-10-0-0-1.eu.example"])
    if kind is str:
        return st.sampled_from([":9451", "127.0.0.1:1", "[::1]:65535", "node-3.example:80"])
    paths = [f"/{field.name}", f"/b/{field.name}", f"/with space/{field.name}"]
    return st.sampled_from(paths if valid else [*paths, "relative"]).map(Path)


def words_of(value: Any) -> list[str]:
    """Return a value as the words of a flag."""
    if isinstance(value, bool):
        return ["true" if value else "false"]
    return list(value) if isinstance(value, tuple) else [str(value)]


Told = dict[str, dict[str, Any]]


@st.composite
def told(draw: st.DrawFn) -> Told:
    """Draw settings with values for each source that do not contradict each other."""
    names = st.sets(st.sampled_from(sorted(BY_NAME)), max_size=6)
    drawn = {
        source: {name: draw(values_of(BY_NAME[name])) for name in sorted(draw(names))}
        for source in ("flag", "environment", "file")
    }
    exclusive = [("offer_by", "dra"), ("container_runtime", "kata")]
    if any(values.get(name) == word for values in drawn.values() for name, word in exclusive):
        for values in drawn.values():
            values.pop("hami", None)
            values.pop("kubeconfig", None)  # without the node's name, for dra
    return drawn


@given(told())
def test_the_first_source_of_a_setting_counts_and_is_named(told: Told) -> None:
    flags = [
        f"--{key_of(name)}={word}"
        for name, value in told["flag"].items()
        for word in words_of(value)
    ]
    variables = {
        variable_of(name): ",".join(words_of(value)) for name, value in told["environment"].items()
    }
    file = json.dumps(
        {
            key_of(name): list(value) if isinstance(value, tuple) else words_of(value)[0]
            for name, value in told["file"].items()
        }
    )
    settings = read(*flags, variables=variables, file=file)
    for field in SETTINGS:
        source = next((each for each, values in told.items() if field.name in values), None)
        expected = told[source][field.name] if source else field.default
        assert getattr(settings, field.name) == expected
        assert settings.origins.get(field.name) == source


@given(told())
def test_the_schema_accepts_every_valid_file(told: Told) -> None:
    words = json.dumps({key_of(name): value for name, value in told["file"].items()}, default=str)
    jsonschema.Draft202012Validator(document()).validate(json.loads(words))
    assert attrs.evolve(read(file=words), origins={}) == Settings(**told["file"])


def test_the_schema_on_disk_matches_the_settings() -> None:
    jsonschema.Draft202012Validator.check_schema(document())
    assert json.loads(SCHEMA.read_text()) == document(), "see tests/support/settings_schema.py"


def test_every_setting_has_a_help_text() -> None:
    assert [field.name for field in SETTINGS if not field.metadata.get(HELP)] == []


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("pulze: 3", "FILE, line 1: pulze: there is no such setting; did you mean pulse?"),
        ("# why\ncdi_feature: true",
         "FILE, line 2: cdi_feature: there is no such setting; did you mean cdi-feature?"),
        ("config: other.yaml", "FILE, line 1: config: there is no such setting; br-gpu-device-plugin --help lists them"),
        ("pulse: often", "FILE, line 1: pulse often: give a whole number"),
        ("pulse: 99999", "FILE, line 1: pulse 99999: give whole seconds from 0 (no heartbeat)"),
        ("\npulse: [1]", "FILE, line 2: pulse: give one value"),
        ("pulse:", "FILE, line 1: pulse: give one value"),
        ("pulse: 1\npulse: 2", "FILE, line 2: pulse: already set on line 1"),
        ("cdi-feature: yes", "FILE, line 1: cdi-feature yes: give true or false"),
        ("health-interval: 0", "FILE, line 1: health-interval 0: give seconds from 0.1 to 3600"),
        ("recover-after: soon", "FILE, line 1: recover-after soon: give seconds, as in 1.5"),
        ('cdi-dir: ""', "FILE, line 1: cdi-dir '': give a path"),
        ('host-root: "/host\\0"', "give a path"),
        ("cdi-dir: etc/cdi", "FILE, line 1: cdi-dir etc/cdi: give a path that begins with /"),
        ("node-name: Node_1", "FILE, line 1: node-name Node_1: give the name of the Node object"),
        ("hami: true\ncontainer-runtime: kata", "FILE, line 1: hami true: HAMi counts the driver's cards"),
        ("container-runtime: docker",
         'FILE, line 1: container-runtime docker: give one of "runc", "kata"'),
        ("disable-probe: link-width", "FILE, line 1: disable-probe: give a list, as in [a, b]"),
        ("disable-probe: [x]", "FILE, line 1: disable-probe x: give one of driver-module"),
        ("- pulse", "FILE, line 1: give lines of KEY: VALUE, as in pulse: 300"),
        ("pulse: 1\n---\npulse: 2", "FILE, line 2, column 1: expected a single document in the stream"),
        ('pulse: "', "FILE, line 1, column 8: while scanning a quoted scalar"),
        ("pulse: 5\nhealth-mode observe\n# end\n", "FILE, line 2, column 1: while scanning a simple key"),
        ("pulse: 5\n  pulze: 6\n", "FILE, line 2, column 8: mapping values are not allowed here"),
        (b"pulse: \xff", "this is not YAML"),
        (b"[" * 1000, "this is not YAML"),
        (b"? [pulse]\n: 1\n", "line 1: ?: there is no such setting"),
        ("#" * 70_000, "it has more than 65536 bytes, and is not a settings file"),
    ],
    ids=lambda value: repr(value[:30]),
)  # fmt: skip
def test_an_invalid_file_is_refused_with_line_key_and_valid_values(
    file: str | bytes, why: str
) -> None:
    assert why in refusal(file=file)


@pytest.mark.parametrize("file", ["", "# nothing\n", "{}"])
def test_an_empty_file_sets_nothing(file: str) -> None:
    assert read(file=file) == Settings()


def test_an_invalid_value_overridden_by_an_earlier_source_is_not_read() -> None:
    assert read("--pulse=1", variables={"BR_GPU_PULSE": "x"}, file="pulse: y").pulse == 1


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        ("BR_GPU_PULSE", "often", "BR_GPU_PULSE often: give a whole number"),
        ("BR_GPU_PULSE", "99999", "BR_GPU_PULSE 99999: give whole seconds from 0"),
        ("BR_GPU_CDI_FEATURE", "yes", "BR_GPU_CDI_FEATURE yes: give true or false"),
        ("BR_GPU_DISABLE_PROBE", "sysfs,x", "BR_GPU_DISABLE_PROBE x: give one of"),
        ("BR_GPU_CONFIG", "/nowhere", "BR_GPU_CONFIG /nowhere: No such file or directory"),
    ],
)
def test_an_invalid_variable_is_refused_by_name(variable: str, value: str, why: str) -> None:
    assert why in refusal(variables={variable: value})


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("16", 16), ("0x10", 16), ("0X10", 16), ("0o20", 16), ("020", 16), ("0b1_0000", 16),
        ("1_000", 1000), ("0_20", 16), ("+7", 7), ("0", 0), ("00", 0), ("-0", 0),
    ],
)  # fmt: skip
def test_numbers_are_read_in_the_bases_of_the_vendors_parser(word: str, number: int) -> None:
    assert read(f"--pulse={word}").pulse == number
    assert read(variables={"BR_GPU_PULSE": word}).pulse == number
    assert read(file=f"pulse: {word}").pulse == number


@pytest.mark.parametrize(
    "word", ["08", "0x", "1__0", "_1", "1_", "0xg", " 7", "7 ", "٣", "--7", "9" * 30]
)
def test_texts_refused_by_the_vendors_parser_are_not_numbers(word: str) -> None:
    assert "give a whole number" in refusal(f"--pulse={word}")


def test_blanks_between_names_in_a_variable_do_not_matter() -> None:
    variables = {"BR_GPU_DISABLE_PROBE": "aer-fatal, sysfs ,"}
    assert read(variables=variables).disable_probe == ("aer-fatal", "sysfs")


def test_blanks_around_a_variable_do_not_matter_as_a_mounted_value_ends_in_a_newline() -> None:
    variables = {"BR_GPU_PULSE": "5\n", "BR_GPU_CDI_FEATURE": " true ", "BR_GPU_CDI_DIR": "\n"}
    assert read(variables=variables) == Settings(pulse=5, cdi_feature=True)


def test_several_names_in_one_flag_are_refused_with_advice() -> None:
    why = refusal("--disable-probe", "aer-fatal,sysfs")
    assert why.startswith(
        "--disable-probe aer-fatal,sysfs: give one name at a time; repeat the flag"
    )


def test_an_empty_path_of_the_settings_file_counts_as_not_given() -> None:
    assert read("--config", "") == read("--config=") == Settings()


def test_an_empty_variable_counts_as_not_set() -> None:
    variables = {variable_of(field.name): "" for field in SETTINGS}
    assert read(variables=variables, file="pulse: 5") == Settings(pulse=5)


def test_unknown_variables_are_distinguished_from_known_and_foreign_ones() -> None:
    names = ["BR_GPU_PULSE", "BR_GPU_CONFIG", "BR_GPU_PULZE", "PULSE", "BR_GPU_"]
    assert unknown_variables(names) == ["BR_GPU_", "BR_GPU_PULZE"]


def test_the_log_line_names_the_source_of_a_value() -> None:
    settings = read("--pulse=1", variables={"BR_GPU_LOG_LEVEL": "debug"}, file="cdi-dir: /c")
    said = settings.differing()
    assert said == "pulse=1, cdi_dir=/c (file), log_level=debug (environment)"


def test_a_given_default_does_not_count_as_a_difference() -> None:
    assert read(variables={"BR_GPU_PULSE": "0"}).differing() == "all defaults"


def test_a_directory_stands_for_the_nodes_own_file_or_the_default(tmp_path: Path) -> None:
    (tmp_path / "default.yaml").write_text("pulse: 1")
    (tmp_path / "node-7.yaml").write_text("recover-after: 7")
    (tmp_path / f"{os.uname().nodename}.yaml").write_text("pulse: 3")
    own = read("--config-dir", f"{tmp_path}", "--node-name=node-7")
    assert (own.pulse, own.recover_after) == (0, 7.0), "one file counts, they are not merged"
    assert own.file == SettingsFile(tmp_path / "node-7.yaml", tmp_path)
    given = {"BR_GPU_CONFIG_DIR": f"{tmp_path}", "BR_GPU_NODE_NAME": "node-8"}
    other = read("--recover-after=5", variables=given)
    assert (other.pulse, other.recover_after) == (1, 5.0)
    assert other.file == SettingsFile(tmp_path / "default.yaml", tmp_path)
    assert read("--config-dir", f"{tmp_path}").pulse == 3, "without a name the host's counts"
    assert read("--config-dir=").file is None


def test_a_directory_that_has_neither_file_or_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        read(f"--config-dir={tmp_path}", "--node-name=node-7")
    assert str(refused.value) == (
        f"--config-dir {tmp_path}: has neither node-7.yaml nor default.yaml; add one of the two"
    )
    with pytest.raises(UsageError, match="BR_GPU_CONFIG_DIR /nowhere: No such file or directory"):
        read(variables={"BR_GPU_CONFIG_DIR": "/nowhere"})
    with pytest.raises(UsageError, match="give one of the two"):
        read(f"--config-dir={tmp_path}", "--config=/a")


def test_an_error_in_a_file_of_the_directory_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "default.yaml").write_text("pulse: x")
    with pytest.raises(UsageError, match=r"default\.yaml, line 1: pulse"):
        read(f"--config-dir={tmp_path}")


@pytest.mark.parametrize(
    ("flags", "variables"),
    [
        ((), {}),
        (("--pulse=0x10", "--cdi-feature", "--pulse", "5", "--cdi-feature=false"), {}),
        (("--exclude=card_1", "--exclude", "card_2", "--host-root=/host"), {"BR_GPU_EXCLUDE": "card_3"}),
        ((), {"BR_GPU_EXCLUDE": "card_1, card_2", "BR_GPU_CDI_FEATURE": "1", "BR_GPU_PULSE": "9\n"}),
        (("--kubeconfig=/k", "--offer-by=dra", "--node-name=n1"), {"BR_GPU_LOG_LEVEL": "", "BR_GPU_HEALTH_INTERVAL": "2.5"}),
    ],
)  # fmt: skip
def test_an_ordinary_command_line_needs_no_cyclopts(
    flags: Sequence[str], variables: Mapping[str, str]
) -> None:
    plain = plain_settings(flags, variables)
    rewritten = rewrite(flags, {"--cdi-feature"}, {"--exclude"})
    assert plain is not None
    assert plain == read(*rewritten, variables=variables)


@pytest.mark.parametrize(
    "words",
    [
        ("devices",), ("--help",), ("--config=/settings.yaml",), ("--pulse",), ("--pulse=",), ("--pulse=x",),
        ("--pulse", "--cdi-feature"), ("--cdi-feature", "true"), ("--cdi-feature=maybe",), ("--pulse=-1",),
        ("--health_mode=off",), ("-h",), ("--",), ("--hami", "--offer-by=dra"),
    ],
)  # fmt: skip
def test_what_is_not_ordinary_is_left_to_cyclopts(words: Sequence[str]) -> None:
    assert plain_settings(words, {}) is None


@pytest.mark.parametrize("variable", ["BR_GPU_CONFIG", "BR_GPU_CONFIG_DIR"])
def test_a_settings_file_is_left_to_cyclopts(variable: str) -> None:
    assert plain_settings((), {variable: "/settings"}) is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("pulze: 5", "line 1: pulze: there is no such setting; did you mean pulse?"),
        ("pulse: x", "line 1: pulse x: give a whole number"),
        ("pulse: -5", "line 1: pulse -5: give whole seconds"),
        ("- pulse", "line 1: give lines of KEY: VALUE"),
        ("hami: true", "give --hami or --offer-by dra, not both"),
        (None, "No such file or directory"),
    ],
)
def test_doctor_checks_a_node_whose_settings_file_is_broken_with_the_other_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, why: str
) -> None:
    path = tmp_path / "settings.yaml"
    if content is not None:
        path.write_text(content)
    words = ["doctor", "--json", f"--config={path}", "--offer-by=dra", f"--host-root={tmp_path}"]
    # This file's own row, and one more: all of them take a second.
    few = [("settings file", check_settings_file), ("probes", check_probes)]
    with mock.patch.object(examination.examine, "__defaults__", (few,)):
        status = run(words)
    document = json.loads(capsys.readouterr().out)
    row, other = document["checks"]
    assert (row["name"], row["result"]) == ("settings file", "failure")
    assert why in row["seen"]
    assert f"{path}" in row["seen"]
    assert other["result"] == "ok"
    assert document["settings"] == f"host_root={tmp_path}, offer_by=dra"
    assert status == document["exit_status"] == 2


def test_a_wrong_flag_ends_doctor_also_with_a_broken_settings_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--pulse -5: give whole seconds"):
        run(["doctor", "--pulse=-5", f"--config={tmp_path / 'none.yaml'}"])
