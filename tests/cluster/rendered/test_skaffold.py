"""skaffold.yaml against what Skaffold knows, the Dockerfile's targets and the charts' own checks of values."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.cluster.rendered import render

CONFIGS = {c["metadata"]["name"]: c for c in yaml.safe_load_all((render.ROOT / "skaffold.yaml").read_text())}
ARTIFACTS = [artifact for config in CONFIGS.values() for artifact in config["build"]["artifacts"]]
SITE = CONFIGS["hospitals"]["profiles"][0]["deploy"]["helm"]["releases"]

# Of the schema skaffold/v4beta12, as far as it is used here; it allows no further keys.
SCHEMA: dict[str, set[str]] = {
    "config": {"apiVersion", "kind", "metadata", "requires", "build", "test", "deploy", "profiles", "manifests"},
    "build": {"artifacts", "tagPolicy", "local", "insecureRegistries", "platforms"},
    "docker": {"dockerfile", "target", "buildArgs", "network", "addHost", "cacheFrom", "cliFlags", "pullParent"},
    "helm": {"concurrency", "releases", "flags", "hooks"},
    "release": {
        "name", "chartPath", "remoteChart", "valuesFiles", "namespace", "version", "setValues", "setValueTemplates",
        "setFiles", "createNamespace", "wait", "skipBuildDependencies", "upgradeOnChange", "overrides", "dependsOn",
    },
}  # fmt: skip


def deployers() -> Iterator[dict[str, Any]]:
    for config in CONFIGS.values():
        yield from (part["deploy"]["helm"] for part in (config, *config.get("profiles", [])))


def releases() -> list[dict[str, Any]]:
    return [release for helm in deployers() for release in helm["releases"]]


def test_every_key_is_one_that_skaffold_knows() -> None:
    for config in CONFIGS.values():
        assert config["apiVersion"] == "skaffold/v4beta12"
        assert set(config) <= SCHEMA["config"]
        assert set(config["build"]) <= SCHEMA["build"]
    assert all(set(artifact["docker"]) <= SCHEMA["docker"] for artifact in ARTIFACTS)
    assert all(set(helm) <= SCHEMA["helm"] for helm in deployers())
    assert all(set(release) <= SCHEMA["release"] for release in releases())


def test_all_images_are_built_from_targets_and_arguments_of_the_dockerfile() -> None:
    text = (render.ROOT / "Dockerfile").read_text()
    targets = set(re.findall(r"^FROM .* AS (\S+)$", text, re.MULTILINE))
    arguments = set(re.findall(r"^ARG (\w+)", text, re.MULTILINE))
    assert {a["image"]: a["docker"]["target"] for a in ARTIFACTS} == {
        f"koinon-{target}": target for target in ("gateway", "agent", "operator", "worker")
    }
    for artifact in ARTIFACTS:
        assert artifact["docker"]["target"] in targets
        assert set(artifact["docker"].get("buildArgs", {})) <= arguments


@pytest.mark.parametrize("release", releases(), ids=lambda release: release["name"])
def test_charts_take_the_values_and_run_what_was_built(release: dict[str, Any]) -> None:
    chart = release["chartPath"].removeprefix("charts/")
    options = [f"--set={key}={value}" for key, value in release.get("setValues", {}).items()]
    for key, template in release["setValueTemplates"].items():
        image = re.fullmatch(r"\{\{\.IMAGE_(REPO|TAG)_(\w+)\}\}", template)
        assert image is not None
        name = image[2].replace("_", "-")
        assert name in {artifact["image"] for artifact in ARTIFACTS}
        options.append(f"--set-string={key}={f'example.org/{name}' if image[1] == 'REPO' else f'1-{name}'}")
    values = render.TRIAL if chart == "koinon-hub" else render.SITE
    found = set(render.images(render.objects(chart, values, *options)))
    ours = {"gateway"} if chart == "koinon-hub" else {"agent", "operator", "worker"}
    assert {f"example.org/koinon-{part}:1-koinon-{part}" for part in ours} <= found


def test_hospitals_of_the_profile_are_all_prepared_and_the_first_brings_the_crds() -> None:
    helm = CONFIGS["hospitals"]["profiles"][0]["deploy"]["helm"]
    prepared = [hook["host"]["command"][-1] for hook in helm["hooks"]["before"]]
    assert prepared == [release["namespace"] for release in SITE]
    assert [r["valuesFiles"] for r in SITE] == [[f"build/skaffold/{name}.yaml"] for name in prepared]
    assert [release.get("setValues", {}).get("crds.install", True) for release in SITE] == [True, False, False]
    assert all(release["dependsOn"] == [SITE[0]["name"]] for release in SITE[1:])
