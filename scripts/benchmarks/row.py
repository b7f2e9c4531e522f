"""A figure: what tch-parity takes, and what its peer takes in the same run."""

from dataclasses import dataclass
from statistics import median


@dataclass
class Row:
    what: str
    ours: list[float]
    """Seconds, or MiB: one of each round."""
    peer: str = ""
    theirs: list[float] | None = None
    """Those of the peer, in the same rounds. None where there is a figure and nothing to measure it against."""
    unit: str = "s"
    """s, MiB, or steps/s: the figures are then seconds of a step, shown as steps in a second."""

    def ratio(self):
        """What tch-parity takes for each second, or MiB, of the peer's: the median of the rounds."""
        return median(a / b for a, b in zip(self.ours, self.theirs, strict=True))
