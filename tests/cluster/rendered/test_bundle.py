"""The offline bundle, made of small archives that stand in for images."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.cluster.rendered import render
from tests.cluster.rendered.render import SITE

IMAGES = ("koinon-gateway", "koinon-agent", "koinon-operator", "koinon-worker")


def archive(folder: Path, name: str, *, oci: bool = False) -> Path:
    """A file that names an image as tools do, and holds a layer of its own."""
    path = folder / f"{name.replace('/', '_').replace(':', '_')}.tar"
    if oci:
        index = {
            "index.json": json.dumps({"manifests": [{"annotations": {"org.opencontainers.image.ref.name": name}}]})
        }
    else:
        index = {"manifest.json": json.dumps([{"Config": "c.json", "RepoTags": [name], "Layers": ["layer.tar"]}])}
    with tarfile.open(path, "w") as tar:
        for file, text in {"layer.tar": f"of {name}" * 1_000, **index}.items():
            info = tarfile.TarInfo(file)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


def bundle(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(render.program()).parent}:{os.environ['PATH']}"
    command = [sys.executable, str(render.CHARTS / "bundle"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle, unpacked."""
    folder = tmp_path_factory.mktemp("bundle")
    archives = [archive(folder, f"localhost/{name}:test", oci=name == "koinon-agent") for name in IMAGES]
    done = bundle("--out", folder / "b.tar", *archives, archive(folder, "postgres:17"))
    assert done.returncode == 0, done.stderr
    assert "koinon-hub, koinon-site, 5 images" in done.stdout
    with tarfile.open(folder / "b.tar") as tar:
        tar.extractall(folder, filter="data")
    return folder / "koinon-0.1.0"


def test_it_holds_all_and_each_file_is_what_was_given(whole: Path) -> None:
    found = {str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file()}
    images = {f"images/{name}.tar" for name in (*IMAGES, "postgres")}
    assert (whole / "kuberay.yaml").read_bytes() == (render.CHARTS / "koinon-site/files/kuberay.yaml").read_bytes()
    assert found == images | {
        "INSTALL.txt",
        "kuberay.yaml",
        "SHA256SUMS",
        "charts/koinon-hub-0.1.0.tgz",
        "charts/koinon-site-0.1.0.tgz",
    }
    original = whole.parent / "localhost_koinon-worker_test.tar"
    assert (whole / "images" / "koinon-worker.tar").read_bytes() == original.read_bytes()


def test_its_checksums_find_a_changed_byte(whole: Path) -> None:
    check = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    listed = (whole / "SHA256SUMS").read_text().splitlines()
    assert len(listed) == len([path for path in whole.rglob("*") if path.is_file()]) - 1
    assert subprocess.run(check, cwd=whole, check=False).returncode == 0
    target = whole / "images" / "koinon-agent.tar"
    before = target.read_bytes()
    target.write_bytes(before[:-1] + b"x")
    done = subprocess.run(check, cwd=whole, check=False, capture_output=True, text=True)
    target.write_bytes(before)
    assert done.returncode == 1
    assert "koinon-agent.tar: FAILED" in done.stdout


def commands(whole: Path, begin: str) -> list[list[str]]:
    """Those of the instructions that begin so, as words."""
    lines = (whole / "INSTALL.txt").read_text().replace("\\\n", "").splitlines()
    return [line.split() for line in lines if line.strip().startswith(begin)]


def rendered(whole: Path, *options: str) -> set[str]:
    """The images of a trial's hub and of a hospital, from the bundle's charts."""
    found: set[str] = set()
    for chart, values in (("hub", render.TRIAL), ("site", SITE)):
        command = next(words for words in commands(whole, "helm install") if words[2] == chart)
        given = [word for word in command if word.startswith("image.")]
        options = (*options, *(part for word in given for part in ("--set", word)))
        found |= set(render.images(render.objects(command[3], values, *options, folder=whole)))
    return found


def test_its_commands_bring_each_image_to_where_the_charts_look_for_it(whole: Path) -> None:
    copies = {words[2]: words[3].removeprefix("docker://") for words in commands(whole, "skopeo copy")}
    assert copies.keys() == {
        "oci-archive:images/koinon-agent.tar",
        *(f"docker-archive:images/{name}.tar" for name in (*IMAGES, "postgres") if name != "koinon-agent"),
    }
    brought = {words[0] for words in commands(whole, "REGISTRY/")}
    assert rendered(whole) == set(copies.values()) | brought


def test_without_a_registry_its_commands_leave_the_names_that_the_charts_look_for(whole: Path) -> None:
    tagged = {words[-2]: words[-1] for words in commands(whole, "ctr -n k8s.io images tag")}
    assert tagged["docker.io/library/postgres:17"] == "localhost/postgres:17-bookworm"
    assert tagged["localhost/koinon-agent:test"] == "localhost/koinon-agent:0.1.0"
    wanted = {name.replace("REGISTRY", "localhost") for name in rendered(whole)}
    assert wanted - set(tagged.values()) == {name for name in wanted if "/minio/" in name}


def test_an_image_of_others_keeps_its_name(tmp_path: Path) -> None:
    done = bundle(
        "--out", tmp_path / "b.tar", *(archive(tmp_path, name) for name in (*IMAGES, "quay.io/ray/operator:v1"))
    )
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / "b.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    copies = [words[3] for words in commands(tmp_path / "koinon-0.1.0", "skopeo copy")]
    assert "docker://REGISTRY/ray/operator:v1" in copies


def test_packaged_charts_are_the_charts(whole: Path) -> None:
    for chart in render.NAMES:
        with tarfile.open(whole / "charts" / f"{chart}-0.1.0.tgz") as tar:
            packed = {name.partition("/")[2] for name in tar.getnames()}
        source = render.CHARTS / chart
        wanted = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
        assert packed == {name for name in wanted if not name.startswith("ci/")}


def test_make_makes_it(tmp_path: Path) -> None:
    given = " ".join(str(archive(tmp_path, f"{name}:1")) for name in IMAGES)
    command = ["make", "bundle", f"IMAGES={given}", f"OUT={tmp_path}/new/b.tar", f"PYTHON={sys.executable}"]
    path = f"{os.environ['PATH']}:{Path(render.program()).parent}"
    subprocess.run(command, cwd=render.ROOT, check=True, capture_output=True, env={**os.environ, "PATH": path})
    assert tarfile.is_tarfile(tmp_path / "new" / "b.tar")


def test_a_part_alone(tmp_path: Path) -> None:
    done = bundle("--out", tmp_path / "b.tar", "--for", "hub", archive(tmp_path, "registry/koinon-gateway:1"))
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / "b.tar") as tar:
        assert [name for name in tar.getnames() if "site" in name or "kuberay" in name] == []


@pytest.mark.parametrize("wrong", ["missing", "garbage", "nameless", "twice"])
def test_what_is_not_whole_is_not_written(wrong: str, tmp_path: Path) -> None:
    given = [archive(tmp_path, f"{name}:1") for name in IMAGES]
    said = ""
    if wrong == "missing":
        given.pop()
        said = "no archive holds koinon-worker"
    elif wrong == "garbage":
        given[0].write_bytes(b"no tar at all" * 100)
        said = "is no archive of images"
    elif wrong == "nameless":
        tarfile.open(given[0], "w").close()
        said = "names no image"
    elif wrong == "twice":
        given.append(archive(tmp_path, "other/koinon-agent:2"))
        said = "hold the same image"
    done = bundle("--out", tmp_path / "b.tar", *given)
    assert done.returncode == 1
    assert said in done.stderr
    assert not list(tmp_path.glob("b.tar*"))
