"""Profiles: what ships has its source, files inherit, a site and agent.toml go over them, nonsense is told."""

import msgspec
import pytest

from edge_agent.configuration import load_configuration
from edge_agent.profiles import (
    Board,
    Limits,
    Profile,
    detected_profile,
    misfits,
    profile_file,
    read_profile,
    shipped_profiles,
)
from edge_agent.verbs.measure import as_toml
from fleet_protocol.configuration import parse_document
from fleet_protocol.errors import ConfigurationError

AGENT = """
fleet = "home"
device = "kitchen-pi"
key_file = "agent.key"
coordinator_key = "abababababababababababababababababababababababababababababababab"
state_folder = "state"
sample_socket = "samples.sock"
{profile}
[broker]
host = "broker.local"

{tables}
"""
TASK = '[[tasks]]\nname = "digits"\n'
SHIPPED = {name: read_profile(name) for name in shipped_profiles()}


@pytest.fixture
def own(tmp_path):
    """Writes a profile file; returns its path."""

    def write(text, name="own.toml"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def agent(tmp_path):
    """Loads an agent.toml with these lines."""

    def load(profile="", tables=TASK, site=None):
        (tmp_path / "agent.toml").write_text(AGENT.format(profile=profile, tables=tables))
        if site is not None:
            (tmp_path / "site.toml").write_text(site)
        return load_configuration(tmp_path / "agent.toml")

    return load


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profile_says_itself_what_it_is_and_where_that_is_from(name):
    device = SHIPPED[name].device
    assert device.name
    assert all(source.startswith("https://") or "https://" in source for source in device.source)
    assert device.source


def test_limits_of_the_names_that_were_there_before_have_not_changed():
    taken = {
        name: (profile.worker.threads, profile.worker.memory_limit_mib, profile.store.maximum_samples)
        for name, profile in SHIPPED.items()
    }
    assert taken["generic"] == taken["pi-zero-2w"] == (1, 192, 2000)
    assert (taken["pi-3b"], taken["pi-4"], taken["pi-5"]) == ((2, 384, 5000), (2, 384, 10000), (2, 768, 20000))


def test_what_a_profile_leaves_out_is_as_in_the_one_that_it_inherits(own):
    profile = read_profile(own('inherits = "pi-4"\n[worker]\ncpu_share = 0.5\n'))
    base = SHIPPED["pi-4"]
    assert profile.worker == msgspec.structs.replace(base.worker, cpu_share=0.5)
    assert (profile.device, profile.guards, profile.store) == (base.device, base.guards, base.store)


def test_own_profiles_inherit_from_each_other_beside_them(own):
    own('inherits = "pi-5"\n[guards]\nminimum_samples = 40\n', "house.toml")
    profile = read_profile(own('inherits = "house.toml"\n[worker]\nthreads = 1\n'))
    assert (profile.guards.minimum_samples, profile.worker.threads) == (40, 1)


@pytest.mark.parametrize("name", SHIPPED)
def test_shown_profile_is_a_file_that_says_the_same(name):
    assert parse_document(as_toml(SHIPPED[name]), Profile, name) == SHIPPED[name]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[worker]\nmemory_limit_mib = 2000\n", "worker.memory_limit_mib = 2000, but the device has 512 MiB; lower it"),
        ("[worker]\nthreads = 5\n", "worker.threads = 5, but the device has 4 cores; lower it"),
        ("[guards]\nminimum_free_memory_mib = 512.0\n", "minimum_free_memory_mib = 512, but the device has 512 MiB"),
        ("[guards]\ndaily_bytes = 0\n", "Expected `int` >= 1 - at `guards.daily_bytes`; it is 0"),
        ("[guards]\ndaily_cpu_seconds = 0\n", "`guards.daily_cpu_seconds`; it is 0"),
        ("[guards]\nminimum_samples = 3000\n", "it would never train"),
        ("[worker]\nthread = 1\n", "unknown key 'thread' in [worker]; did you mean 'threads'?"),
        ("speed = 1\n", "unknown key 'speed'"),
        ("[device]\nmemory_mib = 0\n", "`device.memory_mib`; it is 0"),
        ("[simulation]\ntraining_mflops = inf\n", "`simulation.training_mflops`"),
        ("[simulation]\ntraining_mflops = 1e-300\n", "`simulation.training_mflops`; it is 1e-300"),
        ("worker = 3\n", "Expected `object`, got `int` - at `worker`"),
        ("[worker\n", "not valid TOML"),
    ],
)
def test_profile_that_contradicts_itself_is_told_with_the_files_that_it_is_of(own, text, words):
    above, bracket, tables = text.partition("[")
    path = own(f'inherits = "pi-zero-2w"\n{above}{bracket}{tables}')
    with pytest.raises(ConfigurationError) as caught:
        read_profile(path)
    assert words in str(caught.value)
    assert path in str(caught.value)


@pytest.mark.parametrize(
    ("inherits", "words"),
    [
        ('"own.toml"', "profiles inherit in a circle"),
        ('"pi-6"', "inherits = 'pi-6': profile pi-6: no such file; edgeflock ships generic"),
        ('"/dev/null.toml"', "no such file"),
        ("3", "Expected `str`, got `int` - at `inherits`"),
    ],
)
def test_inheritance_that_can_not_be_is_told(own, inherits, words):
    with pytest.raises(ConfigurationError, match=r"own\.toml") as caught:
        read_profile(own(f"inherits = {inherits}\n"))
    assert words in str(caught.value)


def test_file_of_this_folder_is_not_taken_for_a_shipped_profile(tmp_path, monkeypatch):
    (tmp_path / "pi-4").write_text("nonsense")
    monkeypatch.chdir(tmp_path)
    assert profile_file("pi-4").name == "pi-4.toml"
    with pytest.raises(ConfigurationError, match="did you mean 'pi-4'"):
        profile_file("pi4")
    with pytest.raises(ConfigurationError, match="no such file"):
        profile_file("a\0.toml")


def test_agent_takes_limits_of_its_profile_by_name(agent):
    configuration = agent('profile = "pi-4-8gb"')
    assert Limits(configuration.guards, configuration.worker, configuration.store) == SHIPPED["pi-4-8gb"].limits
    assert configuration.profile_name == "pi-4-8gb"


def test_agent_without_a_profile_has_the_defaults(agent):
    configuration = agent()
    assert Limits(configuration.guards, configuration.worker, configuration.store) == Limits()
    assert configuration.profile_name == "generic"


def test_site_goes_over_the_profile_and_agent_toml_over_both(agent):
    site = "[worker]\nthreads = 1\nnice = 15\n\n[trigger]\nnew_samples = 64\n"
    configuration = agent('profile = "pi-5"', "[worker]\nnice = 5\n" + TASK, site)
    assert (configuration.worker.threads, configuration.worker.nice) == (1, 5)
    assert configuration.worker.memory_limit_mib == SHIPPED["pi-5"].worker.memory_limit_mib
    assert configuration.tasks[0].trigger.new_samples == 64


def test_site_holds_where_no_profile_is_named(agent):
    configuration = agent(site="[worker]\nthreads = 2\n")
    assert configuration.worker.threads == 2


def test_trigger_of_a_task_is_taken_whole(agent):
    tasks = '[[tasks]]\nname = "digits"\ntrigger = { new_samples = 8 }\n\n[[tasks]]\nname = "occupancy"\n'
    site = "[trigger]\nnew_samples = 64\nnew_version = true\n"
    first, second = agent('profile = "pi-5"', tasks, site).tasks
    assert (first.trigger.new_samples, first.trigger.new_version) == (8, False)
    assert (second.trigger.new_samples, second.trigger.new_version) == (64, True)


def test_profile_of_ones_own_is_found_from_agent_toml_and_told_by_its_name(agent, own):
    own('inherits = "pi-3b"\n[store]\nmaximum_samples = 77\n', "attic.toml")
    configuration = agent('profile = "attic.toml"')
    assert (configuration.store.maximum_samples, configuration.profile_name) == (77, "attic")


@pytest.mark.parametrize(
    ("site", "words"),
    [
        ('fleet = "x"\n', "site.toml: 'fleet' can't be set for a site; its tables are [guards], [worker]"),
        ("[worker]\nthreads = 9\n", "site.toml: worker.threads = 9, but the device has 4 cores"),
        ("[worker]\nthreads = 0\n", "site.toml: Expected `int` >= 1 - at `worker.threads`; it is 0"),
        ("[guards]\ndaily_bytes = 0\n", "site.toml: Expected `int` >= 1 - at `guards.daily_bytes`"),
        ("[", "site.toml: not valid TOML"),
    ],
)
def test_wrong_site_is_told_by_its_own_name(agent, site, words):
    with pytest.raises(ConfigurationError) as caught:
        agent('profile = "pi-5"', site=site)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("model", "memory", "expected"),
    [
        ("Raspberry Pi Zero 2 W Rev 1.0", 416, "pi-zero-2w"),
        ("Raspberry Pi 3 Model B Rev 1.2", 906, "pi-3b"),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", 906, "pi-3b-plus"),
        ("Raspberry Pi 4 Model B Rev 1.4", 906, "pi-4"),
        ("Raspberry Pi 4 Model B Rev 1.4", 3794, "pi-4-2gb"),
        ("Raspberry Pi 4 Model B Rev 1.4", 7810, "pi-4-8gb"),
        ("Raspberry Pi 5 Model B Rev 1.0", 4045, "pi-5"),
        ("Raspberry Pi 400 Rev 1.0", 3794, "raspberry-pi"),
        ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit", 7607, "jetson-orin-nano"),
        ("", 16000, "generic"),
    ],
)
def test_board_is_detected_by_its_model_and_memory(model, memory, expected):
    assert detected_profile(Board(model, "aarch64", 4, memory)) == expected


def test_profile_fits_its_own_board_and_is_told_where_it_does_not():
    zero = Board("Raspberry Pi Zero 2 W Rev 1.0", "aarch64", 4, 416)
    assert misfits("pi-zero-2w", SHIPPED["pi-zero-2w"], SHIPPED["pi-zero-2w"].limits, zero) == []
    found = misfits("pi-4-8gb", SHIPPED["pi-4-8gb"], SHIPPED["pi-4-8gb"].limits, Board("", "aarch64", 1, 416))
    assert found == [
        "worker.threads = 2, but this machine has 1 cores; lower it",
        "worker.memory_limit_mib = 2048, but this machine has 416 MiB; lower it",
        "guards.minimum_free_memory_mib = 1024, but this machine has 416 MiB; lower it",
        "profile pi-4-8gb is for a device with 8192 MiB, this machine has 416; choose a smaller one, or have"
        " `edge-agent measure` write one",
    ]
