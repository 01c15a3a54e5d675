"""Who may talk to whom: certificates, passwords and tokens."""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from requests import PreparedRequest, Session
from requests.auth import AuthBase, HTTPBasicAuth

from lucency.errors import ParameterError

PASSWORD, TOKEN = "LUCENCY_DICOMWEB_PASSWORD", "LUCENCY_DICOMWEB_TOKEN"
"""The environment variables that hold what no command line should."""


@dataclass(frozen=True)
class Access:
    """What Lucency shows of itself, and what it asks of others. No secret is in it: files and names of variables are.

    Attributes:
        certificate, key: PEM files of its own certificate (with the chain) and of the key.
        authorities: a PEM file with the certificates that are believed; those of the system when ``None``.
        user: the name for basic authentication; the password comes from ``password_file`` or the environment.
        password_file, token_file: files with nothing but the password, or a bearer token, in them. They are read at
            each use, so a new token needs no new start.
    """

    certificate: Path | None = None
    key: Path | None = None
    authorities: Path | None = None
    user: str | None = None
    password_file: Path | None = None
    token_file: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ParameterError("A certificate needs its key, and a key its certificate; give both.")

    def served(self) -> ssl.SSLContext | None:
        """For a port of one's own: TLS where there is a certificate, and mutual where authorities are named."""
        if self.certificate is None:
            return None
        context = _InItsThread(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._load(context)
        if self.authorities is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def calling(self) -> ssl.SSLContext:
        """For a call to another's port: its certificate and its name are checked, and one's own is shown if asked."""
        context = ssl.create_default_context()
        if self.authorities is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            if self.certificate is not None and self.key is not None:
                # An empty password: a key that has one would be asked for at the terminal.
                context.load_cert_chain(self.certificate, self.key, password="")
            if self.authorities is not None:
                context.load_verify_locations(self.authorities)
        except (OSError, ValueError) as error:
            raise ParameterError(
                f"The certificates cannot be used ({getattr(error, 'reason', None) or error}); give PEM files, the key "
                "without a password."
            ) from error

    def session(self, url: str) -> Session:
        """A session for a DICOMweb address.

        Raises:
            ParameterError: when a secret would travel in clear text.
        """
        session = Session()
        # A .netrc or a proxy of the environment would decide where patients' films go.
        session.trust_env = False
        auth = self._auth()
        if auth is not None and urlsplit(url).scheme != "https" and not is_loopback(urlsplit(url).hostname or ""):
            raise ParameterError("A password or token would travel in clear text; give an https:// address.")
        session.auth = auth
        if self.authorities is not None:
            session.verify = str(_there(self.authorities))
        if self.certificate is not None and self.key is not None:
            session.cert = (str(_there(self.certificate)), str(_there(self.key)))
        return session

    def _auth(self) -> AuthBase | None:
        if self.token_file is not None or (self.user is None and os.environ.get(TOKEN)):
            return _Bearer(self.token_file)
        if self.user is not None:
            password = _secret(self.password_file) if self.password_file else os.environ.get(PASSWORD)
            if password is None:
                raise ParameterError(f"The password of {self.user} is missing; set {PASSWORD} or give --password-file.")
            return HTTPBasicAuth(self.user.encode(), password.encode())
        return None


class _InItsThread(ssl.SSLContext):
    """Shakes hands when a call is first read from, in the thread of that call: pynetdicom would do so in the one that
    lets callers in, and a caller who says nothing would keep all others out."""

    def wrap_socket(self, *arguments: Any, **how: Any) -> ssl.SSLSocket:
        return super().wrap_socket(*arguments, **{**how, "do_handshake_on_connect": False})


class _Bearer(AuthBase):
    def __init__(self, file: Path | None) -> None:
        self._file = file

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        token = _secret(self._file) if self._file else os.environ.get(TOKEN, "")
        request.headers["Authorization"] = f"Bearer {token.strip()}"
        return request


def _secret(file: Path) -> str:
    try:
        said = file.read_text().strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(f"{file} cannot be read; put nothing but the password or the token into it.") from error
    if not said or not said.isprintable():
        raise ParameterError(f"{file} holds no password or token; put it there on one line.")
    return said


def _there(file: Path) -> Path:
    if not file.is_file():
        raise ParameterError(f"{file} is no file; give a PEM file.")
    return file


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
