from __future__ import annotations

import importlib.metadata
import json
import lzma
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrate.kit import collect as collecting
from calibrate.kit import manifest, parts, unpack, wheels
from calibrate.kit.__main__ import _parser, main
from calibrate.kit.parts import MIB
from simserve.errors import InputError
from tests.calibrate.kit.packages import KERNEL, tiny_world, wheel

FA3 = parts.FROM_VLLM[0].file


def collected(folder: Path, **extra: object) -> Path:
    kit = folder / ".kit"
    collecting.collect(kit, modules=extra.pop("modules", None), say=lambda _: None, **extra)  # type: ignore[arg-type]
    return kit


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kit")
    module = folder / "made" / "attention" / "attention.so"
    module.parent.mkdir(parents=True)
    module.write_bytes(b"module")
    with tarfile.open(folder / "modules.tar.xz", "w:xz") as archive:
        archive.add(module, arcname="attention/attention.so")
    with pytest.MonkeyPatch.context() as monkeypatch:
        tiny_world(monkeypatch)
        return collected(folder, modules=folder / "modules.tar.xz")


def copied(kit: Path, folder: Path) -> Path:
    target = folder / ".kit"
    for path in kit.rglob("*"):
        if path.is_file():
            place = target / path.relative_to(kit)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    return target


def test_what_is_collected_comes_out_again(kit: Path, tmp_path: Path) -> None:
    said: list[str] = []
    target = tmp_path / "host"
    unpack.unpack(kit, target, said.append)
    assert (target / "kernels" / FA3).read_bytes() == KERNEL + FA3.encode()
    prebuilt = target / "site" / "flashinfer" / "data" / "aot" / "attention" / "attention.so"
    assert prebuilt.read_bytes() == b"module"
    for name in (*parts.OWN_WHEELS, *(each.name for each in parts.KERNEL_WHEELS)):
        assert (target / "site" / f"{name.replace('-', '_')}.py").is_file()
        assert any(line.startswith(f"{name} ") for line in said)
    assert len(said) == 1 + len(manifest.read(kit).items)
    found = unpack.environment(target)
    assert found["CALIBRATE_KIT"] == str(target)
    assert found["PYTHONPATH"].split(os.pathsep)[0] == str(target / "site")
    assert found["FLASHINFER_DISABLE_JIT"] == "1"


def test_a_kit_is_unpacked_once(kit: Path, tmp_path: Path) -> None:
    unpack.unpack(kit, tmp_path / "host", lambda _: None)
    said: list[str] = []
    unpack.unpack(kit, tmp_path / "host", said.append)
    assert said == [f"{tmp_path / 'host'}: unpacked before, {len(manifest.read(kit).items)} parts"]


def test_every_file_has_version_source_licence_and_sum(kit: Path) -> None:
    listed = manifest.read(kit)
    files = {str(path.relative_to(kit)) for path in kit.rglob("*") if path.is_file()}
    assert {item.file for item in listed.items} == files - {manifest.NAME}
    for item in listed.items:
        content = (kit / item.file).read_bytes()
        assert (item.bytes, item.sha256) == (len(content), manifest.sha256(content))
        assert item.source == f"https://pypi.org/project/{item.name}/{item.version}/"
        assert item.version
        assert item.licence


@given(st.data())
def test_a_changed_byte_anywhere_is_noticed(
    kit: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    broken = copied(kit, tmp_path_factory.mktemp("broken"))
    item = data.draw(st.sampled_from(manifest.read(kit).items))
    content = bytearray((kit / item.file).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (broken / item.file).write_bytes(bytes(content))
    with pytest.raises(InputError, match="sha256") as caught:
        unpack.unpack(broken, broken.parent / "host", lambda _: None)
    assert item.file in str(caught.value)
    assert not (broken.parent / "host").exists()


def test_a_missing_file_is_named(kit: Path, tmp_path: Path) -> None:
    broken = copied(kit, tmp_path)
    (broken / "kernels" / f"{FA3}.xz").unlink()
    with pytest.raises(InputError, match=f"{re.escape(FA3)}.xz: got No such file"):
        unpack.unpack(broken, tmp_path / "host", lambda _: None)


def test_a_kernel_is_checked_again_once_it_is_decompressed(kit: Path, tmp_path: Path) -> None:
    broken = copied(kit, tmp_path)
    other = lzma.compress(b"something else")
    (broken / "kernels" / f"{FA3}.xz").write_bytes(other)
    content = json.loads((broken / manifest.NAME).read_text())
    (entry,) = (each for each in content["files"] if each["unpacked"] == FA3)
    entry |= {"bytes": len(other), "sha256": manifest.sha256(other)}
    (broken / manifest.NAME).write_text(json.dumps(content))
    with pytest.raises(InputError, match="unpacked_sha256"):
        unpack.unpack(broken, tmp_path / "host", lambda _: None)
    assert not (tmp_path / "host" / manifest.NAME).exists()


def test_a_list_that_points_out_of_the_kit_is_refused(kit: Path, tmp_path: Path) -> None:
    for bad in ("../elsewhere", "/etc/passwd"):
        broken = copied(kit, tmp_path)
        content = json.loads((broken / manifest.NAME).read_text())
        content["files"][0]["file"] = bad
        (broken / manifest.NAME).write_text(json.dumps(content))
        with pytest.raises(InputError, match="a path inside the kit"):
            manifest.read(broken)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}', '{"schema": 1, "files": 3}'])
def test_a_broken_list_costs_one_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / manifest.NAME).write_text(text)
    assert main(["unpack", "--kit", str(tmp_path), "--to", str(tmp_path / "host")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert manifest.NAME in said[0]


def test_a_kit_for_another_python_is_refused(kit: Path, tmp_path: Path) -> None:
    other = copied(kit, tmp_path)
    content = json.loads((other / manifest.NAME).read_text())
    (other / manifest.NAME).write_text(json.dumps(content | {"python": "3.99"}))
    with pytest.raises(InputError, match=r"python: got 3\.\d+, allowed: 3\.99"):
        unpack.unpack(other, tmp_path / "host", lambda _: None)


def test_a_kit_that_is_too_large_is_refused_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tiny_world(monkeypatch, repository_bytes=2 * MIB)
    with pytest.raises(InputError, match=r"size: got 0\.0\d MiB, allowed: at most 0\.00 MiB"):
        collected(tmp_path, limit_bytes=2 * MIB + 100)
    assert list(tmp_path.iterdir()) == []


@given(st.integers(0, 1000), st.integers(-1000, 1000))
def test_the_limit_is_inclusive(total: int, budget: int) -> None:
    if total <= budget:
        collecting.check_size(Path(".kit"), total, budget)
    else:
        with pytest.raises(InputError, match="--limit-mib"):
            collecting.check_size(Path(".kit"), total, budget)


def test_kernels_of_an_older_kit_are_kept_if_they_are_sound(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    downloads = tiny_world(monkeypatch)
    large = "==".join((parts.VLLM.name, parts.VLLM.version))
    first = manifest.read(collected(tmp_path))
    assert downloads.asked.count(large) == 1
    assert manifest.read(collected(tmp_path)) == first
    assert downloads.asked.count(large) == 1
    (tmp_path / ".kit" / "kernels" / f"{FA3}.xz").write_bytes(b"damaged")
    assert manifest.read(collected(tmp_path)) == first
    assert downloads.asked.count(large) == 2


def test_a_folder_with_other_files_is_not_overwritten(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tiny_world(monkeypatch)
    (tmp_path / ".kit").mkdir()
    (tmp_path / ".kit" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="other files"):
        collected(tmp_path)
    assert (tmp_path / ".kit" / "thesis.txt").read_text() == "mine"


def test_the_repository_counts_what_git_would_carry(tmp_path: Path) -> None:
    (tmp_path / "tracked").write_bytes(b"1" * 10)
    (tmp_path / ".gitignore").write_text("ignored\n")
    (tmp_path / "ignored").write_bytes(b"1" * 1000)
    with pytest.raises(InputError, match="no git checkout"):
        collecting.repository_bytes(tmp_path)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "add", "tracked"], check=True)
    (tmp_path / "new").write_bytes(b"1" * 5)
    assert collecting.repository_bytes(tmp_path) == 10 + len("ignored\n") + 5


def test_a_wheel_that_pip_cannot_find_costs_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(InputError, match=r"collect: nowhere==1\.0: got ERROR.*wheel on PyPI"):
        wheels.download("nowhere", "1.0", tmp_path)


def test_pip_fetches_a_wheel_by_name_and_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    index, into = tmp_path / "index", tmp_path / "into"
    index.mkdir()
    into.mkdir()
    made = wheel(index, "some-package", "1.2")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    found = wheels.download("some-package", "1.2", into)
    assert (found.parent, found.read_bytes()) == (into, made.read_bytes())
    assert wheels.licence(found) == "MIT"


def test_everything_that_simserve_needs_is_brought_or_expected() -> None:
    """The closure of the requirements of ``simserve``, by the metadata of what is installed."""
    covered, open_names = set(), ["simserve"]
    known = {*parts.OWN_WHEELS, *parts.EXPECTED_ON_HOST, "simserve"}
    while open_names:
        name = open_names.pop()
        covered.add(name)
        for line in importlib.metadata.requires(name) or []:
            if "extra ==" in line or "platform_system ==" in line or "sys_platform ==" in line:
                continue
            needed = re.split(r"[^\w.-]", line)[0].lower().replace("_", "-")
            assert needed in known, f"{name} needs {line}"
            if needed in parts.OWN_WHEELS and needed not in covered:
                open_names.append(needed)  # what is on the host has its own requirements there
    assert set(parts.OWN_WHEELS) <= covered


def test_the_commands_of_the_page_are_those_of_the_program() -> None:
    page = (Path(__file__).parents[3] / "docs" / "calibrate-kit.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\$ python -m calibrate\.kit (.+)$", page, re.MULTILINE)
    assert len(lines) >= 10
    for line in lines:
        _parser().parse_args(line.partition(" -- ")[0].split())


def test_the_kit_needs_nothing_but_the_standard_library() -> None:
    """On the host it runs before anything is installed."""
    code = (
        "import sys; before = set(sys.modules);"
        "import calibrate.kit.__main__, calibrate.kit.collect, calibrate.kit.host;"
        "import calibrate.kit.flashinfer_modules;"
        "own = ('simserve', 'calibrate');"
        "names = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(names - set(sys.stdlib_module_names) - set(own)))"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout.strip() == "[]"
