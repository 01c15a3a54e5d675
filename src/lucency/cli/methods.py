"""``lucency methods``: what can be asked for, and with which parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from lucency.cli.options import AsJson


def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="A method, a removal or a way to cut superpixels: what it does.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the methods, their papers and their parameters; or show what one does and what each parameter means."""
    if name is not None:
        _one(name, as_json)
        return
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
    say("\nWhat one does, and what its parameters mean: lucency methods occlusion")
    say("Change a parameter with --set, as in: lucency explain SCAN --method occlusion --set patch=24")
    say("\nWhat stands where something was removed (--removal NAME), and what that costs beside the model's work:")
    for removal in map(Removal.of, Removal.words()):
        say("  ", (removal.name, "bold"), f"  {removal.cost}{'' if removal.deterministic else ', random'}")


def _one(name: str, as_json: bool) -> None:
    from lucency.cli.console import print_json, say
    from lucency.explanation import describe
    from lucency.masks.superpixels import superpixels
    from lucency.methods import METHODS, Method
    from lucency.parameters import by_word, lookup, parameters_of, summary_of
    from lucency.removal import removals

    tables: dict[str, Mapping[str, type[Any]]] = {
        "method": METHODS,
        "removal": removals(),
        "superpixels": superpixels(),
    }
    every: dict[str, type[Any]] = {word: cls for table in tables.values() for word, cls in table.items()}
    cls = lookup(name, every, "method, removal or way to cut superpixels")
    method = issubclass(cls, Method)
    # What needs arguments has no defaults to show.
    defaults = describe(cls())["parameters"] if cls.name in by_word(every) else {}
    found: dict[str, Any] = {
        "name": cls.name,
        "kind": next(kind for kind, table in tables.items() if cls in table.values()),
        **({word: getattr(cls, word) for word in ("title", "paper", "unit", "needs_gradients")} if method else {}),
        "does": summary_of(cls),
        "parameters": [
            {"name": p.name, "default": defaults.get(p.name), "takes": list(p.takes), "meaning": p.meaning}
            for p in parameters_of(cls)
        ],
    }
    if as_json:
        print_json(found)
        return
    say((found["name"], "bold"), f"  {found['title']}, {found['paper']}" if method else f"  {found['kind']}")
    say(found["does"])
    if method:
        say(("A pixel of its map: ", "dim"), found["unit"])
        if found["needs_gradients"]:
            say(("Needs gradients, so a PyTorch network.", "dim"))
    for row in found["parameters"]:
        say()
        say((row["name"], "bold"), f" = {_short(row['default'])}", (f"   {' | '.join(row['takes'])}", "dim"))
        say(f"  {row['meaning']}")


def _short(value: Any) -> str:
    if isinstance(value, dict):
        inside = ", ".join(f"{k}={_short(v)}" for k, v in value.get("parameters", {}).items())
        return f"{value['name']}({inside})" if inside else str(value["name"])
    if isinstance(value, list):
        return ",".join(map(_short, value)) or "none"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
