"""Names of arms and amounts as sentences have them; tables have the short names."""

from __future__ import annotations

from prune_nas.design.subject import count

ARMS = {
    "base": "the unpruned network",
    "found": "the found network",
    "transferred": "the transferred network",
    "pruned": "the pruned network",
    "guided": "the guided network",
    "inherited": "the inherited network",
    "uniform": "uniform scaling",
    "uniform@macs": "uniform scaling with equal macs",
    "uniform@params": "uniform scaling with equal params",
    "uniform@latency": "uniform scaling with equal latency",
    "taper": "the taper",
    "random": "the median random network",
    "random (best)": "the best random network",
}


def spoken(arm: str, schedule: str = "scratch-e") -> str:
    """An arm in words, with its schedule unless that is scratch-e."""
    name = ARMS.get(arm, arm)
    return name if schedule in ("scratch-e", "") else f"{name} ({schedule})"


def capital(sentence: str) -> str:
    """A sentence with its first letter in upper case."""
    return sentence[:1].upper() + sentence[1:]


def percent(share: float) -> str:
    """A share in percent with one digit: `16.7 %`."""
    return f"{100 * share:.1f} %"


def accuracy(mean: float, std: float | None) -> str:
    """An accuracy in percent with its deviation over seeds, where there is one: `81.6 ± 0.5 %`."""
    return percent(mean) if std is None else f"{100 * mean:.1f} ± {100 * std:.1f} %"


def span(low: float, high: float, n: int) -> str:
    """An interval of differences in points: `95 % CI 3.1 to 9.3, n = 3`."""
    return f"95 % CI {100 * low:.1f} to {100 * high:.1f}, n = {n}"


def duration(seconds: float) -> str:
    """A time as one reads it: 42 s, 3 min, 1 h 20 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


__all__ = ["ARMS", "accuracy", "capital", "count", "duration", "percent", "span", "spoken"]
