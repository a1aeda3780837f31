"""List what an image consists of, as CycloneDX JSON, from what is installed in it.

Usage: sbom.py IMAGE ENVIRONMENT DPKG OUTPUT

ENVIRONMENT is the image's virtual environment, DPKG its /var/lib/dpkg. Runs with the Python of the build tools.
"""

import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

PROJECT = "/images/pyproject.toml"
DEBIAN_FIELDS = re.compile(r"^(Package|Version|Architecture|Status): (.*)$", re.MULTILINE)

Json = dict[str, Any]


def main() -> None:
    image, environment, dpkg, output = sys.argv[1], *map(Path, sys.argv[2:5])
    document = python_packages(environment)
    document["metadata"]["properties"] = [{"name": "dev.koinon.image", "value": image}]
    document["components"] += [interpreter(environment), *debian_packages(dpkg)]
    text = json.dumps(document, indent=1, sort_keys=True)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"the list of parts is no valid CycloneDX: {error}")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text)


def python_packages(environment: Path) -> Json:
    """CycloneDX's own list of an environment; without times and random numbers, so that it repeats."""
    options = ["--spec-version=1.6", "--output-format=JSON", "--output-reproducible", f"--pyproject={PROJECT}"]
    command = ["cyclonedx-py", "environment", *options, str(environment / "bin/python")]
    listed: Json = json.loads(subprocess.run(command, text=True, capture_output=True, check=True).stdout)
    return listed


def interpreter(environment: Path) -> Json:
    """Python itself, which the images of python.org hold as no package of Debian's."""
    command = [str(environment / "bin/python"), "-c", "import platform; print(platform.python_version())"]
    version = subprocess.run(command, text=True, capture_output=True, check=True).stdout.strip()
    purl = f"pkg:generic/python@{version}"
    return {"type": "application", "bom-ref": purl, "name": "python", "version": version, "purl": purl}


def debian_packages(dpkg: Path) -> Iterator[Json]:
    records = sorted((dpkg / "status.d").iterdir()) if (dpkg / "status.d").exists() else [dpkg / "status"]
    release = platform.freedesktop_os_release()["VERSION_ID"]
    for entry in "\n".join(path.read_text() for path in records).split("\n\n"):
        fields = dict(DEBIAN_FIELDS.findall(entry))
        if not fields.get("Status", "").endswith(" installed"):
            continue
        name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
        purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={architecture}&distro=debian-{release}"
        yield {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


if __name__ == "__main__":
    main()
