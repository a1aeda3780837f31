"""In place of KubeRay and kubelet: pods for RayClusters of some namespaces, which no node takes, and what they report.

So the operator is tested against the real API server, with whatever pods a test wants to have.
"""

import threading
from collections.abc import Sequence

from koinon.domain.errors import Conflict, Forbidden, KoinonError, NotFound
from koinon_operator.kinds import POD, RAY_CLUSTER, Object
from koinon_operator.kube import Kube
from koinon_operator.names import HEAD, NODE, WORKER
from koinon_operator.objects.raycluster import replicas
from tests.unit.operator import samples


class Rays(threading.Thread):
    """`proven`, `ready`, `message`: what the pods that it makes report from then on. Deletes only surplus workers."""

    def __init__(self, kube: Kube, namespaces: Sequence[str]) -> None:
        super().__init__(daemon=True)
        self.kube = kube
        self.namespaces = list(namespaces)
        self.ready, self.proven, self.message = True, True, ""
        self._count = 0
        self._end = threading.Event()
        self.errors: list[str] = []

    def run(self) -> None:
        while not self._end.wait(0.1):
            for namespace in self.namespaces:
                clusters, _ = self.kube.list(RAY_CLUSTER, namespace)
                pods, _ = self.kube.list(POD, namespace)
                for cluster in clusters:
                    self._try(cluster, [pod for pod in pods if _of(pod, cluster)])

    def close(self) -> None:
        self._end.set()
        self.join()

    def _try(self, cluster: Object, pods: list[Object]) -> None:
        try:
            self._serve(cluster, pods)
        except (NotFound, Conflict):
            pass  # deleted meanwhile
        except Forbidden as error:
            if "exceeded quota" not in error.what:  # there is room later
                self.errors.append(str(error))
        except KoinonError as error:
            self.errors.append(str(error))

    def _serve(self, cluster: Object, pods: list[Object]) -> None:
        if not any(pod["metadata"]["labels"][NODE] == HEAD for pod in pods):
            self._make(cluster, HEAD)
        workers = [pod for pod in pods if pod["metadata"]["labels"][NODE] == WORKER]
        for _ in range(replicas(cluster) - len(workers)):
            self._make(cluster, WORKER)
        for pod in workers[replicas(cluster) :]:
            self.kube.delete(POD, pod["metadata"]["namespace"], pod["metadata"]["name"])

    def _make(self, cluster: Object, node: str) -> None:
        self._count += 1
        pod = samples.pod(cluster, node, suffix=f"{self._count:05d}")
        made = self.kube.create(POD, {key: value for key, value in pod.items() if key != "status"})
        self.report(made)

    def report(self, pod: Object) -> None:
        """The pod's status as it is to be now."""
        said = samples.pod_status(ready=self.ready, proven=self.proven, message=self.message)
        self.kube.patch_status(POD, pod["metadata"]["namespace"], pod["metadata"]["name"], said)


def _of(pod: Object, cluster: Object) -> bool:
    owners = pod["metadata"].get("ownerReferences") or []
    return any(owner["uid"] == cluster["metadata"]["uid"] for owner in owners)
