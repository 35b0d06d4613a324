"""The root file system that all hosts of a lab share, read-only: a minimal Debian made once, or a directory.

In: "debian", "bare" (without Podman), or a path ("/" is this machine's own root). Out: a directory for overlayfs' lower layer.
Effects: fills the cache (SSHOAL_LAB_CACHE, default /var/cache/sshoal-lab) by mmdebstrap. A killed build leaves only a temporary directory,
which the next build removes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from controller.model.errors import UsageError
from lab.system import run

SUITE = "bookworm"
COMMON_PACKAGES = (  # what every host has, whatever its Debian
    "systemd",
    "systemd-sysv",
    "dbus",
    "libpam-systemd",
    "openssh-server",
    "sudo",
    "python3",
    "podman",
    "crun",
    "netavark",
    "aardvark-dns",
    "catatonit",
    "uidmap",
    "iproute2",
    "nftables",
    "kmod",
    "procps",
    "ca-certificates",
    "curl",
)
PACKAGES = (
    *COMMON_PACKAGES,
    "slirp4netns",
    "iptables",  # netavark 1.4 calls it
    "busybox-static",
    "cron",  # off, until a host plays the controller's machine
)
# A host as somebody rents it: systemd, sshd and sudo, no Podman, not all of Python. For trying `sshoal node prepare`.
BARE_PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "libpam-systemd", "openssh-server", "sudo"),
    *("apt", "python3-minimal", "iproute2", "kmod", "procps", "ca-certificates", "curl"),
)
BUILD_TIMEOUT_S = 900
# What a host may lack when somebody brings a base of his own.
NEEDED_IN_BASE = ("sbin/init", "usr/sbin/sshd", "usr/bin/podman", "usr/bin/sudo", "usr/bin/python3", "bin/busybox")


def cache_dir() -> Path:
    return Path(os.environ.get("SSHOAL_LAB_CACHE", "/var/cache/sshoal-lab"))


def lower_dir(base: str, progress: Callable[[str], None]) -> Path:
    """The directory for `base`, built first if need be. UsageError when a given directory cannot be a host."""
    if base == "debian":
        return _debian(PACKAGES, progress)
    if base == "bare":
        return _debian(BARE_PACKAGES, progress)
    path = Path(base)
    if not path.is_absolute() or not path.is_dir():
        raise UsageError(f'--base {base}: not a directory; give "debian", "bare", "/" or an absolute path')
    lacking = [name for name in NEEDED_IN_BASE if not os.path.lexists(path / name)]
    if lacking:
        raise UsageError(f"--base {base}: lacks {', '.join('/' + name for name in lacking)}", hint="use --base debian")
    return path


def _debian(packages: tuple[str, ...], progress: Callable[[str], None]) -> Path:
    def build(target: Path) -> None:
        progress(f"making the base system once ({SUITE}, {len(packages)} packages; about a minute)")
        make_root(SUITE, packages, target)
        for host_key in target.glob("etc/ssh/ssh_host_*"):
            host_key.unlink()  # each host gets its own

    return cached(f"{SUITE}-{digest(SUITE, *packages)}", build)


def digest(*parts: str) -> str:
    """A short key of what a cache entry is made from."""
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]


def cached(name: str, build: Callable[[Path], None]) -> Path:
    """The cache's directory `name`; `build` is called with a path to make it at when it is not there. One at a time."""
    target = cache_dir() / name
    cache_dir().mkdir(parents=True, exist_ok=True)
    with (cache_dir() / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel drops it with the process
        for abandoned in cache_dir().glob("*.new"):
            shutil.rmtree(abandoned)
        if not target.is_dir():
            unfinished = target.with_suffix(".new")
            build(unfinished)
            unfinished.rename(target)
    return target


def make_root(suite: str, packages: tuple[str, ...], target: Path, *options: str) -> None:
    """A Debian root by mmdebstrap, from this machine's own mirrors. It dies with this process."""
    run(
        [
            *("setpriv", "--pdeathsig", "KILL"),
            *("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"),
            *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}"),
            *options,
            *(suite, str(target)),
            *own_mirrors(suite),
        ],
        timeout_s=BUILD_TIMEOUT_S,
    )


def own_mirrors(suite: str, apt: Path = Path("/etc/apt"), os_release: Path = Path("/etc/os-release")) -> list[str]:
    """Source lines for `suite` on the mirrors this Debian machine uses; empty: mmdebstrap's own default."""
    release = dict(line.split("=", 1) for line in os_release.read_text().splitlines() if "=" in line)
    own_suite = release.get("VERSION_CODENAME", "").strip('"')
    if release.get("ID", "").strip('"') != "debian" or not own_suite:
        return []
    entries = {
        (uri, entry_suite.replace(own_suite, suite))
        for uri, entry_suite in _source_entries(apt)
        if entry_suite in (own_suite, f"{own_suite}-updates", f"{own_suite}-security")
    }
    if not any(entry_suite == suite for _, entry_suite in entries):
        return []
    return [f"deb {uri} {entry_suite} main" for uri, entry_suite in sorted(entries)]


def _source_entries(apt: Path) -> Iterator[tuple[str, str]]:
    """(URI, suite) of each binary source, of both of apt's file formats."""
    for file in sorted([apt / "sources.list", *apt.glob("sources.list.d/*.list")]):
        for line in file.read_text().splitlines() if file.is_file() else ():
            words = [word for word in line.partition("#")[0].split() if not word.startswith("[") and word[-1] != "]"]
            if len(words) >= 3 and words[0] == "deb":
                yield words[1], words[2]
    for file in sorted(apt.glob("sources.list.d/*.sources")):
        for paragraph in file.read_text().split("\n\n"):
            fields = dict(line.split(":", 1) for line in paragraph.splitlines() if line[:1].isalpha() and ":" in line)
            if "deb" in fields.get("Types", "").split() and fields.get("Enabled", "yes").strip() != "no":
                for uri in fields.get("URIs", "").split():
                    for entry_suite in fields.get("Suites", "").split():
                        yield uri, entry_suite
