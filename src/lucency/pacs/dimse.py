"""A node that speaks DIMSE: C-STORE to send, C-FIND to read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import UID
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as FindInStudies  # type: ignore[attr-defined]

from lucency.pacs.access import Access
from lucency.pacs.delivery import Delivery, NotKeptError, RefusedError, UnreachableError

SECONDS = 60
_NO_USE = (0x0122, 0x0112)
"""Refused: SOP class not supported; no such SOP class."""


@dataclass(frozen=True)
class Node:
    """Another application entity."""

    aet: str
    host: str
    port: int
    own: str
    access: Access
    tls: bool = False

    @property
    def name(self) -> str:
        return f"{self.aet}@{self.host}:{self.port}"

    def deliver(self, files: Sequence[Path]) -> Delivery:
        objects = [_About.of(file) for file in files]
        left_out: dict[str, str] = {}
        kept: list[_About] = []
        with _Call(self, {(one.kind, one.syntax) for one in objects}) as call:
            for one in objects:
                said = call.stored(one)
                if said:
                    left_out[one.file.name] = said
                else:
                    kept.append(one)
            if not kept:
                raise RefusedError(f"{self.name} takes none of the objects ({next(iter(left_out.values()), 'none')}).")
            verified = call.verified(kept)
        return Delivery(tuple(one.instance for one in kept), left_out, verified)


@dataclass(frozen=True)
class _About:
    file: Path
    kind: str
    syntax: str
    study: str
    series: str
    instance: str

    @classmethod
    def of(cls, file: Path) -> _About:
        header = dcmread(file, stop_before_pixels=True)
        return cls(
            file,
            str(header.SOPClassUID),
            str(header.file_meta.TransferSyntaxUID),
            str(header.StudyInstanceUID),
            str(header.SeriesInstanceUID),
            str(header.SOPInstanceUID),
        )


class _Call:
    """An association for as long as a delivery takes."""

    def __init__(self, node: Node, contexts: set[tuple[str, str]]) -> None:
        self._node = node
        wanted = [build_context(UID(kind), UID(syntax)) for kind, syntax in sorted(contexts)]
        ae = AE(ae_title=node.own)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = SECONDS
        tls = (node.access.calling(), node.host) if node.tls else None
        self._association: Association = ae.associate(
            node.host, node.port, contexts=[*wanted, build_context(FindInStudies)], ae_title=node.aet, tls_args=tls
        )
        if not self._association.is_established:
            raise UnreachableError(f"{node.name} {self._why(tls is not None)}.")

    def _why(self, tls: bool) -> str:
        if self._association.is_rejected:
            return f"does not let {self._node.own} in; enter that title there"
        if self._association.acceptor.primitive is not None:
            return "takes none of these kinds of object"
        return "does not answer" + (" over TLS, or its certificate is not believed" if tls else "")

    def __enter__(self) -> _Call:
        return self

    def __exit__(self, *_: object) -> None:
        if self._association.is_established:
            self._association.release()
        else:
            self._association.abort()

    def stored(self, one: _About) -> str:
        """Why it takes no such object; empty when it took it."""
        accepted = {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in self._association.accepted_contexts}
        if (one.kind, one.syntax) not in accepted:
            return f"{self._node.name} takes no {UID(one.kind).name}"
        try:
            status: Dataset = self._association.send_c_store(one.file)
        except (RuntimeError, ValueError, OSError) as error:
            raise UnreachableError(f"{self._node.name} broke off while {one.file.name} was sent ({error}).") from error
        if "Status" not in status:
            raise UnreachableError(f"{self._node.name} broke off while {one.file.name} was sent.")
        code = int(status.Status)
        if code == 0 or code & 0xF000 == 0xB000:
            return ""
        said = f"status {code:04X}" + (f", {status.ErrorComment}" if status.get("ErrorComment") else "")
        if code in _NO_USE:
            return f"{self._node.name} takes no {UID(one.kind).name} ({said})"
        if code & 0xFF00 == 0xA700 or code == 0x0124:
            raise UnreachableError(f"{self._node.name} has no room or lets nobody in at present ({said}).")
        if code & 0xF000 == 0xC000 or code == 0x0110:
            raise NotKeptError(f"{self._node.name} fails on {one.file.name} ({said}).")
        raise RefusedError(f"{self._node.name} refuses {one.file.name} ({said}).")

    def verified(self, kept: Sequence[_About]) -> bool:
        """Whether it holds them, as far as it can be asked.

        Raises:
            NotKeptError: when it does not.
        """
        if FindInStudies not in {c.abstract_syntax for c in self._association.accepted_contexts}:
            return False
        for study, series in sorted({(one.study, one.series) for one in kept}):
            there = self._found(study, series)
            missing = [one for one in kept if one.series == series and one.instance not in there]
            if missing:
                raise NotKeptError(f"{self._node.name} said that it keeps {missing[0].file.name} and does not find it.")
        return True

    def _found(self, study: str, series: str) -> set[str]:
        query = Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        query.StudyInstanceUID, query.SeriesInstanceUID, query.SOPInstanceUID = study, series, ""
        there = set()
        for status, found in self._association.send_c_find(query, FindInStudies):
            if "Status" not in status or (int(status.Status) not in (0x0000, 0xFF00, 0xFF01)):
                raise UnreachableError(f"{self._node.name} broke off while it was asked what it holds.")
            if found is not None and "SOPInstanceUID" in found:
                there.add(str(found.SOPInstanceUID))
        return there
