"""The broker's password and TLS files: read where the configuration names them, and named where they can't be used."""

import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from fleet_host.broker_settings import BrokerSettings, TlsSettings, read_password
from fleet_protocol.configuration import parse_document
from fleet_protocol.errors import ConfigurationError

VALIDITY = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2120, 1, 1, tzinfo=UTC))


def with_tls(*files: Path | None) -> BrokerSettings:
    return BrokerSettings("broker.local", tls=TlsSettings(*files))


@pytest.mark.parametrize(
    "host",
    ["broker.example", "localhost", "my_broker", "10.0.0.7", "broker.example.", "::1", "fe80::1%eth0", "a" * 63 + ".b"],
)
def test_names_and_addresses_are_hosts(host):
    assert parse_document(f'host = "{host}"', BrokerSettings, "agent.toml").host == host
    host.encode("idna")


@pytest.mark.parametrize(
    "host",
    ["", "broker..example", ".broker", "a" * 64, ".".join(["a" * 63] * 5), "mqtt://broker.example",
     "broker.example:1883", "[::1]", "bröker.example", "broker example", " broker", "-broker", "broker\\n"],
)  # fmt: skip
def test_what_no_resolver_takes_is_refused_in_words(host):
    with pytest.raises(ConfigurationError, match=r"agent\.toml: Expected a host name such as .* at `host`"):
        parse_document(f'host = "{host}"', BrokerSettings, "agent.toml")


def test_password_is_the_files_text_without_its_line_end(tmp_path):
    file = tmp_path / "password"
    file.write_text("pässword \n", encoding="utf-8")
    assert BrokerSettings("broker.local", password_file=file).password() == "pässword"


def test_broker_without_password_and_tls_needs_no_file():
    assert BrokerSettings("broker.local").password() is None
    assert BrokerSettings("broker.local").tls_context() is None


@pytest.mark.parametrize(
    "content",
    [None, b"\xff\xfe", b"x" * 65536, b"pass\0word"],
    ids=["missing", "not UTF-8", "longer than MQTT can say", "NUL"],
)
def test_password_that_can_not_be_read_is_named_by_key_and_file(tmp_path, content):
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"database_password_file {file}: "):
        read_password(file, "database_password_file")


def certificate() -> tuple[bytes, bytes]:
    """A certificate that signed itself, and its key, as PEM."""
    key, name = Ed25519PrivateKey.generate(), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker.local")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), *VALIDITY)
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return builder.sign(key, None).public_bytes(pem), private


def test_broker_is_checked_against_the_authority_and_shown_our_certificate(tmp_path):
    authority, own, key = (tmp_path / name for name in ("ca.pem", "device.pem", "device.key"))
    authority.write_bytes(certificate()[0])
    for file, content in zip((own, key), certificate(), strict=True):
        file.write_bytes(content)
    for context in (with_tls(authority).tls_context(), with_tls(authority, own, key).tls_context()):
        assert context is not None
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
        assert context.cert_store_stats()["x509"] == 1


def test_certificate_of_another_key_is_refused(tmp_path):
    files = [tmp_path / name for name in ("ca.pem", "device.pem", "device.key")]
    for file, content in zip(files, (certificate()[0], certificate()[0], certificate()[1]), strict=True):
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"broker\.tls: .*MISMATCH"):
        with_tls(*files).tls_context()


def test_files_that_are_no_certificates_are_named(tmp_path):
    authority = tmp_path / "ca.pem"
    with pytest.raises(ConfigurationError, match=rf"broker\.tls: .*No such file.* is PEM: {authority}"):
        with_tls(authority).tls_context()
    authority.write_text("no certificate")
    with pytest.raises(ConfigurationError, match=f"is PEM: {authority}"):
        with_tls(authority).tls_context()


def test_key_without_its_certificate_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="name its certificate too"):
        with_tls(tmp_path / "ca.pem", None, tmp_path / "device.key").tls_context()


def test_key_with_a_passphrase_is_refused_and_nobody_is_asked(tmp_path):
    authority, own, key = (tmp_path / name for name in ("ca.pem", "device.pem", "device.key"))
    authority.write_bytes(certificate()[0])
    own.write_bytes(certificate()[0])
    locked = serialization.BestAvailableEncryption(b"secret")
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key.write_bytes(Ed25519PrivateKey.generate().private_bytes(pem, form, locked))
    with pytest.raises(ConfigurationError, match="protected by a passphrase"):
        with_tls(authority, own, key).tls_context()


def test_longest_password_that_mqtt_can_say_is_read(tmp_path):
    file = tmp_path / "password"
    file.write_bytes(b"x" * 65535)
    assert read_password(file, "broker.password_file") == "x" * 65535


def test_username_is_no_longer_than_mqtt_can_say():
    longest = "\U0001f600" * 16383
    assert (
        parse_document(f'host = "broker.local"\nusername = "{longest}"', BrokerSettings, "agent.toml").username
        == longest
    )
    with pytest.raises(ConfigurationError, match=r"1 to 16383 characters in one line - at `username`; it is 'uuu"):
        parse_document(f'host = "broker.local"\nusername = "{"u" * 16384}"', BrokerSettings, "agent.toml")
