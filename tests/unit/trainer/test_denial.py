"""What a Ray pod's init container calls reachable: tried on real sockets of this machine."""

import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from koinon.trainer import denial


@contextmanager
def tcp(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as server:
        yield server.getsockname()[1]


@contextmanager
def name_server(answers: bool = True) -> Iterator[int]:
    """UDP on loopback that refuses each question, or hears it and says nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.05)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                try:
                    asked, caller = server.recvfrom(512)
                except TimeoutError:
                    continue
                number, flags, questions = struct.unpack(">HHH", asked[:6])
                assert (flags, questions, len(asked)) == (0x0100, 1, 17)
                if answers:
                    server.sendto(struct.pack(">HHHHHH", number, 0x8005, 0, 0, 0, 0), caller)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            over.set()
            thread.join()


def closed() -> int:
    with tcp() as port:
        return port


def run(log: Path, *arguments: str, seconds: str = "0.5", patience: str = "0") -> tuple[int, str]:
    code = denial.main([*arguments, "--seconds", seconds, "--patience", patience, "--log", str(log)])
    return code, log.read_text()


def test_nothing_that_answers_is_a_success(tmp_path: Path) -> None:
    with name_server(answers=False) as silent:
        code, said = run(tmp_path / "log", f"127.0.0.1:{closed()} 127.0.0.1:{silent}/udp", f"127.0.0.1:{closed()}/udp")
    assert (code, said) == (0, "denied: 3 addresses\n")


def test_what_answers_is_named_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tcp() as port, name_server() as names, name_server(answers=False) as silent:
        given = f"127.0.0.1:{closed()} 127.0.0.1:{port} 127.0.0.1:{names}/udp 127.0.0.1:{silent}/udp"
        code, said = run(tmp_path / "log", given)
    assert (code, said) == (1, f"reachable: 127.0.0.1:{port} 127.0.0.1:{names}/udp\n")
    assert capsys.readouterr().out == said


def test_ipv6_and_names(tmp_path: Path) -> None:
    with tcp("::1") as port:
        assert run(tmp_path / "log", f"[::1]:{port}")[0] == 1
    assert run(tmp_path / "log", f"[::1]:{port}")[0] == 0
    with tcp() as port:
        assert run(tmp_path / "log", f"localhost:{port}/tcp")[0] == 1
    assert run(tmp_path / "log", "no-such-name.invalid:443")[0] == 0


@pytest.mark.parametrize("wrong", ["nothing", "127.0.0.1", ":53", "127.0.0.1:0", "127.0.0.1:65536", "10.0.0.1:53/icmp",
                                   "udp:10.0.0.1:x", " "])  # fmt: skip
def test_a_wrong_address_is_neither_denied_nor_reached(tmp_path: Path, wrong: str) -> None:
    assert run(tmp_path / "log", wrong)[0] == 2


def test_a_policy_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Timer(1.0, listener.close).start()
    began = time.monotonic()
    assert run(tmp_path / "log", f"127.0.0.1:{listener.getsockname()[1]}", patience="20")[0] == 0
    assert 1.0 <= time.monotonic() - began < 10


def test_what_opens_a_moment_later_is_seen(tmp_path: Path) -> None:
    port = closed()
    listeners: list[socket.socket] = []
    threading.Timer(0.5, lambda: listeners.append(socket.create_server(("127.0.0.1", port)))).start()
    try:
        assert run(tmp_path / "log", f"127.0.0.1:{port}", seconds="3")[0] == 1
    finally:
        listeners[0].close()


def test_many_are_tried_side_by_side(tmp_path: Path) -> None:
    with name_server(answers=False) as silent:
        began = time.monotonic()
        code, _ = run(tmp_path / "log", *[f"127.0.0.1:{silent}/udp"] * 20, seconds="1")
    assert code == 0
    assert time.monotonic() - began < 5


def test_as_a_command_it_needs_nothing_installed_and_no_disk() -> None:
    with tcp() as port:
        command = [sys.executable, "-S", "-c", "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
                   "import runpy; runpy.run_module('koinon.trainer.denial', run_name='__main__')",
                   str(Path(denial.__file__).parents[2]), f"127.0.0.1:{port}", "--patience", "0",
                   "--log", "/nowhere/termination-log"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, f"reachable: 127.0.0.1:{port}\n"), done.stderr
