"""Where results go: another node by C-STORE, or an archive by STOW-RS. Each is read back before it counts as sent."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from lucency.errors import ParameterError
from lucency.pacs.access import Access
from lucency.pacs.delivery import Destination
from lucency.pacs.dicomweb import DicomWeb
from lucency.pacs.dimse import Node


def destination(words: str, *, aet: str, access: Access | None = None, tls: bool = False) -> Destination:
    """The destination that ``AET@HOST:PORT`` or an address such as ``https://pacs/dicom-web`` names.

    Args:
        aet: Lucency's own title, for C-STORE.
        access: certificates and credentials.
        tls: whether C-STORE goes through TLS.

    Raises:
        ParameterError: when it names none, or holds a password.
    """
    access = access or Access()
    if "://" in words:
        return DicomWeb(address(words), access)
    found = re.fullmatch(r"([^@\\]{1,16})@(\[[0-9A-Fa-f:.]+\]|[^:@/\s]+):(\d{1,5})", words.strip())
    if found is None or not 0 < int(found[3]) < 65536 or not found[1].strip():
        raise ParameterError(
            f"{words} is no place to send to; write AET@HOST:PORT, or the https:// address of a DICOMweb archive."
        )
    return Node(found[1].strip(), found[2].strip("[]"), int(found[3]), aet, access, tls)


def address(words: str) -> str:
    """A DICOMweb address as it was written, without the last slash.

    Raises:
        ParameterError: when it is none, or holds a password.
    """
    try:
        parts = urlsplit(words)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        fine = False
    if not fine or parts.query or parts.fragment:
        raise ParameterError("That is no DICOMweb address; write https://HOST/PATH, such as https://pacs/dicom-web.")
    if parts.username is not None or parts.password is not None:
        raise ParameterError(
            "A name or password in an address ends up in logs; give --user, and the password in a file or the "
            "environment."
        )
    return words.rstrip("/")
