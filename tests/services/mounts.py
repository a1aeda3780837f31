"""A folder as kubelet mounts a ConfigMap or Secret: files are links into `..data`, a link that is swapped whole."""

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path


class Mount:
    """`write` replaces the content in the order of kubelet's atomic writer."""

    def __init__(self, folder: Path, content: Mapping[str, bytes] | None = None, *, mode: int = 0o644) -> None:
        self.folder, self._mode = folder, mode
        folder.mkdir(parents=True)
        self.write(content or {})

    def write(self, content: Mapping[str, bytes]) -> None:
        data = self.folder / "..data"
        before = Path(os.readlink(data)) if data.is_symlink() else None
        fresh = self.folder / f"..{time.time_ns()}"
        fresh.mkdir(mode=0o755)
        for name, text in content.items():
            (fresh / name).write_bytes(text)
            (fresh / name).chmod(self._mode)
        draft = self.folder / "..data_tmp"
        draft.symlink_to(fresh.name)
        draft.rename(data)
        for name in content:
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        for path in self.folder.iterdir():
            if not path.name.startswith("..") and path.name not in content:
                path.unlink()
        if before is not None:
            shutil.rmtree(self.folder / before)
