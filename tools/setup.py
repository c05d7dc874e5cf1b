"""Make .venv and node_modules ready; then, if asked to, serve the site with live reload.

    python3 tools/setup.py               only set up
    python3 tools/setup.py serve 8000    set up, then serve at http://127.0.0.1:8000

Standard library only, and it parses on Python 3.6: an old Python must be able to say what is missing.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

OLDEST = (3, 11)
ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin/python"
LOG = VENV / "setup.log"
STAMP = VENV / "ready"  # what was installed; "unfinished" while that is going on
INPUTS = ("requirements.txt", "package.json", "package-lock.json")
NO_NETWORK = re.compile(
    "NewConnectionError|NameResolutionError|ConnectTimeout|ProxyError|SSLError|Failed to establish|Read timed out"
    "|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|EHOSTUNREACH|ETIMEDOUT|ERR_SOCKET_TIMEOUT"
)


def use_newer_python():
    """Start again with a newer Python of the PATH; where there is none, or PYTHON names this one, say so."""
    names = ["python3.14", "python3.13", "python3.12", "python3.11"]
    for name in [] if "PYTHON" in os.environ else names:
        found = shutil.which(name)
        if found and subprocess.call([found, "-c", ""], stderr=subprocess.DEVNULL) == 0:
            os.execv(found, [found] + sys.argv)
    this = f"{sys.executable} is Python {sys.version_info[0]}.{sys.version_info[1]}"
    sys.exit(f"{this}; 3.11 or newer is needed. Install one, or name it: make PYTHON=/path/to/python3.11 ...")


def check_port(port: int):
    """Leave with one line when nothing can listen on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
            sys.exit(f"Port {port} {why}. Take another one: make serve PORT={port + 1 if port >= 1024 else 8000}")


def venv_version() -> str:
    """Python version of .venv ("3.11"); "" where there is none that runs and is new enough."""
    config = VENV / "pyvenv.cfg"
    found = config.exists() and re.search(r"^version(?:_info)? = (\d+)\.(\d+)", config.read_text(), re.M)
    usable = found and VENV_PYTHON.exists() and (int(found[1]), int(found[2])) >= OLDEST
    return f"{found[1]}.{found[2]}" if usable else ""


def wanted_version() -> str:
    """The version that .venv has to have: this Python's, unless PYTHON is not given and .venv is good as it is."""
    mine = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return mine if "PYTHON" in os.environ else venv_version() or mine


def fingerprint() -> str:
    """Changes whenever something has to be installed."""
    parts = [wanted_version().encode()] + [(ROOT / name).read_bytes() for name in INPUTS]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def is_ready() -> bool:
    """Whether the last set-up finished and nothing changed since."""
    if venv_version() != wanted_version() or not (ROOT / "node_modules").is_dir() or not STAMP.exists():
        return False
    return STAMP.read_text() == fingerprint()


def make_venv():
    """A new .venv, unless a usable one is there (one whose set-up was interrupted is not: packages may be torn)."""
    unfinished = STAMP.exists() and STAMP.read_text() == "unfinished"
    pip = [str(VENV_PYTHON), "-I", "-m", "pip", "--version"]
    if venv_version() == wanted_version() and not unfinished and subprocess.call(pip, stdout=subprocess.DEVNULL) == 0:
        return
    try:
        import ensurepip  # noqa: F401  (Debian leaves it out of python3)
        import venv
    except ImportError:
        sys.exit(
            f"{sys.executable} has no venv module. On Debian and Ubuntu: apt-get install "
            f"python{wanted_version()}-venv, then run the same command again."
        )
    venv.create(VENV, clear=True, symlinks=True, with_pip=True)


def install(label: str, command: list, source: str):
    """Run one installer with its output in the log; on failure, leave with the reason in one line."""
    begin = time.monotonic()
    terminal = sys.stdout.isatty()
    print(f"  {label} ...", end="", flush=True)
    env = dict(os.environ, PATH=f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}", PIP_USER="0")
    lines = []
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    with open(LOG, "a", encoding="utf-8") as log, subprocess.Popen(command, cwd=ROOT, env=env, **options) as process:
        for line in process.stdout:
            log.write(line)
            lines.append(line.strip())
            if terminal and line.startswith(("Collecting", "Installing")):
                print(f"\r\033[K  {label} ... {' '.join(line.split()[:2])}", end="", flush=True)
    if terminal:
        print(f"\r\033[K  {label} ...", end="")
    if process.returncode == 0:
        print(f" {time.monotonic() - begin:.0f} s", flush=True)
        return
    print(" failed", flush=True)
    log_name = LOG.relative_to(ROOT)
    if any(NO_NETWORK.search(line) for line in lines):
        sys.exit(f"No network: {source} cannot be reached. Connect, then run the same command again. Log: {log_name}")
    errors = [line for line in lines if line.startswith("ERROR:")][-1:]  # pip's last line says most, npm's first
    errors += [line for line in lines if line.startswith("npm error")] + lines[-1:] + ["it printed nothing"]
    sys.exit(f"{label} failed with Python {sys.version.split()[0]}: {errors[0][:300]}. Log: {log_name}")


def set_up():
    """Install what is missing. The lock keeps a second `make` from installing at the same time."""
    if is_ready():
        return
    with open(ROOT / "requirements.txt", "rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print("Another set-up is running here; waiting for it.", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if is_ready():
            return
        begin = time.monotonic()
        print(f"Setting up .venv with Python {wanted_version()}. The first time takes some minutes.", flush=True)
        key = fingerprint()
        make_venv()
        STAMP.write_text("unfinished")
        LOG.write_text("")
        pip = ["-I", "-m", "pip", "install", "--no-input", "--progress-bar=off", "--disable-pip-version-check"]
        install("Python packages", [str(VENV_PYTHON), *pip, "-r", "requirements.txt"], "the Python package index")
        npm = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--fetch-retry-mintimeout=1000"]
        install("npm packages", [str(VENV / "bin/npm"), *npm], "the npm registry")
        STAMP.write_text(key)
        print(f"Ready after {time.monotonic() - begin:.0f} s.", flush=True)


def serve(port: int):
    """Become the development server (click >= 8.2 needs --livereload in so many words)."""
    check_port(port)  # again: the set-up may have taken minutes
    address = f"127.0.0.1:{port}"
    os.chdir(ROOT)
    os.execv(VENV_PYTHON, [str(VENV_PYTHON), "-m", "mkdocs", "serve", "--livereload", "--dev-addr", address])


def main():
    if sys.version_info < OLDEST:
        use_newer_python()
    port = None
    if sys.argv[1:2] == ["serve"]:
        given = sys.argv[2] if len(sys.argv) > 2 else "8000"
        if not given.isdigit() or not 0 < int(given) < 65536:
            sys.exit(f"PORT is a number from 1 to 65535, given {given!r}")
        port = int(given)
        check_port(port)
    set_up()
    if port:
        serve(port)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped. The same command starts again.")
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"Set-up failed: {error}")
