"""A hub and hospitals on the cluster as people install them: Helm, kubectl and `koinon`, nothing else."""

import base64
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from koinon.client.http import Connection
from koinon.client.hub import Hub
from koinon.client.projects import Project
from koinon.data import heart
from tests.cluster import kubectl, kuberay, pods
from tests.cluster.federation import relay

CHARTS = Path(__file__).parents[3] / "charts"
OUTSIDE = "198.51.100.2"  # this machine's end of the link to the test node
SITES = ("budapest", "cleveland", "zurich")
# One core for each head would leave none for what is measured.
SMALL = ["--set", "worker.requestPercent=10", "--set", "agent.resources.requests.cpu=20m"]


@dataclass
class League:
    """`seconds` are the parts of the installation in their order."""

    folder: Path
    prefix: str
    url: str = ""
    ca: Path = Path()
    hub: Hub = field(default_factory=lambda: Hub(Connection("https://unset.invalid")))
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def hub_namespace(self) -> str:
        return f"{self.prefix}-hub"

    def home(self, site: str) -> str:
        return f"{self.prefix}-{site}"

    def work(self, site: str) -> str:
        return f"{self.home(site)}-work"

    def root_key(self, site: str) -> Path:
        return self.folder / site / "root" / "root.key"

    def gateway(self, *command: str) -> str:
        """What a command prints in the gateway's pod."""
        return kubectl.execute(self.hub_namespace, "hub-koinon-hub-0", *command, seconds=120)

    def plugin(self, *arguments: str, seconds: float = 180) -> str:
        """What `kubectl koinon` prints. Raises AssertionError with its words if it fails."""
        return _run(["kubectl", "koinon", *arguments], seconds)

    def grant(self, project: Project, site: str, *options: str) -> None:
        key = str(self.root_key(site))
        self.plugin("grant", project.hash, "-n", self.home(site), "--root-key", key, "--vouch-all", "--yes", *options)

    def wait_for_manifest(self, project: Project, site: str) -> None:
        wait_for_manifest(self.home(site), project.hash)

    def clusters_ready(self, project: Project, sites: Sequence[str] = SITES, seconds: float = 300) -> None:
        mark = f"p-{project.hash[:12]}"
        for site in sites:
            kubectl.until(
                lambda site=site: _condition(self.grant_of(project, site), "Ready") == "True",  # type: ignore[misc]
                f"{mark} of {site} is Ready: {self.grant_of(project, site).get('status')}",
                seconds=seconds,
            )

    def grant_of(self, project: Project, site: str) -> dict[str, Any]:
        return kubectl.required("grants.koinon.dev", f"{project.name}-{project.hash[:8]}", self.home(site))


def _condition(found: dict[str, Any], kind: str) -> str:
    conditions = found.get("status", {}).get("conditions", [])
    return next((entry["status"] for entry in conditions if entry["type"] == kind), "")


@contextmanager
def installed(folder: Path, prefix: str, sites: Sequence[str] = SITES) -> Iterator[League]:
    """A federation of `sites` with the shipped heart data; uninstalled and removed at the end."""
    league = League(folder, prefix)
    with ExitStack() as stack:
        stack.callback(_remove, league, sites)
        with _timed(league, "helm install hub"):
            _install_hub(league, stack)
        with _timed(league, "helm install sites"), ThreadPoolExecutor(len(sites)) as threads:
            _install_site(league, sites[0], brings_kinds=kubectl.get("crd", "grants.koinon.dev") is None)
            list(threads.map(lambda site: _install_site(league, site), sites[1:]))
        kuberay.watch(*(league.work(site) for site in sites))
        with _timed(league, "sites connected"):
            kubectl.until(lambda: len([s for s in league.hub.sites() if s.get("last_seen")]) == len(sites),
                          f"all of {', '.join(sites)} answer the hub", seconds=180)  # fmt: skip
        yield league


def _install_hub(league: League, stack: ExitStack) -> None:
    kubectl.helm(
        "install", "hub", str(CHARTS / "koinon-hub"), "--namespace", league.hub_namespace, "--create-namespace",
        "--set", f"image.registry={pods.REGISTRY}", "--set", "image.tag=test", "--set", "image.pullPolicy=IfNotPresent",
        "--set", "tls.generate=true", "--set", f"tls.names={{{OUTSIDE}}}",
        "--set", "minio.enabled=true", "--set", "minio.image.repository=minio", "--set-string", "minio.image.tag=1",
        "--set", "postgresql.enabled=true", "--set", "postgresql.image.repository=postgresql",
        "--set-string", "postgresql.image.tag=1", "--set", "gateway.resources.requests.cpu=50m",
        "--wait", "--timeout=5m", seconds=320,
    )  # fmt: skip
    secret = kubectl.required("secret", "hub-koinon-hub-tls", league.hub_namespace)
    league.ca = league.folder / "hub-ca.crt"
    league.ca.write_bytes(base64.b64decode(secret["data"]["ca.crt"]))
    service = kubectl.required("service", "hub-koinon-hub", league.hub_namespace)
    port = stack.enter_context(
        relay.relay(OUTSIDE, (service["spec"]["clusterIP"], service["spec"]["ports"][0]["port"]))
    )
    league.url = f"https://{OUTSIDE}:{port}"
    told = json.loads(league.gateway("koinon", "user", "add", "ada", "--dir", "/var/lib/koinon", "--json"))
    identity = league.folder / "researcher.key"
    _run(["koinon", "key", "new", "--out", str(identity)], 60)
    league.hub = stack.enter_context(Hub(Connection(league.url, told["token"], ca=league.ca), identity=identity))


def _install_site(league: League, site: str, *, brings_kinds: bool = False) -> None:
    home, work, keys = league.home(site), league.work(site), league.folder / site
    for namespace in (home, work):
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}})
    _load_data(work, site)
    _run(["koinon", "site", "keys", str(keys), "--name", site], 60)
    public = (keys / "agent" / "root.pub").read_text().strip()
    invitation = json.loads(league.gateway("koinon", "hub", "invite", site, "--dir", "/var/lib/koinon", "--json"))
    _secret(home, "koinon-invitation", {"token": invitation[0]["token"].encode()})
    _secret(home, "koinon-agent", {path.name: path.read_bytes() for path in (keys / "agent").iterdir()})
    kubectl.run("-n", home, "create", "configmap", "hub-ca", f"--from-file=ca.crt={league.ca}")
    kubectl.helm(
        "install", "site", str(CHARTS / "koinon-site"), "--namespace", home,
        "--set", f"image.registry={pods.REGISTRY}", "--set", "image.tag=test", *SMALL,
        "--set", f"site.name={site}", "--set-string", f"site.root={public}",
        "--set", f"hub.url={league.url}", "--set", f"hub.cidrs={{{OUTSIDE}/32}}",
        "--set", "hub.ca.existingConfigMap=hub-ca", "--set", f"workNamespace.name={work}",
        "--set", "workNamespace.create=false", "--set", f"crds.install={str(brings_kinds).lower()}",
        "--set-json", 'datasets=[{"name":"heart","claimName":"heart","path":"heart.csv"}]',
        "--wait", "--timeout=5m", seconds=320,
    )  # fmt: skip


def _secret(namespace: str, name: str, data: dict[str, bytes]) -> None:
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    kubectl.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "data": encoded}
    )


def _load_data(namespace: str, site: str) -> None:
    """The hospital's claim with its file, written by a pod as its IT would."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "heart", "namespace": namespace},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}},
    }
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "heart"}}
    mounted = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    loader = pods.pod(namespace, "loader", container=mounted, volumes=[volume])
    kubectl.apply(claim, loader)
    kubectl.wait(namespace, "pod/loader", "condition=Ready", 120)
    text = heart.HOSPITALS[site].read_text()
    # Some servers lose what comes before the command has begun to read.
    write = ["exec", "-i", "loader", "--", "sh", "-c", "cat >/data/heart.csv; wc -c </data/heart.csv"]
    kubectl.until(
        lambda: int(kubectl.run("-n", namespace, *write, stdin=text)) == len(text.encode()), f"the data of {site}"
    )
    kubectl.run("-n", namespace, "delete", "pod", "loader", "--wait=true", "--grace-period=1")


def wait_for_manifest(home: str, manifest: str) -> None:
    """For the agent of a hospital to have received a project, by its hash."""
    path = f"/api/v1/namespaces/{home}/pods/koinon-agent-0:8472/proxy/v1/manifests/{manifest}"

    def there() -> bool:
        try:
            return bool(kubectl.run("get", "--raw", path))
        except kubectl.Failed:
            return False

    kubectl.until(there, f"the agent of {home} received the project {manifest[:12]}", seconds=60)


def _remove(league: League, sites: Sequence[str]) -> None:
    """Uninstalls in the order that people are told to; what it cannot do must not hide why a test failed."""
    for release, namespace in [*(("site", league.home(site)) for site in sites), ("hub", league.hub_namespace)]:
        try:
            kubectl.helm("uninstall", release, "--namespace", namespace, "--ignore-not-found", "--wait", seconds=200)
        except (kubectl.Failed, subprocess.TimeoutExpired) as error:
            print(f"uninstalling {release} in {namespace}: {error}")
    kuberay.unwatch(*(league.work(site) for site in sites))
    names = [league.hub_namespace, *(f(site) for site in sites for f in (league.home, league.work))]
    kubectl.run("delete", "namespace", *names, "--ignore-not-found", "--wait=false")


@contextmanager
def _timed(league: League, part: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    league.seconds[part] = round(time.monotonic() - began, 1)


def _run(command: list[str], seconds: float) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()} {done.stdout.strip()}"
    return done.stdout
