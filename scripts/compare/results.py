"""A measured row, what it must reach, and how it is shown."""
import json
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Kind:
    """How two numbers become the one that is held against the bar."""
    ratio: object       # of (theirs, ours)
    more: bool          # more is better
    alone: bool = False  # there is no peer: the number itself is held against the bar


KINDS = {
    "rate": Kind(lambda theirs, ours: ours / theirs, True),
    "speed-up": Kind(lambda theirs, ours: theirs / ours, True),
    "time": Kind(lambda theirs, ours: ours / theirs, False),
    "error": Kind(lambda theirs, ours: ours / theirs, False),
    "share": Kind(lambda theirs, ours: ours, False, alone=True),
    "same": Kind(lambda theirs, ours: ours, True, alone=True),
}
CHECKS = ("error", "same")  # shown as a table of their own


@dataclass
class Result:
    row: str
    what: str
    kind: str
    against: str = ""
    unit: str = ""
    theirs: float = None
    ours: float = None
    bar: float = None
    aim: float = None
    problem: str = ""  # why moonkiln's number is missing, if it should be there
    note: str = ""     # why it is missing for a good reason
    detail: dict = field(default_factory=dict)

    @property
    def ratio(self):
        kind = KINDS[self.kind]
        known = self.ours is not None and (kind.alone or self.theirs and self.ours)
        return kind.ratio(self.theirs, self.ours) if known else None

    def reaches(self, target):
        if self.ratio is None or target is None:
            return None
        return self.ratio >= target if KINDS[self.kind].more else self.ratio <= target

    @property
    def verdict(self):
        if self.problem:
            return "failed"
        if self.ratio is None:
            return self.note or "-"
        if self.reaches(self.aim):
            return "aim"
        return "bar" if self.reaches(self.bar) else "-" if self.bar is None else "missed"


def number(value, unit):
    if value is None:
        return "-"
    if unit == "error":
        return f"{value:.2e}"
    if unit == "same":
        return "yes" if value else "no"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}{' ' + unit if unit else ''}"


def target(result, value):
    if value is None:
        return "-"
    if result.kind == "same":
        return "yes"
    sign = "≥" if KINDS[result.kind].more else "≤"
    return f"{sign} {value:g}{' ' + result.unit if result.kind == 'share' else ''}"


def cells(result):
    ratio = "-" if result.ratio is None or KINDS[result.kind].alone else f"{result.ratio:.2f}"
    return [result.what, result.against or "-", number(result.theirs, result.unit), number(result.ours, result.unit), ratio,
            target(result, result.bar), target(result, result.aim), result.verdict]


def line(result):
    """For the terminal, as soon as it is measured."""
    what, against, theirs, ours, ratio, bar, _, verdict = cells(result)
    text = f"{what}: {theirs} ({against}), moonkiln {ours}, ratio {ratio}, bar {bar}: {verdict}"
    return text + (f"\n  {result.problem}" if result.problem else "")


def table(results):
    heads = ["what", "against", "theirs", "moonkiln", "ratio", "bar", "aim", "reached"]
    rows = [heads, ["---"] * len(heads), *(cells(r) for r in results)]
    return "\n".join("| " + " | ".join(str(c).replace("|", "\\|") for c in row) + " |" for row in rows)


def markdown(run):
    """The README's part: where and when, speed, correctness, what was left out."""
    where = f"One {run['card']}, {run['date']}, commit {run['commit']}; {run['software']}; medians, random weights and inputs."
    parts = [where, "Ratios: TFLOP/s over theirs and speed-ups (≥), moonkiln's time over theirs (≤)."]
    speed = [r for r in run["results"] if r.kind not in CHECKS]
    checks = [r for r in run["results"] if r.kind in CHECKS]
    if speed:
        parts.append(table(speed))
    if checks:
        parts += ["Relative errors against fp32:", table(checks)]
    if run["left_out"]:
        parts.append("Not measured: " + "; ".join(run["left_out"]) + ".")
    return "\n\n".join(parts) + "\n"


def save(run, path):
    path.write_text(json.dumps({**run, "results": [asdict(r) | {"ratio": r.ratio, "reached": r.verdict} for r in run["results"]]},
                               indent=2) + "\n")


def load(paths):
    """One run of several files of save(): later files replace what earlier ones measured too."""
    merged, results = {}, {}
    for path in paths:
        run = json.loads(path.read_text())
        for key in ("card", "date", "commit", "software"):
            if merged.get(key, run[key]) != run[key]:
                merged[key] += f" and {run[key]}"
            else:
                merged[key] = run[key]
        for r in run["results"]:
            result = Result(**{k: v for k, v in r.items() if k not in ("ratio", "reached")})
            results[result.row, result.what, result.kind] = result
    return {**merged, "results": list(results.values()), "left_out": []}
