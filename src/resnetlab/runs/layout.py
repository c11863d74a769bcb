"""Where a run lives: a readable folder name, made unique by a hash of what changes the result."""

from pathlib import Path

OUTPUTS = Path("outputs")


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.csv"
        self.summary = path / "summary.json"
        self.manifest = path / "manifest.json"
        self.curves = path / "curves.png"
        self.lock = path / ".lock"
        self.trace = path / "profile" / "trace.json.gz"
        self.operations = path / "profile" / "operations.txt"
        self.checkpoints = path / "checkpoints"
        self.best = self.checkpoints / "best.ckpt"
        self.last = self.checkpoints / "last.ckpt"
        self.previous = self.checkpoints / "last.prev.ckpt"

    def remove_leftovers(self) -> None:
        """Removes the temporary files that a kill in the middle of writing left behind."""
        for path in (*self.path.glob("*.part"), *self.checkpoints.glob("*.part")):
            path.unlink()

    def snapshot(self, epoch: int) -> Path:
        """The checkpoint that is kept of that epoch, if snapshots asks for it."""
        return self.checkpoints / f"epoch={epoch}.ckpt"
