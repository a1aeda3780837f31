"""kubectl and helm for tests: what they print comes back, what they refuse is an error with their words."""

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any, TypeVar

Object = dict[str, Any]  # a Kubernetes object as the API shows it
_T = TypeVar("_T")


class Failed(RuntimeError):
    """The program ended with an error; the text is the program's."""


def run(*arguments: str, stdin: str | None = None, seconds: float = 60) -> str:
    """Raises Failed; subprocess.TimeoutExpired if it takes longer."""
    return _program("kubectl", *arguments, stdin=stdin, seconds=seconds)


def helm(*arguments: str, stdin: str | None = None, seconds: float = 180) -> str:
    """Raises Failed; subprocess.TimeoutExpired if it takes longer."""
    return _program("helm", *arguments, stdin=stdin, seconds=seconds)


def _program(*command: str, stdin: str | None, seconds: float) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def get(kind: str, name: str, namespace: str = "default") -> Object | None:
    """The object, or nothing if there is none."""
    text = run("-n", namespace, "get", kind, name, "-o", "json", "--ignore-not-found")
    found: Object | None = json.loads(text) if text else None
    return found


def required(kind: str, name: str, namespace: str = "default") -> Object:
    """The object. Raises Failed if there is none."""
    found: Object = json.loads(run("-n", namespace, "get", kind, name, "-o", "json"))
    return found


def find(kind: str, namespace: str | None = None, selector: str = "") -> list[Object]:
    """All objects of a kind: in a namespace, or in all of them."""
    where = ["-n", namespace] if namespace else ["--all-namespaces"]
    listed: list[Object] = json.loads(run("get", kind, "-l", selector, "-o", "json", *where))["items"]
    return listed


def apply(*objects: Object) -> None:
    """Raises Failed if the API server refuses one."""
    run("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def execute(namespace: str, pod: str, *command: str, seconds: float = 30) -> str:
    """What the command prints in the pod's first container. Raises Failed if it fails there."""
    return run("-n", namespace, "exec", pod, "--", *command, seconds=seconds)


def wait(namespace: str, what: str, condition: str, seconds: float = 60) -> None:
    """For `what` (kind/name) to have the condition, such as `condition=Ready` or `delete`. Raises Failed."""
    run("-n", namespace, "wait", what, f"--for={condition}", f"--timeout={seconds:g}s", seconds=seconds + 10)


def until(check: Callable[[], _T], what: str, seconds: float = 30) -> _T:
    """The first answer of `check` that is true. Raises AssertionError that names `what` after that many seconds."""
    end = time.monotonic() + seconds
    while True:
        if answer := check():
            return answer
        assert time.monotonic() < end, f"after {seconds:g} s, not yet: {what}"
        time.sleep(0.2)


def may(account: str, verb: str, resource: str, namespace: str | None = None) -> bool:
    """Whether a service account (`namespace:name`) has a right: in a namespace, or in all of them."""
    where = ["-n", namespace] if namespace else ["--all-namespaces"]
    command = ["kubectl", "auth", "can-i", verb, resource, f"--as=system:serviceaccount:{account}", *where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    answer = done.stdout.strip()
    if answer not in ("yes", "no"):
        raise Failed(f"{' '.join(command)}: {done.stderr}")
    return answer == "yes"
