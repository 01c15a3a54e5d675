"""The command line. Nothing here is imported before it is needed: `lucency --help` answers at once."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import Any, TextIO

OK, BUG, USAGE, UNWRITTEN, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143
"""Exit codes: done; a fault of Lucency's own; wrong usage or input; results that cannot be written; Ctrl-C; killed."""


def main(arguments: list[str] | None = None) -> None:
    """Runs a command and ends the process with its exit code; whatever happens, the user reads one sentence."""
    if arguments is None:
        arguments = sys.argv[1:]
        # So that what is half-written goes, as it does after Ctrl-C.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    stream = sys.stdout
    if stream is not None:
        sys.stdout = _Stdout(stream)
    try:
        code = _code(arguments)
    finally:
        sys.stdout = stream
    sys.exit(code)


def _code(arguments: list[str]) -> int:
    from lucency.errors import LucencyError, OutputError

    try:
        try:
            from lucency.cli.app import app
        except ModuleNotFoundError as error:
            if error.name not in ("typer", "rich"):
                raise
            return _failed("The command line needs one more package; run pip install 'lucency[cli]'.", USAGE)
        if any("\0" in argument for argument in arguments):
            return _failed("An argument holds a zero byte, which no name can; leave it out.", USAGE)
        ended = app(arguments or ["--help"], prog_name="lucency", obj=arguments, standalone_mode=False)
        code = USAGE if not arguments else ended if isinstance(ended, int) else OK
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else OK
    except _ReaderGoneError:
        # As in `lucency models | head -1`: who has read enough is content.
        return OK
    except LucencyError as error:
        unwritten = isinstance(error, OutputError)
        return _failed(str(error), UNWRITTEN if unwritten else USAGE, kind=error, arguments=arguments)
    except KeyboardInterrupt:
        return _failed("Interrupted.", INTERRUPTED)
    except Exception as error:
        if hasattr(error, "format_message"):
            # Typer's, about words that it does not know; it would print them as they are.
            context = getattr(error, "ctx", None)
            help_at = f"{getattr(context, 'command_path', 'lucency')} --help"
            return _failed(
                f"{error.format_message().rstrip('.')}; see {help_at}.", USAGE, kind=error, arguments=arguments
            )
        if os.environ.get("LUCENCY_DEBUG"):
            traceback.print_exc()
        if isinstance(error, OSError) and error.errno is not None and error.errno in _PLACES:
            where = "A file" if error.filename is None else os.fsdecode(error.filename)
            return _failed(
                f"{where} cannot be used ({error.strerror}); check its name, permissions and the free space.",
                UNWRITTEN if error.errno in _FULL else USAGE,
                kind=error,
                arguments=arguments,
            )
        return _failed(
            f"Lucency failed ({type(error).__name__}: {line_of(error)}), and that is a fault of its own; "
            "set LUCENCY_DEBUG=1 to see where, and please report it.",
            BUG,
            kind=error,
            arguments=arguments,
        )


_FULL = {getattr(errno, name, None) for name in ("ENOSPC", "EDQUOT", "EROFS")}
_PLACES = _FULL | {errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EIO, errno.ELOOP, errno.ENOTDIR}
"""What the operating system says about places; no fault of a program."""


class _ReaderGoneError(Exception):
    """Whoever read standard output has closed it."""


class _Stdout:
    """Standard output that says in Lucency's own words when it can take no more, and writes what has no encoding."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return int(self._tried(lambda: self._stream.write(text)))

    def flush(self) -> None:
        self._tried(self._stream.flush)

    def _tried(self, act: Any) -> Any:
        from lucency.errors import OutputError

        try:
            return act()
        except BrokenPipeError as error:
            _muted(self._stream)
            raise _ReaderGoneError from error
        except OSError as error:
            _muted(self._stream)
            raise OutputError(
                f"Standard output cannot be written ({error.strerror or error}); free space or send it elsewhere."
            ) from error


def _muted(stream: TextIO) -> None:
    """What is still in its buffer goes nowhere, so that Python does not fail over it when it ends."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def line_of(error: Exception) -> str:
    """What an exception has to say, on one line of bounded length."""
    return " ".join(str(error).split())[:300] or "no message"


def _failed(sentence: str, code: int, *, kind: Exception | None = None, arguments: list[str] | None = None) -> int:
    from lucency.privacy import printable

    if kind is not None and arguments is not None and "--json" in arguments and sys.stdout is not None:
        import json

        from lucency.errors import LucencyError

        # Where standard output is what failed, the exit code has to do.
        with suppress(LucencyError, _ReaderGoneError):
            print(json.dumps({"error": sentence, "kind": type(kind).__name__}), flush=True)
    if sys.stderr is not None:
        try:
            print(printable(sentence).replace("\n", " "), file=sys.stderr, flush=True)
        except OSError:
            _muted(sys.stderr)
    return code
