"""`setup` of all programs: a folder that works from a few answers, and nothing at all from wrong ones."""

import stat

import pytest

from broker_coordinator import cli as coordinator_cli
from broker_coordinator.configuration import load_configuration as load_coordinator
from edge_agent import cli as agent_cli
from edge_agent.configuration import load_configuration as load_agent
from edge_agent.profiles import read_profile, shipped_profiles
from fleet_host.key_files import read_key_file
from fleet_protocol.keys import SigningKey, write_verify_key
from session_relay.helper import cli as helper_cli
from session_relay.helper.configuration import load_helper_configuration

COORDINATOR = write_verify_key(SigningKey(bytes(range(32))).verify_key)


@pytest.fixture
def certificates(tmp_path):
    folder = tmp_path / "fleet"
    folder.mkdir()
    for name in ("ca.crt", "kitchen-pi.crt", "kitchen-pi.key", "broker-coordinator.crt", "broker-coordinator.key"):
        (folder / name).write_text(f"content of {name}")
    return folder


@pytest.fixture
def device(tmp_path, certificates):
    """Sets up a device with these options changed; returns its configuration file."""

    def set_up(**changed):
        file = tmp_path / "etc" / "edge-agent" / "agent.toml"
        answers = {
            "config": file,
            "device": "kitchen-pi",
            "broker": "broker.example",
            "certificates": certificates,
            "coordinator-key": COORDINATOR,
        } | {name.replace("_", "-"): value for name, value in changed.items()}
        options = [word for name, value in answers.items() if value for word in (f"--{name}", str(value))]
        agent_cli.main(["setup", *options])
        return file

    return set_up


def test_device_has_what_it_needs_and_is_told_the_command_that_approves_it(device, capsys):
    file = device(profile="pi-zero-2w", fleet="greenhouse")
    configuration = load_agent(file)
    profile = read_profile("pi-zero-2w")
    assert (configuration.guards, configuration.worker, configuration.store) == (
        profile.guards,
        profile.worker,
        profile.store,
    )
    assert (configuration.fleet, configuration.device) == ("greenhouse", "kitchen-pi")
    assert (configuration.broker.host, configuration.broker.port) == ("broker.example", 8883)
    assert [task.name for task in configuration.tasks] == ["digits"]
    tls = configuration.broker.tls
    found = [path.read_text() for path in (tls.authority, tls.certificate, tls.key)]
    assert found == ["content of ca.crt", "content of kitchen-pi.crt", "content of kitchen-pi.key"]
    public = write_verify_key(read_key_file(configuration.key_file, "edge-agent").verify_key)
    assert f"devices approve kitchen-pi {public}" in capsys.readouterr().out


def test_what_setup_writes_is_its_owners_alone(device):
    folder = device().parent
    for path in (folder, *folder.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.parametrize("profile", shipped_profiles())
def test_every_profile_makes_a_device(device, profile):
    assert load_agent(device(profile=profile)).profile == profile


def test_broker_without_tls_needs_no_certificates(device):
    broker = load_agent(device(certificates=None)).broker
    assert (broker.port, broker.tls) == (1883, None)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"device": "Kitchen Pi"}, "at `device`; it is 'Kitchen Pi'"),
        ({"device": "attic-pi"}, "attic-pi.crt: No such file"),
        ({"coordinator_key": "abc"}, "--coordinator-key: expected 64 hex digits"),
        ({"coordinator_key": "00" * 32}, "--coordinator-key is all zeros"),
        ({"profile": "pi-9"}, "edgeflock ships generic, helper, jetson-orin-nano, pi-3b, "),
        ({"port": 99999}, "argument --port: '99999' is not a whole number from 1 to 65535"),
        ({"broker": 'a"b'}, "at `broker.host`; it is 'a\"b'"),
        ({"fleet": 'home"\nshard = "1'}, "at `fleet`; it is"),
        ({"device": "k\udcff"}, "not valid TOML"),
        ({"broker": "broker..example"}, "at `broker.host`; it is 'broker..example'"),
        ({"task": "my task"}, "at `tasks[0].name`; it is 'my task'"),
    ],
)
def test_wrong_answer_is_one_line_and_nothing_is_written(device, tmp_path, capsys, changed, words):
    with pytest.raises(SystemExit) as ended:
        device(**changed)
    said = capsys.readouterr().err
    assert (ended.value.code, said.count("\n")) == (2, 1)
    assert words in said
    assert not (tmp_path / "etc").exists()


def test_setup_writes_nothing_that_the_agent_would_not_start_with(tmp_path, capsys):
    file = tmp_path / "etc" / "agent.toml"
    answers = ["--device", "kitchen-pi", "--broker", "broker.example", "--coordinator-key", COORDINATOR]
    with pytest.raises(SystemExit):
        agent_cli.main(["setup", "--config", str(file), *answers, "--task", "digits", "--task", "digits"])
    assert "a task is listed twice in ['digits', 'digits']" in capsys.readouterr().err
    assert not file.parent.exists()


def test_folder_that_can_not_be_made_is_named_with_what_helps(device, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        device(config=tmp_path / "file" / "agent.toml")
    assert "file: File exists; name another folder with --config" in capsys.readouterr().err


def test_configuration_that_is_there_stays_and_so_does_a_key(device, capsys):
    file = device()
    key = (file.parent / "agent.key").read_text()
    with pytest.raises(SystemExit):
        device(fleet="other")
    assert "exists and stays as it is" in capsys.readouterr().err
    assert load_agent(file).fleet == "home"
    file.unlink()
    assert load_agent(device(fleet="other")).fleet == "other"
    assert (file.parent / "agent.key").read_text() == key


def test_coordinator_has_what_it_needs_and_tells_the_key_that_devices_pin(tmp_path, certificates, capsys):
    file = tmp_path / "etc" / "coordinator.toml"
    options = ["--config", str(file), "--broker", "broker.example", "--certificates", str(certificates)]
    assert coordinator_cli.main(["setup", *options]) == 0
    configuration = load_coordinator(file)
    assert (configuration.fleet, configuration.enrolment, configuration.broker.port) == ("home", "closed", 8883)
    tls = configuration.broker.tls
    assert tls.key.read_text() == "content of broker-coordinator.key"
    public = write_verify_key(configuration.keys()[0].verify_key)
    assert f"every device pins this public key: {public}" in capsys.readouterr().out


def test_helper_has_its_own_folders_and_is_told_the_commands_that_let_it_serve(tmp_path, capsys):
    file = tmp_path / "etc" / "helper.toml"
    answers = ("--device", "cellar-pi", "--broker", "broker.example", "--coordinator-key", COORDINATOR)
    helper_cli.main(["--config", str(file), "setup", *answers, "--task", "mnist_cnn", "--profile", "helper"])
    configuration = load_helper_configuration(file)
    assert (str(configuration.state_folder), str(configuration.sample_socket)) == (
        "/var/lib/edgeflock-helper",
        "/run/edgeflock-helper/status.sock",
    )
    assert [task.name for task in configuration.tasks] == ["mnist_cnn"]
    assert configuration.worker == read_profile("helper").worker
    said = capsys.readouterr().out
    key = write_verify_key(read_key_file(configuration.key_file, "edgeflock-helper").verify_key)
    assert f"broker-coordinator devices approve cellar-pi {key}" in said
    assert "broker-coordinator helpers allow cellar-pi" in said
