"""A TCP relay on this machine: the hub's address outside the cluster, as hospitals see it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

BLOCK = 2**16


@contextmanager
def relay(host: str, target: tuple[str, int]) -> Iterator[int]:
    """Passes on what connects to `host` at the port that it yields. `target` may come and go."""
    with socket.create_server((host, 0), backlog=128) as listener:
        threading.Thread(target=_accept, args=(listener, target), daemon=True).start()
        yield int(listener.getsockname()[1])


def _accept(listener: socket.socket, target: tuple[str, int]) -> None:
    with suppress(OSError):  # the listener was closed
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(client, target), daemon=True).start()


def _serve(client: socket.socket, target: tuple[str, int]) -> None:
    with closing(client), suppress(OSError), socket.create_connection(target, timeout=10) as server:
        server.settimeout(None)
        back = threading.Thread(target=_copy, args=(server, client), daemon=True)
        back.start()
        _copy(client, server)
        back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while block := source.recv(BLOCK):
            sink.sendall(block)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
