"""Results are written whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lucency.errors import OutputError


@contextmanager
def results(folder: Path) -> Iterator[Path]:
    """A place to write files to; they move into ``folder`` together when all of them are there.

    Raises:
        OutputError: when the folder cannot be made or written; nothing half-written is left then.
    """
    made = not folder.exists()
    stage: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".lucency-", dir=folder))
        yield stage
        for file in sorted(stage.iterdir()):
            file.replace(folder / file.name)
        made = False
    except OutputError as error:
        # The user named the folder, and never saw the place inside it.
        raise OutputError(str(error).replace(str(stage), str(folder))) from error
    except OSError as error:
        # NumPy counts bytes where the disk is full: "262144 requested and 16352 written".
        why = "No space left on device" if " requested and " in str(error) else error.strerror or error
        raise OutputError(
            f"The results cannot be written to {folder} ({why}); free space or name another folder with --out."
        ) from error
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)
        if made:
            shutil.rmtree(folder, ignore_errors=True)
