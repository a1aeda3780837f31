"""The command as people meet it: help, exit codes, one-line errors, JSON."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from koinon.cli.main import app
from koinon.client import http
from koinon.data import heart

VERBS = """
init check login grant revoke demo up
contract infer|contract show
project create|project list|project show
run submit|run watch|run list|run show|run cancel|run download|run compare|run delete
site init|site keys|site serve|site show|site doctor
hub serve|hub invite|hub backup|hub restore
user add|user list|user remove
key new|key show
"""
COMMANDS = [verb.split() for line in VERBS.split("\n") for verb in (line.split("|") if "|" in line else line.split())]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("KOINON_CONFIG", str(tmp_path / "config"))
    for name in ("KOINON_HUB", "KOINON_TOKEN", "KOINON_CA", "KOINON_KEY", "KOINON_DEBUG", "KOINON_INVITATION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return CliRunner()


def _run(cli: CliRunner, *words: str, input: str | None = None) -> Any:
    return cli.invoke(app, list(words), input=input)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_of_every_command_teaches_with_an_example(cli: CliRunner, words: list[str]) -> None:
    result = _run(cli, *words, "--help")
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"koinon {' '.join(words)}" in result.output


def test_every_command_is_in_the_list() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    found: list[list[str]] = []
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        found += [[name, verb] for verb in inner] if inner else [[name]]
    assert sorted(found) == sorted(COMMANDS)


@pytest.mark.parametrize(
    "words", [w for w in COMMANDS if w not in (["hub", "serve"], ["site", "serve"], ["up"])], ids=" ".join
)
def test_every_command_speaks_json(cli: CliRunner, words: list[str]) -> None:
    assert "--json" in _run(cli, *words, "--help").output


def test_exit_codes_are_documented(cli: CliRunner) -> None:
    output = _run(cli, "--help").output
    for code in ("0 done", "1 failed", "2 usage", "3 refused by a site", "4 waiting at the deadline"):
        assert code in output


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["run", "submti"], "submit"),
        (["run", "list", "--stat", "running"], "--state"),
        (["demo", "--rounds", "many"], "rounds"),
        (["demo", "--sites-down", "3"], "sites-down"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(cli: CliRunner, words: list[str], part: str) -> None:
    result = _run(cli, *words)
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert part in result.stderr
    assert "--help" in result.stderr
    assert "Traceback" not in result.output


def test_errors_say_what_to_do_in_text_and_in_json(cli: CliRunner) -> None:
    text = _run(cli, "run", "list")
    assert (text.exit_code, len(text.stderr.splitlines())) == (2, 1)
    assert "koinon login" in text.stderr
    told = json.loads(_run(cli, "run", "list", "--json").stderr)["error"]
    assert told["code"] == "unauthenticated"
    assert set(told) == {"code", "what", "where", "todo"}


def test_debug_shows_the_traceback(cli: CliRunner) -> None:
    assert _run(cli, "run", "list", "--debug").exception is not None


def test_a_hub_that_is_away_is_exit_1(cli: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOINON_HUB", "http://127.0.0.1:9")
    monkeypatch.setenv("KOINON_TOKEN", "t")
    monkeypatch.setattr(http, "pause", lambda _: 0.0)
    result = _run(cli, "project", "list")
    assert result.exit_code == 1
    assert result.stderr.startswith("http://127.0.0.1:9: ")


def test_infer_proposes_a_contract_that_show_accepts(cli: CliRunner, tmp_path: Path) -> None:
    proposed = _run(cli, "contract", "infer", str(heart.HOSPITALS["cleveland"]), "--target", "num")
    assert proposed.exit_code == 0
    (tmp_path / "c.yaml").write_text(proposed.stdout)
    shown = json.loads(_run(cli, "contract", "show", "c.yaml", "--json").stdout)
    assert shown["inputs"] == len(shown["features"]) > 10


def test_bad_contract_names_the_line(cli: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("columns: []\ncolumns: []\n")
    result = _run(cli, "contract", "show", "c.yaml")
    assert result.exit_code == 2
    assert "line 2" in result.stderr


def test_key_is_private_and_its_recipient_public(cli: CliRunner, tmp_path: Path) -> None:
    made = json.loads(_run(cli, "key", "new", "--json").stdout)
    assert made["recipient"].startswith("age1")
    file = Path(made["file"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    secret = next(line for line in file.read_text().splitlines() if line.startswith("AGE-SECRET-KEY"))
    shown = _run(cli, "key", "show")
    assert shown.stdout.strip() == made["recipient"]
    assert secret not in shown.output
    assert _run(cli, "key", "new").exit_code == 1


def test_a_sites_keys_are_made_offline_and_the_root_key_stays(cli: CliRunner, tmp_path: Path) -> None:
    made = _run(cli, "site", "keys", "our keys/lyon", "--name", "lyon")
    assert made.exit_code == 0, made.output
    root = (tmp_path / "our keys" / "lyon" / "root" / "root.key").read_text().strip()
    command = "kubectl create secret generic koinon-agent --namespace lyon --from-file='our keys/lyon/agent'"
    assert command in made.stdout.splitlines()
    told = json.loads(_run(cli, "site", "keys", "our keys/lyon", "--name", "lyon", "--json").stdout)
    assert (told["site"], told["epoch"], told["command"]) == ("lyon", 1, command)
    assert told["root"] in made.stdout
    assert told["fingerprint"] in made.stdout
    renewed = _run(cli, "site", "keys", "our keys/lyon", "--renew")
    assert "epoch 2" in renewed.stdout
    assert f"{command} --dry-run=client --output yaml | kubectl apply --filename -" in renewed.stdout.splitlines()
    assert root not in made.output + renewed.output
    assert _run(cli, "site", "keys", "our keys/lyon", "--name", "nice").exit_code == 1
    assert _run(cli, "site", "keys", "another").exit_code == 2


def test_tokens_are_stored_as_hashes_and_shown_once(cli: CliRunner, tmp_path: Path) -> None:
    added = _run(cli, "user", "add", "ana", "--dir", "hub")
    token = added.stdout.strip()
    assert len(token) >= 40
    assert token.encode() not in b"".join(p.read_bytes() for p in (tmp_path / "hub").glob("hub.sqlite*"))
    assert [u["name"] for u in json.loads(_run(cli, "user", "list", "--dir", "hub", "--json").stdout)] == ["ana"]
    assert _run(cli, "user", "add", "ana", "--dir", "hub").exit_code == 1
    assert _run(cli, "user", "remove", "ana", "--dir", "hub").exit_code == 0
    assert _run(cli, "user", "remove", "ana", "--dir", "hub").exit_code == 2


def test_invitations_go_to_private_files(cli: CliRunner, tmp_path: Path) -> None:
    result = _run(cli, "hub", "invite", "lyon", "nice", "--dir", "hub", "--out", "invitations", "--json")
    rows = json.loads(result.stdout)
    assert [row["site"] for row in rows] == ["lyon", "nice"]
    for row in rows:
        assert stat.S_IMODE(Path(row["file"]).stat().st_mode) == 0o600
        assert Path(row["file"]).read_text().strip() not in result.output


def test_backup_and_restore(cli: CliRunner) -> None:
    assert _run(cli, "user", "add", "ana", "--dir", "hub").exit_code == 0
    assert _run(cli, "hub", "backup", "copy.sqlite", "--dir", "hub").exit_code == 0
    assert _run(cli, "user", "remove", "ana", "--dir", "hub").exit_code == 0
    assert _run(cli, "hub", "restore", "copy.sqlite", "--dir", "hub").exit_code == 0
    assert "ana" in _run(cli, "user", "list", "--dir", "hub").stdout


def test_no_option_takes_a_secret() -> None:
    """A secret on a command line is in every process list: options may name files of secrets, never secrets."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    for command in _leaves(group):
        for parameter in command.params:
            for option in parameter.opts:
                name = option.strip("-")
                assert not any(word in name.split("-") for word in ("token", "password", "secret")) or name.endswith(
                    "file"
                )


def _leaves(command: Any) -> Iterator[Any]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield command
    for child in (inner or {}).values():
        yield from _leaves(child)


def test_login_reads_the_token_from_standard_input_and_never_shows_it(cli: CliRunner) -> None:
    result = _run(cli, "login", "http://127.0.0.1:9", "--token-file", "-", input="very-secret-token\n")
    assert result.exit_code == 1
    assert "very-secret-token" not in result.output


def test_login_refuses_plain_http_to_others(cli: CliRunner) -> None:
    result = _run(cli, "login", "http://hub.example.org", "--token-file", "-", input="t\n")
    assert result.exit_code == 2
    assert "https" in result.stderr


def test_help_starts_fast() -> None:
    """No framework is imported for help: neither pydantic, httpx, numpy nor rich."""
    code = (
        "import sys; sys.argv = ['koinon', '--help']\n"
        "from koinon.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'pydantic', 'httpx', 'numpy', 'rich', 'sqlalchemy', 'torch'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
