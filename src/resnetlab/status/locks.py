"""Whether a living process holds a run's lock, found out without touching it.

A try of the lock, however short, could make a run that is about to start believe that it is being trained already. The
lock is filelock's, an flock(2), of which F_GETLK and F_OFD_GETLK know nothing; Linux lists those of its own processes
in /proc/locks. A process in another container, or on another machine, is not in the list.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Locks", "parse_locks", "parse_mounts"]

# file systems whose locks no other machine can hold
LOCAL = ("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "tmpfs", "xfs", "zfs")


@dataclass(frozen=True)
class Locks:
    """A snapshot of the machine's locks.

    holders: {inode: [(device, process)]} of exclusive flocks, None where the system does not tell. mounts: {mount
    point: type of the file system}.
    """

    holders: dict[int, list[tuple[int, int]]] | None = None
    mounts: dict[str, str] = field(default_factory=dict)

    @classmethod
    def look(cls) -> "Locks":
        try:
            holders = parse_locks(Path("/proc/locks").read_text())
            return cls(holders, parse_mounts(Path("/proc/self/mountinfo").read_text()))
        except OSError:
            return cls()

    def held(self, lock: Path) -> bool | None:
        """None where it cannot be told: another system than Linux, or a file system that machines share."""
        try:
            file = os.stat(lock)
            place = os.path.realpath(lock)
        except FileNotFoundError:
            return False
        except OSError:
            return None
        if self.holders is None:
            return None
        found = self.holders.get(file.st_ino, [])
        if any(device == file.st_dev for device, _ in found):
            return True
        if any(has_open(process, file) for _, process in found):
            return True
        return False if self.file_system(place) in LOCAL else None

    def file_system(self, place: str) -> str:
        above = [point for point in self.mounts if place.startswith(point.rstrip("/") + "/")]
        return self.mounts[max(above, key=len)] if above else ""


def parse_locks(text: str) -> dict[int, list[tuple[int, int]]]:
    """Of /proc/locks, whose lines are "1: FLOCK  ADVISORY  WRITE 5055 fe:00:2146742 0 EOF"; "1: -> ..." waits."""
    found: dict[int, list[tuple[int, int]]] = {}
    for words in map(str.split, text.splitlines()):
        if len(words) >= 6 and words[1] == "FLOCK" and words[3] == "WRITE" and words[5].count(":") == 2:
            major, minor, inode = words[5].split(":")
            device = os.makedev(int(major, 16), int(minor, 16))
            found.setdefault(int(inode), []).append((device, int(words[4])))
    return found


def parse_mounts(text: str) -> dict[str, str]:
    """Of /proc/self/mountinfo, whose lines are "22 27 0:21 / /proc rw,relatime - proc proc rw"; the later hides."""
    found = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4].encode().decode("unicode_escape")  # a blank is \\040
        found[point] = right.split()[0]
    return found


def has_open(process: int, file: os.stat_result) -> bool:
    """Btrfs and overlay name another device to stat() than to /proc/locks; the process's own files say which it is."""
    try:
        names = os.listdir(f"/proc/{process}/fd")
    except OSError:
        return False
    return any(is_same(f"/proc/{process}/fd/{name}", file) for name in names)


def is_same(path: str, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), file)
    except OSError:
        return False
