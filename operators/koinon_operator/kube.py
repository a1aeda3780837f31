"""The API server: the only module that touches the Kubernetes client.

`Kube` reads and writes whole objects as JSON. Writes are full replacements (PUT): of an object that the operator owns
nothing may stay that the operator did not name. Errors are those of `koinon.domain.errors`.
"""

import json
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import urllib3
from kubernetes import client, config

from koinon.domain import errors
from koinon_operator import metrics
from koinon_operator.kinds import EVENT, Kind, Object

MANAGER = "koinon-operator"
_TIMEOUT = (5.0, 30.0)
_BY_STATUS: dict[int, type[errors.KoinonError]] = {
    400: errors.Invalid,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    410: errors.Conflict,
    413: errors.TooLarge,
    422: errors.Invalid,
}


class Kube:
    """Calls raise NotFound, Conflict, Invalid, Forbidden, or Unavailable when the same call may work later."""

    def __init__(self, *, connections: int = 8) -> None:
        settings = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
        except config.ConfigException:
            # The library's own default is what the variable said when it was imported.
            file = os.environ.get("KUBECONFIG")
            config.load_kube_config(file, client_configuration=settings)  # type: ignore[no-untyped-call]
        settings.connection_pool_maxsize = connections
        self._client = client.ApiClient(settings)
        self._host = str(settings.host)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the API server."""
        parts = urlsplit(self._host)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        return self._call("GET", kind.path(namespace, name), kind)

    def list(self, kind: Kind, namespace: str, *, field: str = "", label: str = "") -> tuple[list[Object], str]:
        """The objects of a namespace, and the version of the list. `field`, `label`: selectors."""
        query = {name: text for name, text in (("fieldSelector", field), ("labelSelector", label)) if text}
        found = self._call("GET", kind.path(namespace), kind, query=query, verb="LIST")
        items: list[Object] = found.get("items") or []
        for item in items:  # lists leave out what their own head says
            item["kind"], item["apiVersion"] = kind.name, kind.api_version
        return items, str(found.get("metadata", {}).get("resourceVersion", ""))

    def create(self, kind: Kind, body: Object) -> Object:
        namespace = body["metadata"]["namespace"]
        return self._call("POST", kind.path(namespace), kind, body=body, query={"fieldManager": MANAGER})

    def replace(self, kind: Kind, body: Object) -> Object:
        meta = body["metadata"]
        path = kind.path(meta["namespace"], meta["name"])
        return self._call("PUT", path, kind, body=body, query={"fieldManager": MANAGER})

    def delete(self, kind: Kind, namespace: str, name: str, *, grace: int | None = None) -> None:
        """Deletes what is there, and what it owns in the background. `grace`: seconds that pods get."""
        body: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        self._call("DELETE", kind.path(namespace, name), kind, body=body)

    def patch_status(self, kind: Kind, namespace: str, name: str, status: Object) -> Object:
        """The whole status, replaced: what `status` does not name is gone."""
        body = [{"op": "add", "path": "/status", "value": status}]
        path = kind.path(namespace, name, "status")
        return self._call("PATCH", path, kind, body=body, content="application/json-patch+json")

    def annotate(self, kind: Kind, namespace: str, name: str, annotations: Mapping[str, str]) -> Object:
        body = {"metadata": {"annotations": dict(annotations)}}
        path = kind.path(namespace, name)
        return self._call("PATCH", path, kind, body=body, content="application/merge-patch+json")

    def event(self, about: Object, *, warning: bool, reason: str, message: str, when: str) -> None:
        """An event about an object, as `kubectl describe` shows it."""
        meta = about["metadata"]
        body: Object = {
            "metadata": {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta.get("uid", ""),
            },
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "message": message[:1_024],
            "source": {"component": MANAGER},
            "firstTimestamp": when,
            "lastTimestamp": when,
            "count": 1,
        }
        self._call("POST", EVENT.path(meta["namespace"]), EVENT, body=body)

    def _call(
        self,
        method: str,
        path: str,
        kind: Kind,
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
        verb: str = "",
    ) -> Object:
        metrics.API_CALLS.labels(verb=verb or method, kind=kind.name).inc()
        request = self._client.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params={"Accept": "application/json", "Content-Type": content},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = self._client.call_api(*request, _request_timeout=_TIMEOUT)
            text: bytes = response.read()  # type: ignore[no-untyped-call]
        except (urllib3.exceptions.HTTPError, client.ApiException, OSError) as error:
            raise errors.Unavailable(f"The API server does not answer: {type(error).__name__}.", where=path) from None
        found: Object = json.loads(text) if text[:1] == b"{" else {"message": text.decode("utf-8", "replace")[:200]}
        if response.status >= 400:
            wanted = _BY_STATUS.get(response.status, errors.Unavailable)
            raise wanted(str(found.get("message") or f"The API server said {response.status}."), where=path)
        return found
