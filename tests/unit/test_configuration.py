"""agent.toml: whatever is wrong with it is one sentence that names the file, the key and what to write instead."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import msgspec.inspect
import pytest

from broker_coordinator.configuration import CoordinatorConfiguration
from broker_coordinator.configuration import load_configuration as load_coordinator
from edge_agent.configuration import AgentConfiguration, load_configuration
from edge_agent.profiles import shipped_profiles
from fleet_protocol.errors import ConfigurationError

COMPLETE = """
fleet = "greenhouse"
device = "kitchen-pi"
key_file = "keys/device.key"
coordinator_key = "abababababababababababababababababababababababababababababababab"
state_folder = "state"
sample_socket = "/run/edgeflock/samples.sock"

[broker]
host = "broker.local"
password_file = "password"

[broker.tls]
authority = "ca.pem"
certificate = "device.pem"
key = "/etc/edgeflock/tls.key"

[[tasks]]
name = "digits"

[tasks.trigger]
new_samples = 8
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "agent.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal_of(folder: Path, text: str | bytes) -> str:
    path = write(folder, text)
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_relative_paths_are_meant_from_the_folder_of_the_file(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    write(tmp_path, COMPLETE)
    configuration = load_configuration(Path("../agent.toml"))
    assert configuration.key_file == tmp_path / "keys/device.key"
    assert configuration.state_folder == tmp_path / "state"
    assert configuration.sample_socket == Path("/run/edgeflock/samples.sock")
    assert configuration.broker.password_file == tmp_path / "password"
    assert configuration.broker.tls.authority == tmp_path / "ca.pem"
    assert configuration.broker.tls.certificate == tmp_path / "device.pem"
    assert configuration.broker.tls.key == Path("/etc/edgeflock/tls.key")
    assert configuration.tasks[0].trigger.new_samples == 8


def test_broker_without_tls_and_password_needs_neither(tmp_path):
    text = COMPLETE.replace('password_file = "password"', "").replace("[broker.tls]", "[worker]")
    for key in ('authority = "ca.pem"', 'certificate = "device.pem"', 'key = "/etc/edgeflock/tls.key"'):
        text = text.replace(key, "")
    broker = load_configuration(write(tmp_path, text)).broker
    assert (broker.tls, broker.password_file, broker.port, broker.protocol) == (None, None, 1883, "5")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("fleet =", "flet =", "unknown key 'flet'; did you mean 'fleet'?"),
        ("host =", "hots =", "unknown key 'hots' in [broker]; did you mean 'host'?"),
        ("authority =", "autority =", "unknown key 'autority' in [broker.tls]; did you mean 'authority'?"),
        ("new_samples =", "new_sample =", "did you mean 'new_samples'?"),
        ("[broker]", "telemetry = true\n[broker]", "unknown key 'telemetry'"),
        ('device = "kitchen-pi"', "", "`device`"),
        ('host = "broker.local"', "", "`host` - at `broker`"),
        ('name = "digits"', "", "`name` - at `tasks[0]`"),
        ('"greenhouse"', "7", "Expected `str`, got `int` - at `fleet`"),
        ('"state"', "7", "at `state_folder`"),
        ('"ca.pem"', "[1]", "at `broker.tls.authority`"),
        ("= 8", '= "8"', "Expected `int`, got `str` - at `tasks[0].trigger.new_samples`"),
        ("= 8", "= 0", "nothing would ever wake the agent - at `tasks[0].trigger`"),
        ("= 8", "= -1", "Expected `int` >= 0 - at `tasks[0].trigger.new_samples`"),
        ("= 8", "= 8\nschedule = \"daily\"", "no cron line"),
        ("= 8", "= 99999999999999999999999", f"<= {2**31 - 1} - at `tasks[0].trigger.new_samples`; it is 9"),
        ("[broker]", "[store]\nmaximum_samples = 99999999999999999999999\n[broker]", f"<= {2**31 - 1} - at `store"),
        ("[broker]", "[worker]\nthreads = 100000000000\n[broker]", "Expected `int` <= 256 - at `worker.threads`"),
        ("[broker]", "[worker]\nmemory_limit_mib = 99999999999999\n[broker]", "at `worker.memory_limit_mib`; it is 9"),
        ("[broker]", "[worker]\ntime_limit_seconds = inf\n[broker]", "Expected `float` <= 604800.0 - at `worker"),
        ("= 8", "= true", "Expected `int`, got `bool`"),
        ('host = "broker.local"', 'host = "broker.local"\nport = 65536', "at `broker.port`"),
        ('host = "broker.local"', 'host = "broker.local"\nprotocol = "3.1"', "at `broker.protocol`"),
        ('"greenhouse"', '"Greenhouse"', "at `fleet`"),
        ('"greenhouse"', '"greenhouse\\n"', "at `fleet`"),
        ('"digits"', '"digits/2"', "at `tasks[0].name`"),
        ('[[tasks]]\nname = "digits"', '[[tasks]]\nname = "digits"\n[[tasks]]\nname = "digits"', "listed twice"),
        ("[broker]", "[broker", "not valid TOML"),
        ("[broker]", "fleet = 'again'\n[broker]", "not valid TOML"),
        ("[broker]", "deep = " + "[" * 20_000 + "\n[broker]", "not valid TOML"),
    ],
)  # fmt: skip
def test_mistake_is_named_with_its_place_and_remedy(tmp_path, old, new, expected):
    assert old in COMPLETE
    assert expected in refusal_of(tmp_path, COMPLETE.replace(old, new))


ENDLESS = ("inf", "1e300", "nan", "-inf", "9" * 400)
AGENT_FLOATS = (
    ("worker", "time_limit_seconds"),
    ("guards", "recheck_seconds"),
    ("guards", "maximum_temperature_celsius"),
    ("guards", "minimum_battery_percent"),
    ("guards", "minimum_free_memory_mib"),
)


@pytest.mark.parametrize("value", ENDLESS)
@pytest.mark.parametrize(("table", "key"), AGENT_FLOATS)
def test_number_without_an_end_is_refused(tmp_path, table, key, value):
    said = refusal_of(tmp_path, f"{COMPLETE}\n[{table}]\n{key} = {value}\n")
    assert "\n" not in said
    if len(value) < 10:
        assert f"at `{table}.{key}`; it is {float(value)!r}" in said


@pytest.mark.parametrize(
    ("key", "value", "most"),
    [("threads", 257, 256), ("memory_limit_mib", 2**20 + 1, 2**20), ("nice", 20, 19)],
)
def test_worker_is_given_no_more_than_a_machine_has(tmp_path, key, value, most):
    text = f"{COMPLETE}\n[worker]\n{key} = "
    assert f"Expected `int` <= {most} - at `worker.{key}`; it is {value}" in refusal_of(tmp_path, f"{text}{value}\n")
    assert getattr(load_configuration(write(tmp_path, f"{text}{most}\n")).worker, key) == most


def test_longest_round_of_most_threads_has_a_limit_that_the_kernel_takes(tmp_path):
    text = f"{COMPLETE}\n[worker]\nthreads = 256\ntime_limit_seconds = 604800\n"
    assert load_configuration(write(tmp_path, text)).worker.cpu_limit_seconds < 2**31


@pytest.mark.parametrize("shape", [AgentConfiguration, CoordinatorConfiguration])
def test_every_number_with_a_fraction_has_a_lower_and_an_upper_bound(shape):
    floats = dict(_floats(msgspec.inspect.type_info(shape), ""))
    assert floats
    for key, found in floats.items():
        assert found.ge is not None or found.gt is not None, key
        assert found.le is not None or found.lt is not None, key


def _floats(found: msgspec.inspect.Type, place: str) -> Iterator[tuple[str, msgspec.inspect.FloatType]]:
    match found:
        case msgspec.inspect.FloatType():
            yield place, found
        case msgspec.inspect.Metadata():
            yield from _floats(found.type, place)
        case msgspec.inspect.UnionType():
            for each in found.types:
                yield from _floats(each, place)
        case msgspec.inspect.ListType():
            yield from _floats(found.item_type, place)
        case msgspec.inspect.StructType():
            for field in found.fields:
                yield from _floats(field.type, f"{place}.{field.name}")


def test_no_task_at_all_is_refused(tmp_path):
    without = COMPLETE[: COMPLETE.index("[[tasks]]")]
    assert "tasks" in refusal_of(tmp_path, without)
    assert "tasks" in refusal_of(tmp_path, without.replace("[broker]", "tasks = []\n[broker]"))


@pytest.mark.parametrize(
    "content", [b"fleet = '\xff'", b"\x00" * 100, b"\xff\xfef\x00"], ids=["latin", "zeros", "utf-16"]
)
def test_file_that_is_no_text_is_refused(tmp_path, content):
    assert "not valid TOML" in refusal_of(tmp_path, content)


def test_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(ConfigurationError, match=r"agent\.toml: No such file.*--config"):
        load_configuration(tmp_path / "agent.toml")


COORDINATOR = """
fleet = "greenhouse"
key_file = "coordinator.key"
database = "coordinator.db"
database_password_file = "/etc/edgeflock/password"

[broker]
host = "broker.local"
password_file = "password"

[[tasks]]
bundle = "bundles/digits"

[[evaluations]]
task = "digits"
file = "held-out.npz"
"""


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("retention", "versions", "99999999999999999999999"),
        ("retention", "every", "9223372036854775807"),
        ("retention", "envelopes", "2147483648"),
        ("rate_limit", "burst", "2147483648"),
        ("rate_limit", "mebibytes_per_hour", "99999999999999999999999"),
        ("rate_limit", "updates_per_hour", "1e-320"),
        ("rate_limit", "chunks_per_hour", "inf"),
        ("metrics", "port", "99999999999999999999999"),
    ],
)
def test_number_of_the_coordinator_that_is_out_of_its_limits_is_named_with_the_limit(tmp_path, table, key, value):
    path = tmp_path / "coordinator.toml"
    path.write_text(f"{COORDINATOR}\n[{table}]\n{key} = {value}\n")
    with pytest.raises(ConfigurationError, match=rf"Expected `(int|float)` [<>]= \S+ - at `{table}\.{key}`; it is"):
        load_coordinator(path)


def test_relative_paths_in_lists_are_meant_from_the_folder_of_the_file(tmp_path):
    path = tmp_path / "coordinator.toml"
    path.write_text(COORDINATOR)
    configuration = load_coordinator(path)
    assert configuration.key_file == tmp_path / "coordinator.key"
    assert configuration.database == str(tmp_path / "coordinator.db")
    assert configuration.database_password_file == Path("/etc/edgeflock/password")
    assert configuration.broker.password_file == tmp_path / "password"
    assert [task.bundle for task in configuration.tasks] == [tmp_path / "bundles" / "digits"]
    assert [each.file for each in configuration.evaluations] == [tmp_path / "held-out.npz"]


@pytest.mark.parametrize("value", ENDLESS)
@pytest.mark.parametrize("key", ["updates_per_hour", "chunks_per_hour", "enrolments_per_hour"])
def test_rate_without_an_end_is_refused(tmp_path, key, value):
    path = tmp_path / "coordinator.toml"
    path.write_text(f"{COORDINATOR}\n[rate_limit]\n{key} = {value}\n")
    with pytest.raises(ConfigurationError) as caught:
        load_coordinator(path)
    assert "\n" not in str(caught.value)
    if len(value) < 10:
        assert f"at `rate_limit.{key}`; it is {float(value)!r}" in str(caught.value)


def test_address_of_a_database_is_no_path(tmp_path):
    path = tmp_path / "coordinator.toml"
    path.write_text(COORDINATOR.replace("coordinator.db", "postgresql+psycopg://user@host/name"))
    assert load_coordinator(path).database == "postgresql+psycopg://user@host/name"


def test_unknown_profile_is_refused_with_those_there_are(tmp_path):
    said = refusal_of(tmp_path, 'profile = "pi-zero"\n' + COMPLETE)
    assert "pi-zero" in said
    for name in shipped_profiles():
        assert load_configuration(write(tmp_path, f'profile = "{name}"\n' + COMPLETE)).profile == name
        assert name in said


def test_file_without_an_end_is_read_no_further():
    with pytest.raises(ConfigurationError, match="/dev/zero: more than 1 MiB; name a configuration file"):
        load_configuration(Path("/dev/zero"))


def test_path_of_the_sample_socket_is_one_that_a_socket_can_have(tmp_path):
    path = write(tmp_path, COMPLETE.replace("/run/edgeflock/samples.sock", "/run/" + "s" * 103))
    words = r"sample_socket /run/s+: its path has 108 bytes, a socket's has at most 107; choose a shorter one"
    with pytest.raises(ConfigurationError, match=words):
        load_configuration(path)


def test_task_that_is_evaluated_twice_is_refused(tmp_path):
    path = tmp_path / "coordinator.toml"
    path.write_text(f'{COORDINATOR}\n[[evaluations]]\ntask = "digits"\nfile = "other.npz"\n')
    with pytest.raises(ConfigurationError, match="evaluations: task 'digits' is listed twice; leave one of them"):
        load_coordinator(path)


@pytest.mark.parametrize(
    ("shards", "said"),
    [
        ('["0", "1", "0"]', "shards: '0' is listed twice; leave one of them"),
        ('["1", "2"]', r"shard = '0' is none of the shards \['1', '2'\]; add it to them, or name one of them"),
        ('["0", "North"]', r"at `shards\[1\]`"),
        (str([str(number) for number in range(65)]), "at `shards`"),
        ('"0"', "at `shards`"),
    ],
)
def test_shards_that_can_not_be_are_refused(tmp_path, shards, said):
    path = tmp_path / "coordinator.toml"
    path.write_text(f"shards = {shards}\n{COORDINATOR}")
    with pytest.raises(ConfigurationError, match=said):
        load_coordinator(path)


def test_shards_that_are_named_are_served_and_else_the_own_one(tmp_path):
    path = tmp_path / "coordinator.toml"
    for text, served, named in (("", ("0",), ()), ('shards = ["1", "0"]\n', ("1", "0"), ("1", "0"))):
        path.write_text(text + COORDINATOR)
        configuration = load_coordinator(path)
        assert configuration.served_shards == served
        assert configuration.admission_settings(()).shards == named
