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
    assert found == images | {
        "INSTALL.txt",
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


def test_its_instructions_name_every_image_and_install_its_charts(whole: Path) -> None:
    text = (whole / "INSTALL.txt").read_text()
    for name in IMAGES:
        assert f"images/{name}.tar\tlocalhost/{name}:test" in text
    chart = next(part for part in text.split() if part.endswith("site-0.1.0.tgz"))
    values = SITE | {"image": {"registry": "registry.hospital.example", "tag": "0.1.0"}}
    images = set(render.images(render.objects(chart, values, folder=whole)))
    assert images == {f"registry.hospital.example/{name}:0.1.0" for name in IMAGES if name != "koinon-gateway"}


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
        assert [name for name in tar.getnames() if "site" in name] == []


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
