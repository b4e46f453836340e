"""Collect a kit: fetch wheels, take compiled kernels out of them, list every file with its sum."""

from __future__ import annotations

import contextlib
import datetime as dt
import lzma
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from calibrate.kit import manifest, wheels
from calibrate.kit.manifest import Item, Manifest
from calibrate.kit.parts import (
    FROM_VLLM,
    KERNEL_WHEELS,
    LIMIT_BYTES,
    MIB,
    OWN_WHEELS,
    PYTHON,
    VLLM,
    Extracted,
    Pinned,
)
from simserve.errors import InputError

Say = Callable[[str], None]
_MODULES_FILE: Final = "flashinfer-modules.tar.xz"
_PRESET: Final = 6  # of xz; 9 saves under 1 % on these files


def collect(kit: Path, *, modules: Path | None, limit_bytes: int = LIMIT_BYTES, say: Say) -> None:
    """Fill the folder ``kit``, whole or not at all.

    ``modules`` is an archive of prebuilt FlashInfer modules. Compiled kernels that lie in an
    older kit there in the same version are kept.

    Raises:
        InputError: if something cannot be fetched, or if it would be too large.
    """
    budget = limit_bytes - repository_bytes(Path.cwd())
    with _filled_whole(kit) as folder:
        items = [_wheel(folder, each, say) for each in _own_packages()]
        items += [_wheel(folder, each, say) for each in KERNEL_WHEELS]
        items += _from_vllm(folder, kit, say)
        if modules is not None:
            items.append(_modules(folder, modules, say))
        today = dt.datetime.now(tz=dt.UTC).date().isoformat()
        made = Manifest(".".join(map(str, PYTHON)), today, tuple(items))
        check_size(kit, made.bytes, budget)
        made.write(folder)
    say(f"{kit}: {len(items)} files, {made.bytes / MIB:.2f} MiB of {budget / MIB:.2f} allowed")


def check_size(kit: Path, total_bytes: int, budget_bytes: int) -> None:
    """Refuse a kit that, with the repository, is more than may be brought along."""
    if total_bytes > budget_bytes:
        got, allowed = f"{total_bytes / MIB:.2f} MiB", f"at most {budget_bytes / MIB:.2f} MiB"
        raise InputError(str(kit), "size", got, f"{allowed} beside the repository (--limit-mib)")


def repository_bytes(folder: Path) -> int:
    """Return the bytes of the files of a checkout that git tracks or would track.

    Raises:
        InputError: if it is not a git checkout.
    """
    command = ["git", "-C", str(folder), "ls-files", "-z"]
    command += ["--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(str(folder), None, "no git checkout", "simserve's repository") from error
    paths = (folder / name.decode() for name in listed.split(b"\0") if name)
    return sum(path.lstat().st_size for path in paths if path.is_symlink() or path.is_file())


def _own_packages() -> list[Pinned]:
    return [Pinned(name, wheels.installed_version(name), "") for name in OWN_WHEELS]


def _wheel(folder: Path, package: Pinned, say: Say) -> Item:
    target = folder / "wheels"
    target.mkdir(exist_ok=True)
    wheel = wheels.download(package.name, package.version, target)
    return _item(
        folder,
        wheel,
        kind=manifest.WHEEL,
        package=package,
        licence=package.licence or wheels.licence(wheel),
        say=say,
    )


def _from_vllm(folder: Path, old_kit: Path, say: Say) -> list[Item]:
    """Take the kernels out of vLLM's wheel, or out of the kit that is to be replaced."""
    target = folder / "kernels"
    target.mkdir()
    kept = [_kept(old_kit, folder, part, say) for part in FROM_VLLM]
    known = [item for item in kept if item is not None]
    if len(known) == len(kept):
        return known
    with tempfile.TemporaryDirectory() as scratch:
        say(f"{VLLM.name} {VLLM.version}: 290 MiB to fetch, minutes to compress")
        wheel = wheels.download(VLLM.name, VLLM.version, Path(scratch))
        with zipfile.ZipFile(wheel) as archive:
            return [_extracted(folder, archive, part, say) for part in FROM_VLLM]


def _extracted(folder: Path, archive: zipfile.ZipFile, part: Extracted, say: Say) -> Item:
    content = archive.read(part.member)
    packed = folder / "kernels" / f"{part.file}.xz"
    packed.write_bytes(lzma.compress(content, preset=_PRESET))
    return _item(
        folder,
        packed,
        kind=manifest.KERNELS,
        package=VLLM,
        licence=part.licence,
        unpacked=part.file,
        unpacked_sha256=manifest.sha256(content),
        say=say,
    )


def _kept(old_kit: Path, folder: Path, part: Extracted, say: Say) -> Item | None:
    """Copy a file of the older kit, if it is this one and sound."""
    with contextlib.suppress(InputError):
        for item in manifest.read(old_kit).items:
            if item.unpacked == part.file and item.version == VLLM.version:
                (folder / item.file).write_bytes(manifest.verify(old_kit, item))
                say(f"{item.file}: kept")
                return item
    return None


def _modules(folder: Path, modules: Path, say: Say) -> Item:
    try:
        copy = Path(shutil.copyfile(modules, folder / _MODULES_FILE))
    except OSError as error:
        raise InputError("--modules", None, str(modules), "a readable archive") from error
    package = KERNEL_WHEELS[0]
    return _item(
        folder, copy, kind=manifest.MODULES, package=package, licence=package.licence, say=say
    )


def _item(
    folder: Path,
    path: Path,
    *,
    kind: str,
    package: Pinned,
    licence: str,
    say: Say,
    unpacked: str = "",
    unpacked_sha256: str = "",
) -> Item:
    content = path.read_bytes()
    say(f"{path.relative_to(folder)}: {len(content) / MIB:.2f} MiB")
    return Item(
        file=str(path.relative_to(folder)),
        kind=kind,
        name=package.name,
        version=package.version,
        licence=licence,
        source=f"https://pypi.org/project/{package.name}/{package.version}/",
        bytes=len(content),
        sha256=manifest.sha256(content),
        unpacked=unpacked,
        unpacked_sha256=unpacked_sha256,
    )


@contextlib.contextmanager
def _filled_whole(kit: Path) -> Iterator[Path]:
    """Yield a folder that becomes ``kit`` if all goes well, and vanishes if not."""
    if kit.exists() and not (kit / manifest.NAME).is_file() and any(kit.iterdir()):
        raise InputError(str(kit), None, "a folder with other files", "a kit, or a new folder")
    kit.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{kit.name}.", suffix=".partial", dir=kit.parent))
    try:
        yield partial
        partial.chmod(0o755)
        if kit.exists():
            shutil.rmtree(kit)
        partial.rename(kit)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
