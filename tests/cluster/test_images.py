"""What the images hold, from their layers, and how they run: as pods with a read-only root, under Pod Security."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.cluster import containers, lifecycle
from tests.cluster.oci import builder
from tests.cluster.oci.layout import Image

pytestmark = pytest.mark.usefixtures("images")

BARE = ("gateway", "agent", "operator")
SBOM = "usr/share/sbom/koinon.cdx.json"
SITE = "opt/koinon/lib/python3.11/site-packages"
SHELLS = {"ash", "bash", "busybox", "dash", "sh", "zsh"}
INSTALLERS = {"apt", "apt-get", "dpkg", "easy_install", "pip", "pip3", "pipx", "uv"}
WITHOUT_GPU = re.compile(r"cuda|nvidia|triton")
MB = 1e6

each = pytest.mark.parametrize("target", builder.TARGETS)
bare = pytest.mark.parametrize("target", BARE)


def image(target: str) -> Image:
    if lifecycle.users_own():
        pytest.skip("the images of a cluster of the user's own are in its registry")
    return builder.layout().image(builder.name(target))


def commands(target: str) -> set[str]:
    """Names of the programs in an image."""
    return {
        Path(name).name for name, entry in image(target).files().items() if entry.mode & 0o111 and not entry.isdir()
    }


@each
def test_no_image_runs_as_root(target: str) -> None:
    assert image(target).settings["User"] == "65532:65532"
    raised = [name for name, entry in image(target).files().items() if entry.isfile() and entry.mode & 0o6000]
    assert target == "worker" or not raised


@bare
def test_no_shell_where_none_is_needed(target: str) -> None:
    assert not commands(target) & SHELLS


def test_worker_has_what_kuberay_calls() -> None:
    assert {"bash", "wget", "grep", "sleep", "ray", "python"} <= commands("worker")


@each
def test_nothing_can_be_installed(target: str) -> None:
    system = {"apt", "apt-get", "dpkg"} if target == "worker" else set()  # Debian's own, which nobody but root can use
    assert not commands(target) & (INSTALLERS - system)
    modules = [n for n in image(target).files() if re.search(r"/(ensurepip|pip|uv)/__init__\.py$|\.whl$", n)]
    assert not modules


@each
def test_labels_say_what_it_is(target: str) -> None:
    labels = image(target).settings["Labels"]
    standard = {key.removeprefix("org.opencontainers.image."): value for key, value in labels.items()}
    assert standard["title"] == f"koinon-{target}"
    assert standard["licenses"] == "Apache-2.0"
    assert standard["version"] == builder.version()
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", standard["revision"])
    assert standard["source"].startswith("https://")
    assert labels["dev.koinon.sbom"] == f"/{SBOM}"


@each
def test_nothing_of_the_machine_that_built_it(target: str) -> None:
    found = image(target)
    assert builder.AUTHORITY not in json.dumps(found.config)
    strange = [str(builder.ROOT).encode(), str(Path.home()).encode() + b"/.", b"/rootfs/", b"/source/", b"/package/"]
    compiled = [n for n in found.files() if re.search(r"site-packages/koinon(_operator)?/.*\.pyc$", n)]
    assert len(compiled) > 10
    for name in compiled:
        content = found.read(name)
        assert b"/opt/koinon/lib/python3" in content, name
        assert not [path for path in strange if path in content], name


@each
def test_only_code_that_is_needed(target: str) -> None:
    inside = {n.removeprefix(f"{SITE}/") for n in image(target).files() if n.startswith(f"{SITE}/koinon")}
    packages = {name.split("/")[0] for name in inside}
    parts = {name.split("/")[1] for name in inside if name.startswith("koinon/") and "." not in name.split("/")[1]}
    assert not [n for n in image(target).files() if re.match(r"(.*/)?(tests|bench|locks|\.git)/.*koinon", n)]
    if target == "operator":
        assert {"koinon", "koinon_operator"} <= packages
        assert parts <= {"domain", "__pycache__"}
    else:
        assert "koinon_operator" not in packages
        assert {"agent", "cli", "domain", "gateway", "trainer"} <= parts


@each
def test_a_change_of_our_code_changes_one_small_layer(target: str) -> None:
    layers = image(target).layers
    assert layers[-1]["size"] < 8 * MB
    assert f"{SITE}/koinon/__init__.py" in image(target).names_in(-1)
    assert not [n for n in image(target).names_in(*range(len(layers) - 1)) if n.startswith(f"{SITE}/koinon")]


def test_bare_images_share_the_system_below() -> None:
    assert len({image(target).layers[0]["digest"] for target in BARE}) == 1


@each
def test_list_of_parts_is_whole(target: str) -> None:
    found = image(target)
    listed = json.loads(found.read(SBOM))
    assert (listed["bomFormat"], listed["metadata"]["component"]["name"]) == ("CycloneDX", "koinon")
    purls = {part["purl"] for part in listed["components"] if "purl" in part}
    python = {(canonicalize_name(p["name"]), p["version"]) for p in listed["components"] if _is_python(p)}
    assert python == locked(target)
    assert python == installed(found)
    debian = {unquote(match[1]) for purl in purls if (match := re.match(r"pkg:deb/debian/([^@]+)@", purl))}
    assert {"libc6", "ca-certificates", "libssl3", "python3.11-minimal"} <= debian
    if target in BARE:
        assert debian == {Path(name).name for name in found.files() if "dpkg/status.d/" in name}  # for scanners


def _is_python(part: dict[str, Any]) -> bool:
    return str(part.get("purl", "")).startswith("pkg:pypi/")


def locked(target: str) -> set[tuple[str, str]]:
    """Distributions that the lock names for this Python on Linux, without those that only a GPU needs."""
    lines = (builder.ROOT / f"locks/{target}.txt").read_text().splitlines()
    entries = [Requirement(line.rstrip(" \\")) for line in lines if re.match(r"[a-z0-9]", line)]
    environment = {"python_version": "3.11", "python_full_version": "3.11.2", "sys_platform": "linux"}
    wanted = [e for e in entries if not e.marker or e.marker.evaluate(environment)]
    return {(canonicalize_name(e.name), str(e.specifier)[2:]) for e in wanted if not WITHOUT_GPU.match(e.name)}


def installed(found: Image) -> set[tuple[str, str]]:
    """Distributions whose records are in the image, but for our own."""
    names = {match for name in found.files() if (match := re.match(rf"{SITE}/([^/]+)-([^/]+)\.dist-info/", name))}
    return {(canonicalize_name(match[1]), match[2]) for match in names if match[1] != "koinon"}


def test_sizes() -> None:
    """Unpacked bounds stand a tenth above what was measured. As pulled, gateway and agent are far below 300 MB."""
    bounds = {"gateway": 490, "agent": 400, "operator": 340, "worker": 2400}
    for target, bound in bounds.items():
        pulled = image(target).packed() if target in ("gateway", "agent") else None
        print(f"{target}: {image(target).size / MB:.0f} MB unpacked", f"{pulled / MB:.0f} MB pulled" if pulled else "")
        assert image(target).size < bound * MB
        assert pulled is None or pulled < 300 * MB


PROBE = """
import importlib, importlib.metadata, json, os, pathlib, sys
refused = []
for path in ("/probe", "/opt/koinon/probe", "/etc/probe"):
    try: open(path, "w")
    except OSError as error: refused.append(error.strerror)
open("/tmp/probe", "w").close()
failed = {}
for name in sys.argv[1:]:
    try: importlib.import_module(name)
    except Exception as error: failed[name] = repr(error)
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
cached = {name: getattr(module, "__cached__", None) for name, module in sys.modules.items()}
uncompiled = [name for name, path in cached.items() if isinstance(path, str) and not os.path.exists(path)]
print(json.dumps({"user": os.getuid(), "home": os.environ["HOME"], "capabilities": status["CapEff"],
                  "refused": refused, "failed": failed, "uncompiled": uncompiled}))
"""
IMPORTS = {
    "gateway": ["koinon.gateway.serve", "koinon.protection.ring", "psycopg", "minio", "uvloop", "httptools", "alembic"],
    "agent": ["koinon.agent.serve", "koinon.protection.ring", "koinon.cli.main", "ssl", "sqlite3"],
    "operator": ["koinon.domain.grant", "koinon_operator.__main__", "kopf", "kubernetes.client", "prometheus_client"],
    "worker": ["koinon.trainer.server", "ray.dashboard.dashboard", "ray.job_submission", "sklearn.linear_model"],
}


@each
def test_runs_with_a_read_only_root(target: str, new_namespace: Callable[[str], str]) -> None:
    """Its compiled functions, too: numba keeps what it compiles, and may do so in /tmp alone."""
    command = ["python", "-W", "ignore", "-c", PROBE, *IMPORTS[target]]
    code, text = containers.run(new_namespace("image"), target, command, seconds=180)
    assert code == 0, text
    told = json.loads(text.splitlines()[-1])
    assert told["failed"] == {}
    assert (told["user"], told["home"], int(told["capabilities"], 16)) == (65532, "/tmp", 0)
    assert told["refused"] == ["Read-only file system"] * 3
    assert told["uncompiled"] == []  # each start would compile them again


@pytest.mark.parametrize(
    ("target", "arguments", "answer"),
    [
        ("gateway", ["--help"], "Usage: koinon hub serve"),
        ("agent", ["--help"], "Usage: koinon site serve"),
        ("operator", [], "KOINON_NAMESPACE"),  # its settings come from the environment: it says which is missing
    ],
)
def test_entrypoint_answers(
    target: str, arguments: list[str], answer: str, new_namespace: Callable[[str], str]
) -> None:
    code, text = containers.run(new_namespace("entry"), target, arguments=arguments)
    assert answer in text
    assert (code == 0) == bool(arguments)
    assert "Traceback" not in text


STEP = """
import hashlib, json, numpy, torch
torch.manual_seed(7)
torch.set_num_threads(1)
model = torch.nn.Sequential(torch.nn.Linear(13, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
optimiser = torch.optim.Adam(model.parameters())
records, answers = torch.randn(256, 13), torch.rand(256, 1).round()
for _ in range(20):
    loss = torch.nn.functional.binary_cross_entropy_with_logits(model(records), answers)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
weights = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
weights += numpy.linalg.svd(records.numpy())[0].tobytes()
told = {"sha256": hashlib.sha256(weights).hexdigest(), "torch": torch.__version__, "gpus": torch.cuda.device_count()}
print(json.dumps(told))
"""


def test_worker_without_cuda_trains_as_this_machine_does(new_namespace: Callable[[str], str]) -> None:
    """To the bit: the run on a cluster must end with the embedded run's model."""
    here = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, check=True, timeout=120).stdout
    code, there = containers.run(new_namespace("train"), "worker", ["python", "-W", "error", "-c", STEP], seconds=120)
    assert code == 0, there
    assert json.loads(there.splitlines()[-1]) == json.loads(here)
    assert json.loads(here)["gpus"] == 0
    assert not [name for name in image("worker").files() if re.match(rf"{SITE}/(nvidia|triton)/", name)]
