"""The test node: whether this machine can run it, its start and its end (the scripts of tests/cluster/node)."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

_SCRIPTS = Path(__file__).parent / "node"
_START_SECONDS = 300


@cache
def environment() -> dict[str, str]:
    """This process's, as it was, with what env.sh sets: where kubectl, helm and the node find their files."""
    command = ["bash", "-c", '. "$0"; export CACHE RUN; env -0', str(_SCRIPTS / "env.sh")]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    pairs = (entry.partition("=") for entry in listed.rstrip("\0").split("\0"))
    return {name: value for name, _, value in pairs}


def users_own() -> bool:
    """Whether KUBECONFIG names a cluster that is not the test node."""
    return os.environ.get("KUBECONFIG", environment()["KUBECONFIG"]) != environment()["KUBECONFIG"]


def folder() -> Path:
    """Of the node's programs and images, which stay."""
    return Path(environment()["CACHE"])


def obstacle() -> str | None:
    """Why the node cannot run on this machine; nothing if it can."""
    if os.geteuid() != 0:
        return "the test node needs root"
    if shutil.which("kubelet", path=environment()["PATH"]) is None:
        return "the test node is not built: make cluster-up does, or tests/cluster/node/build.sh"
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"the test node needs namespaces of its own: {done.stderr.strip()}" if done.returncode else None


def is_up() -> bool:
    return process() is not None


def process() -> int | None:
    """The node's process 1, as this machine numbers it; it holds the node's namespaces."""
    outer = Path(environment()["RUN"]) / "pid" / "unshare"
    if not outer.exists():
        return None
    command = ["pgrep", "-P", outer.read_text().strip(), "-f", str(_SCRIPTS / "node.sh")]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return int(found[0]) if found else None


def start() -> None:
    """Returns when all is ready. Raises RuntimeError with the script's words and the logs' ends otherwise."""
    try:
        _script("up.sh")
    except RuntimeError as error:
        raise RuntimeError(f"{error}\n{_logs()}") from None


def stop() -> None:
    _script("down.sh")


def restart(part: str) -> None:
    """Kills `kubelet`, `containerd`, `etcd`, `apiserver` …; the node starts it again."""
    _script("restart.sh", part)


def load(*archives: Path) -> None:
    """Imports docker or OCI archives into the node, unless it has their images."""
    _script("images.sh", "import", *map(str, archives))


def _script(name: str, *arguments: str) -> None:
    command = [str(_SCRIPTS / name), *arguments]
    # Into a file: what a script leaves running would hold a pipe open.
    with (folder() / f"{name}.log").open("w+") as log:
        code = subprocess.run(command, stdout=log, stderr=log, check=False, timeout=_START_SECONDS).returncode
        log.seek(0)
        if code:
            raise RuntimeError(f"{' '.join(command)}: {log.read()[-2_000:]}")


def _logs() -> str:
    logs = sorted((Path(environment()["RUN"]) / "log").glob("*"))
    return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-500:]}" for log in logs)
