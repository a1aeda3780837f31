"""Secrets of a user: files of mode 0600, shown nowhere."""

import stat
from pathlib import Path

import pytest

from koinon.client import keyfile, settings
from koinon.domain import errors


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOINON_CONFIG", str(tmp_path / "config"))
    for name in ("KOINON_HUB", "KOINON_TOKEN", "KOINON_KEY"):
        monkeypatch.delenv(name, raising=False)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_login_is_kept_for_its_owner_alone() -> None:
    login = settings.Login("https://hub.example.org", "very-secret", "ab")
    path = settings.save_login(login)
    assert _mode(path) == 0o600
    assert settings.load_login() == login
    assert "very-secret" not in repr(login)


def test_environment_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    settings.save_login(settings.Login("https://hub.example.org", "a"))
    monkeypatch.setenv("KOINON_HUB", "http://127.0.0.1:1")
    monkeypatch.setenv("KOINON_TOKEN", "b")
    assert settings.load_login() == settings.Login("http://127.0.0.1:1", "b")


def test_without_a_login_the_error_says_what_to_do() -> None:
    with pytest.raises(errors.Unauthenticated, match="koinon login"):
        settings.load_login()


def test_key_is_never_written_over() -> None:
    path = settings.identity_path()
    recipient = keyfile.create(path)
    assert _mode(path) == 0o600
    with pytest.raises(errors.Conflict):
        keyfile.create(path)
    assert keyfile.recipient(path) == {"name": "researcher", "recipient": recipient}


def test_damaged_key_shows_nothing_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "bad.age"
    path.write_text("AGE-SECRET-KEY-1QQQQ\n")
    path.chmod(0o600)
    with pytest.raises(errors.Invalid) as caught:
        keyfile.load(path)
    assert "QQQQ" not in str(caught.value)
