"""Bearer tokens: what lets in, how a file of them is rotated, what is refused at start."""

import pytest

from kat_otel.config import AuthConfig
from kat_otel.errors import ConfigError
from kat_otel.processor import auth
from kat_otel.processor.auth import Authenticator


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(auth, "_CHECK_EVERY_S", 0.0)
    return tmp_path / "tokens"


def from_file(file) -> Authenticator:
    return Authenticator(AuthConfig(token_file=str(file)), "receiver.auth")


def test_without_settings_everybody_may_call():
    assert Authenticator(None).allows(None)
    assert Authenticator(None).allows("Bearer anything")


@pytest.mark.parametrize("header", ["Bearer secret", "bearer secret", "BEARER  secret "])
def test_the_token_lets_in(header):
    assert Authenticator(AuthConfig(token="secret")).allows(header)


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "secret", "Bearer", "Bearer ", "Basic secret", "Bearer secre"),
        *("Bearer secret x", "Bearer Secret", "Bearersecret", "Bearer sécret", "Bearer \udcff"),
    ],
)
def test_anything_else_does_not(header):
    assert not Authenticator(AuthConfig(token="secret")).allows(header)


def test_every_line_of_the_file_is_a_token_and_the_setting_too(file):
    file.write_text("one\n\n  two  \n")
    authenticator = Authenticator(AuthConfig(token="three", token_file=str(file)))
    for token in ("one", "two", "three"):
        assert authenticator.allows(f"Bearer {token}")
    assert not authenticator.allows("Bearer ")


def test_a_changed_file_counts_at_once(file):
    file.write_text("old\n")
    authenticator = from_file(file)
    replacement = file.with_suffix(".new")
    replacement.write_text("new\n")
    replacement.replace(file)  # as secrets are mounted: a rename, same size
    assert authenticator.allows("Bearer new")
    assert not authenticator.allows("Bearer old")


@pytest.mark.parametrize("content", [None, "", "\n \n", b"\xff\xfe"])
def test_a_file_in_the_middle_of_its_replacement_locks_nobody_out(file, content, caplog):
    # A collector that is told "unauthenticated" drops its spans for good.
    file.write_text("old\n")
    authenticator = from_file(file)
    if content is None:
        file.unlink()
    elif isinstance(content, bytes):
        file.write_bytes(content)
    else:
        file.write_text(content)
    assert authenticator.allows("Bearer old")
    assert "its last tokens stay" in caplog.text
    file.write_text("new-one\n")
    assert authenticator.allows("Bearer new-one")


def test_a_file_that_cannot_be_read_is_an_error_at_start(file):
    with pytest.raises(ConfigError, match=r"receiver\.auth\.token_file: .*tokens cannot be read"):
        from_file(file)
    file.write_bytes(b"secret\xff")
    with pytest.raises(ConfigError, match="not UTF-8") as caught:
        from_file(file)
    assert caught.value.__cause__ is None  # its text would quote the file
    assert "secret" not in str(caught.value)


def test_no_token_at_all_is_an_error_and_not_an_open_door(file):
    file.write_text("\n")
    for settings in (AuthConfig(), AuthConfig(token=" "), AuthConfig(token_file=str(file))):
        with pytest.raises(ConfigError, match=r"receiver\.auth: there is no token"):
            Authenticator(settings, "receiver.auth")


def test_a_representation_has_no_token(file):
    file.write_text("from-file\n")
    settings = AuthConfig(token="from-settings", token_file=str(file))
    shown = repr(settings) + str(settings) + repr(Authenticator(settings))
    assert "from-settings" not in shown
    assert "from-file" not in shown
