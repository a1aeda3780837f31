"""kopf watches; its handlers only feed the cache and wish for keys. Nothing is decided here, and no object is patched.

Two operators of kopf run in threads of their own, one for the home namespaces and one for the work namespaces, so that
neither needs a right in the other's. Of Secrets and ConfigMaps each watches one, by name.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import kopf

from koinon_operator.cache import Cache
from koinon_operator.kinds import CONFIG_MAP, GRANT, NETWORK_POLICY, SECRET, Kind, Object
from koinon_operator.names import CONSENTS, DENIAL, RAY_SECRET, project_of
from koinon_operator.objects import walls
from koinon_operator.world import Key, project_of_grant

log = logging.getLogger("koinon.operator")

ONLY_HOME = {SECRET: RAY_SECRET, CONFIG_MAP: CONSENTS}
ONLY_WORK = {SECRET: RAY_SECRET, CONFIG_MAP: DENIAL}
"""Names of the only objects of a kind that are read."""


def field_selector(only: Mapping[Kind, str], kind: Kind) -> str:
    return f"metadata.name={only[kind]}" if kind in only else ""


def key_of(kind: Kind, obj: Object, home: str) -> Key:
    """Whose reconcile an object matters to: its project's, or the site's."""
    project = project_of_grant(obj) if kind == GRANT else project_of(obj)
    return home, project


class Feed:
    """Takes events into the cache, and wishes for the key of each that matters."""

    def __init__(self, cache: Cache, homes: Callable[[str], str], wish: Callable[[Key], None]) -> None:
        """`homes`: the home namespace of any of a hospital's two."""
        self._cache = cache
        self._homes = homes
        self._wish = wish

    def take(self, kind: Kind, event: str | None, obj: Object) -> None:
        meta = obj["metadata"]
        home = self._homes(meta["namespace"])
        if event == "DELETED":
            gone = self._cache.remove(kind, meta["namespace"], meta["name"], uid=meta.get("uid", ""))
            if gone is not None:
                self._wish_for(kind, gone, home)
            return
        change = self._cache.put(kind, obj)
        if change is None or not change.essential:
            return
        self._wish_for(kind, obj, home)
        if change.before is not None and key_of(kind, change.before, home) != key_of(kind, obj, home):
            self._wish_for(kind, change.before, home)  # a label edited by hand: whose it was should know

    def _wish_for(self, kind: Kind, obj: Object, home: str) -> None:
        self._wish(key_of(kind, obj, home))
        if kind == GRANT or (kind == NETWORK_POLICY and walls.is_foreign(obj)):
            self._wish((home, ""))


class Watch(threading.Thread):
    """kopf for some kinds in some namespaces. `failed` is called if it ends by itself."""

    def __init__(
        self,
        kinds: Sequence[Kind],
        only: Mapping[Kind, str],
        namespaces: Sequence[str],
        take: Callable[[Kind, str | None, Object], None],
        failed: Callable[[str], None],
    ) -> None:
        super().__init__(name=f"watch-{kinds[0].plural}", daemon=True)
        self._kinds = tuple(kinds)
        self._only = only
        self._namespaces = list(namespaces)
        self._take = take
        self._failed = failed
        self._stop_flag = threading.Event()

    def run(self) -> None:
        try:
            kopf.run(
                registry=self._registry(),
                settings=self._settings(),
                namespaces=self._namespaces,
                standalone=True,
                stop_flag=self._stop_flag,
            )
        except Exception as error:
            log.exception("A watch failed.")
            self._failed(f"{self.name}: {type(error).__name__}")
        else:
            if not self._stop_flag.is_set():
                self._failed(f"{self.name} ended")

    def stop(self) -> None:
        self._stop_flag.set()

    def _settings(self) -> kopf.OperatorSettings:
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.scanning.disabled = True  # it would list namespaces and resource definitions of the whole cluster
        settings.networking.request_timeout = 30
        settings.networking.connect_timeout = 5
        settings.watching.server_timeout = 300
        settings.watching.client_timeout = 330
        for kind in self._kinds:
            selector = field_selector(self._only, kind)
            if selector:
                settings.watching.field_selectors[kind.group, kind.version, kind.plural] = selector
        return settings

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(kopf.login_via_client)
        for kind in self._kinds:
            kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=kind.name)(self._handler(kind))
        return registry

    def _handler(self, kind: Kind) -> Any:
        async def seen(event: Any, **_: Any) -> None:
            self._take(kind, event["type"], dict(event["object"]))

        return seen
