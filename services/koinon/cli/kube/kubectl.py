"""Calls of kubectl: whoever may use it may use this, with the same context, and nothing else has to be set up."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from koinon.domain.errors import Invalid, KoinonError, NotFound, Unavailable

_SECONDS = 60


@dataclass(frozen=True)
class Kubectl:
    """`namespace` None: that of the present context."""

    namespace: str | None = None
    context: str | None = None

    def command(self, *arguments: str, namespace: str | None = None) -> list[str]:
        """The whole command line."""
        place = namespace or self.namespace
        return [
            _program(),
            *(["--context", self.context] if self.context else []),
            *(["--namespace", place] if place else []),
            *arguments,
        ]

    def run(self, *arguments: str, given: str | None = None, namespace: str | None = None) -> str:
        """What it prints; `given` is its standard input. Raises NotFound, Invalid, Unavailable, KoinonError."""
        try:
            done = subprocess.run(
                self.command(*arguments, namespace=namespace),
                input=given,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(f"kubectl {arguments[0]} did not answer in {_SECONDS} s.") from None
        if done.returncode:
            raise failure(done.stderr, " ".join(arguments[:2]))
        return done.stdout

    def get(self, kind: str, name: str, *, namespace: str | None = None) -> dict[str, Any]:
        """One object. Raises NotFound."""
        found: dict[str, Any] = json.loads(self.run("get", kind, name, "-o", "json", namespace=namespace))
        return found

    def list(self, kind: str, *, labels: str = "", namespace: str | None = None) -> Sequence[dict[str, Any]]:
        """Objects of a namespace."""
        selected = ["--selector", labels] if labels else []
        text = self.run("get", kind, *selected, "-o", "json", namespace=namespace)
        items: list[dict[str, Any]] = json.loads(text)["items"]
        return items

    def raw(self, path: str) -> str:
        """The API server's answer to a GET of `path`."""
        return self.run("get", "--raw", path)

    def apply(self, document: dict[str, Any]) -> None:
        """Creates the object or brings it to this form."""
        self.run("apply", "-f", "-", given=json.dumps(document))

    def may(self, account: str, verb: str, resource: str) -> bool:
        """Whether a service account (`namespace:name`) has a right in the namespace. Raises KoinonError if not told."""
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{account}",
                "groups": [
                    "system:authenticated",
                    "system:serviceaccounts",
                    f"system:serviceaccounts:{account.partition(':')[0]}",
                ],
                "resourceAttributes": {"namespace": self.namespace, "verb": verb, "resource": resource},
            },
        }
        return self.run("create", "-f", "-", "-o", "jsonpath={.status.allowed}", given=json.dumps(review)) == "true"

    def current_namespace(self) -> str:
        """The namespace that commands without one mean."""
        return self.namespace or self.run("config", "view", "--minify", "-o", "jsonpath={..namespace}") or "default"

    def replace_process(self, *arguments: str, namespace: str | None = None) -> None:
        """Becomes kubectl, for what goes on until Ctrl-C."""
        command = self.command(*arguments, namespace=namespace)
        os.execv(command[0], command)


def _program() -> str:
    found = shutil.which("kubectl")
    if found is None:
        raise NotFound("There is no kubectl on the PATH.", todo="Install it; this command is its plugin.")
    return found


def failure(text: str, what: str) -> KoinonError:
    """The error that kubectl's words mean."""
    said = " ".join(text.split()) or "no reason given"
    if "(NotFound)" in said or "not found" in said:
        return NotFound(said, where=f"kubectl {what}")
    if "(Invalid)" in said or "is invalid" in said or "(BadRequest)" in said:
        return Invalid(said, where=f"kubectl {what}")
    if "refused" in said or "Unable to connect" in said or "ServiceUnavailable" in said or "timeout" in said.lower():
        return Unavailable(said, where=f"kubectl {what}", todo="Is the cluster reachable with this kubeconfig?")
    return KoinonError(said, where=f"kubectl {what}")
