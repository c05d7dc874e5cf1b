"""The strict build that the tests of the site look at: one for a whole run, made before the tests start.

Then nothing else takes the machine's time while the build is measured, and no process of the run builds a second one.
"""

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from theme.page.pages import ROOT, posts

ADDRESS, REPOSITORY = "https://example.org/", "https://github.com/example/site"  # as if it were published
BUILT = "BUILT_SITE"  # the environment variable in which a run's processes find folder and seconds
BAR = 10.0 * len(posts()) / 18  # CPU seconds of the quiet machine: ten for eighteen posts
TRIES = 3  # the quickest of a few builds counts
COUNTING = "import time\nbegan = time.process_time()\nsum(i * i for i in range(5_000_000))\n"
COUNTING += "print(time.process_time() - began)"
QUIET = 0.40  # seconds that COUNTING takes on the project's machine of two cores while its host is quiet


def slowed() -> float:
    """How many times as long as on the quiet machine work takes now: others on its host slow it by up to a half."""
    counted = subprocess.run([sys.executable, "-c", COUNTING], capture_output=True, text=True, check=True)
    return max(1.0, float(counted.stdout) / QUIET)


def build(folder: Path) -> float:
    """Build the site into a folder; return the CPU seconds that this takes on the quiet machine."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", folder]
    env = {**os.environ, "SITE_URL": ADDRESS, "REPOSITORY_URL": REPOSITORY, "OMP_NUM_THREADS": "1"}
    factors = [slowed()]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, f"the strict build fails:\n{done.stdout}{done.stderr}"
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    factors.append(slowed())
    print(f"the build took {seconds:.1f} CPU s, on a machine slowed {factors[0]:.2f} to {factors[1]:.2f} times")
    return seconds / (sum(factors) / 2)


def build_for_all() -> str:
    """Build the site and tell this process and those that it starts; where it fails, the tests of the site say why.

    Returns: the folder, for this process to remove.
    """
    folder = tempfile.mkdtemp(prefix="site-")
    seconds = []
    try:
        while len(seconds) < TRIES and min(seconds, default=BAR) >= BAR:
            seconds.append(build(Path(folder)))
    except AssertionError:
        return folder
    os.environ[BUILT] = f"{min(seconds):.2f} {folder}"
    return folder


def built() -> tuple[Path, float] | None:
    """The folder of the run's site and the CPU seconds of its build, if there is one."""
    seconds, _, folder = os.environ.get(BUILT, "").partition(" ")
    return (Path(folder), float(seconds)) if folder else None
