"""Damage to a run's directory while no process works on it: changed bits, and what a power loss takes."""

import os
from pathlib import Path


def complete(run):
    """The complete checkpoints of a run, the last one first."""
    folder = run / "checkpoint"
    found = [path for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []
    return sorted((path for path in found if (path / "SHA256SUMS").is_file()), reverse=True)


def flip_bit(run, rng):
    """Changes one bit of one file of the last complete checkpoint. Returns the file, or None if there is none."""
    checkpoints = complete(run)
    if not checkpoints:
        return None
    path = rng.choice(sorted(path for path in checkpoints[0].iterdir() if path.stat().st_size > 0))
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data))
    data[at] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return path


class PowerLoss:
    """Takes from a folder what a process had not forced to the disk, by the shim's journal of what it did. Before the
    process all was on the disk."""

    def __init__(self, root, lies=False):
        self.root = Path(root)
        self.lies = lies  # The disk says that it has what it has not.
        self.sizes = {str(path): path.stat().st_size for path in self.root.rglob("*") if path.is_file()}

    def strike(self, journal, rng):
        """Cuts every file to the bytes that were forced to the disk, and, in half of the cases, removes names that were
        not."""
        sizes, unsynced, moved = self.sizes, set(), None
        for line in Path(journal).read_text().splitlines() if Path(journal).is_file() else []:
            what, number, path = line.split(" ", 2)
            if what == "M":
                moved = path
            elif what in "FD" and self.lies:
                pass
            elif what == "F":
                sizes[path] = int(number)
            elif what == "D":
                unsynced = {name for name in unsynced if os.path.dirname(name) != path}
            else:
                if moved is not None:
                    sizes = relocated(sizes, moved, path)
                    unsynced = set(relocated(dict.fromkeys(unsynced), moved, path)) - {moved}
                    moved = None
                elif what == "N":
                    sizes.pop(path, None)
                if what == "N":
                    unsynced.add(path)
        for path in sorted(self.root.rglob("*")):
            if path.is_file() and path.stat().st_size > sizes.get(str(path), 0):
                os.truncate(path, sizes.get(str(path), 0))
        if rng.random() < 0.5:
            for path in sorted(map(Path, unsynced)):
                if path.is_file() and rng.random() < 0.5:
                    path.unlink()


def relocated(sizes, before, after):
    """The paths after a file or a folder was renamed."""
    def new(path):
        if path == before or path.startswith(before + "/"):
            return after + path[len(before):]
        return path

    # What lay at the new place is gone.
    return {new(path): size for path, size in sizes.items() if path != after}
