"""The page of the trust table: its tables and its recommendation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lucency.records import Record
from trust.measuring import PIECES, TOLERATED, Recommendation, artefact_rate, recommend, removals_summary, summary
from trust.record import MethodRow, RemovalRow, TrustRow


@dataclass(frozen=True)
class Tables(Record):
    """Everything that the page says.

    Attributes:
        methods, removals: rows by the kind of scans; the numbers of a method hold its artefact rate.
        recommendation: once there are enough phantoms.
    """

    methods: Mapping[str, Sequence[MethodRow]]
    removals: Mapping[str, Sequence[RemovalRow]]
    recommendation: Recommendation | None


def tables(rows: Sequence[TrustRow]) -> Tables:
    """What the rows add up to."""
    boxes = sorted({row.kind for row in rows if row.kind.startswith("box")})
    methods = {
        kind: [_with_artefacts(rows, row, "phantom" if kind == "phantom" else "normal") for row in summary(rows, kind)]
        for kind in ("phantom", "simulated", *boxes)
    }
    removals = {kind: removals_summary(rows, kind) for kind in ("phantom", "simulated", "normal")}
    return Tables(methods, removals, recommend(rows))


def _with_artefacts(rows: Sequence[TrustRow], row: MethodRow, kind: str) -> MethodRow:
    rate = artefact_rate(rows, row, kind)
    return row if rate is None else replace(row, numbers={**row.numbers, "artefacts": rate})


TITLES = {
    "phantom": "Phantoms, `lucency:phantom`",
    "simulated": "Normal films with simulated fluid, `lucency:effusion`",
    "box": "Real films with a radiologist's box, `lucency:effusion`",
    "normal": "Real films without a finding, `lucency:effusion`",
}
COLUMNS = {
    "pointing_game": "pointing game", "iou": "IoU", "energy": "energy in mask", "aopc": "AOPC", "road": "ROAD",
    "artefacts": "artefact rate (%)", "gold": "agreement with gold", "stability": "stability",
    "pointing_game_large": "pointing game, 200 ml and more", "iou_large": "IoU, 200 ml and more",
}  # fmt: skip


def markdown(rows: Sequence[TrustRow], command: str) -> str:
    """The tables and the recommendation as a page."""
    found = tables(rows)
    parts = [f"Made by\n\n```\n{command}\n```\n"]
    for kind, methods in found.methods.items():
        if methods:
            columns = [c for c in COLUMNS if any(c in row.numbers for row in methods)]
            parts.append(f"## Methods and removals: {_title(kind)}\n")
            heads = ["method", "removal", *(COLUMNS[c] for c in columns), "threshold", "scans", "evaluations", "CPU s"]
            lines = [
                [row.method, row.removal or "none",
                 *(_cell(row.numbers.get(c), 100 if c == "artefacts" else 1) for c in columns),
                 f"{row.threshold:.2f}", str(row.cases), f"{row.evaluations:,.0f}", f"{row.seconds:.1f}"]
                for row in methods
            ]  # fmt: skip
            parts.append(_table(heads, lines))
    for kind, some in found.removals.items():
        if any("logit pearson" in row.numbers for row in some):
            parts.append(f"## Removals against the gold standard: {TITLES[kind]}\n")
            keys = [f"{watch} {key}" for watch in ("logit", "probability") for key in ("pearson", "spearman", "slope")]
            body = [[row.removal, *(_cell(row.numbers.get(key)) for key in keys), str(row.cases)] for row in some]
            parts.append(_table(["removal", *keys, "scans"], body))
        if any(row.normal for row in some):
            parts.append(f"## Artefacts: {TITLES[kind]}\n")
            keys = [f"{name} {what}" for name in PIECES for what in ("rate", "rise")]
            body = [
                [row.removal, *(_cell(row.numbers.get(key), 100 if key.endswith("rate") else 1) for key in keys),
                 str(row.normal)]
                for row in some
            ]  # fmt: skip
            heads = [f"{key} (%)" if key.endswith("rate") else key for key in keys]
            parts.append(_table(["removal", *heads, "scans called normal"], body))
    if found.recommendation is not None:
        parts += _recommended(found.recommendation)
    return "\n".join(parts) + "\n"


def _recommended(best: Recommendation) -> list[str]:
    told = best.reported.numbers
    parts = [
        "## Recommendation\n",
        f"**{best.method}** with removal **{best.removal or 'none'}**: chosen on every other phantom for the "
        "highest mean of pointing game, overlap and agreement with the gold standard "
        f"({best.score:.2f}), among those whose removal, with pieces of the size that the method takes away, "
        f"makes artefacts at a rate of at most {TOLERATED:.0%} there (among all, where none has). On the other "
        f"phantoms: pointing game {_cell(told['pointing_game'])}, "
        f"IoU {_cell(told['iou'])}, agreement with gold {_cell(told.get('gold'))}.",
    ]
    if best.lead is not None and best.rival is not None:
        mean, low, high = best.lead
        than = " with ".join(part or "no removal" for part in best.rival)
        if low > 0:
            parts.append(f"It scores higher there than the next best, {than}, by {_cell(best.lead)}.")
        elif high >= 0:
            parts.append(f"They do not tell it apart from the next best, {than} ({_cell(best.lead)}).")
        else:
            parts.append(f"There the next best, {than}, scores higher by {_cell((-mean, -high, -low))}.")
    return parts


def _title(kind: str) -> str:
    return TITLES.get(kind) or f"{TITLES['box']}, {kind.split(' ', 1)[1]}"


def _cell(value: Sequence[float] | None, times: float = 1) -> str:
    if value is None:
        return ""
    mean, low, high = (times * v for v in value)
    return f"{mean:.2f} ({low:.2f} to {high:.2f})"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
