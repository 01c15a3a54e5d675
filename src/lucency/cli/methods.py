"""``lucency methods``: what can be asked for, and with which parameters."""

from __future__ import annotations

from typing import Any

from lucency.cli.options import AsJson


def methods(as_json: AsJson = False) -> None:
    """List the methods, their papers and their parameters."""
    from lucency.cli.console import print_json, say
    from lucency.explanation import describe
    from lucency.methods import METHODS
    from lucency.removal import Removal

    found: list[dict[str, Any]] = [
        {
            "name": name,
            "title": method.title,
            "paper": method.paper,
            "needs_gradients": method.needs_gradients,
            "unit": method.unit,
            **describe(method()),
        }
        for name, method in METHODS.items()
    ]
    if as_json:
        print_json(found)
        return
    for row in found:
        needs = "  (needs gradients)" if row["needs_gradients"] else ""
        say((row["name"], "bold"), f"  {row['title']}, {row['paper']}", (needs, "dim"))
        shown = "  ".join(f"{key}={_short(value)}" for key, value in row["parameters"].items())
        say((f"  {shown or 'no parameters'}", "dim"))
    say("\nChange a parameter with --set, as in: lucency explain SCAN --method occlusion --set patch=24")
    say("\nWhat stands where something was removed (--removal NAME), and what that costs beside the model's work:")
    for removal in map(Removal.of, Removal.words()):
        say("  ", (removal.name, "bold"), f"  {removal.cost}{'' if removal.deterministic else ', random'}")


def _short(value: Any) -> str:
    if isinstance(value, dict):
        inside = ", ".join(f"{k}={_short(v)}" for k, v in value.get("parameters", {}).items())
        return f"{value['name']}({inside})" if inside else str(value["name"])
    if isinstance(value, list):
        return ",".join(map(_short, value)) or "none"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
