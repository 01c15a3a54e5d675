"""The command line. Nothing here is imported before it is needed: `lucency --help` answers at once."""

from __future__ import annotations

import os
import signal
import sys
import traceback

OK, BUG, USAGE, UNWRITTEN, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143
"""Exit codes: done; a fault of Lucency's own; wrong usage or input; results that cannot be written; Ctrl-C; killed."""


def main(arguments: list[str] | None = None) -> None:
    """Runs a command and ends the process with its exit code; whatever happens, the user reads one sentence."""
    from lucency.errors import LucencyError, OutputError

    if arguments is None:
        arguments = sys.argv[1:]
        # So that what is half-written goes, as it does after Ctrl-C.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        try:
            from lucency.cli.app import app
        except ModuleNotFoundError as error:
            if error.name not in ("typer", "rich"):
                raise
            _fail("The command line needs one more package; run pip install 'lucency[cli]'.", USAGE)
        app(arguments, prog_name="lucency", obj=arguments)
    except LucencyError as error:
        _fail(str(error), UNWRITTEN if isinstance(error, OutputError) else USAGE, kind=error, arguments=arguments)
    except KeyboardInterrupt:
        _fail("Interrupted.", INTERRUPTED)
    except Exception as error:
        if os.environ.get("LUCENCY_DEBUG"):
            traceback.print_exc()
        _fail(
            f"Lucency failed ({type(error).__name__}: {line_of(error)}), and that is a fault of its own; "
            "set LUCENCY_DEBUG=1 to see where, and please report it.",
            BUG,
            kind=error,
            arguments=arguments,
        )


def line_of(error: Exception) -> str:
    """What an exception has to say, on one line of bounded length."""
    return " ".join(str(error).split())[:300] or "no message"


def _fail(sentence: str, code: int, *, kind: Exception | None = None, arguments: list[str] | None = None) -> None:
    if kind is not None and arguments is not None and "--json" in arguments:
        import json

        print(json.dumps({"error": sentence, "kind": type(kind).__name__}))
    print(sentence, file=sys.stderr)
    sys.exit(code)
