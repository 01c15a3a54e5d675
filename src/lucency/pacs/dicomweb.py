"""An archive that speaks DICOMweb: STOW-RS to send, QIDO-RS to read back and to look, WADO-RS to fetch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dicomweb_client import DICOMwebClient
from pydicom import Dataset, dcmread
from requests import RequestException, Response
from requests.exceptions import HTTPError

from lucency.pacs.access import Access
from lucency.pacs.delivery import Delivery, NotKeptError, RefusedError, UnreachableError

SECONDS = (10.0, 120.0)
PAGE = 500
"""Instances that are asked for at once."""
_CLOSED = (401, 403, 404, 408, 425, 429, 502, 503, 504, 507)
"""Answers that all objects get: somebody has to mend something, or it passes."""
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class DicomWeb:
    """An archive at an address."""

    url: str
    access: Access

    @property
    def name(self) -> str:
        return self.url

    def deliver(self, files: Sequence[Path]) -> Delivery:
        objects = [dcmread(file) for file in files]
        with self._client() as client:
            # Without a limit dicomweb-client sends more than a megabyte in chunks, and Orthanc has answered 200 to
            # these and kept nothing.
            client.set_chunk_size(2**40)
            for one in objects:
                self._said(client.store_instances, [one], one.StudyInstanceUID)
            series = sorted({(str(one.StudyInstanceUID), str(one.SeriesInstanceUID)) for one in objects})
            there = {uid for study, number in series for uid in self._instances(client, study, number)}
            for file, one in zip(files, objects, strict=True):
                if one.SOPInstanceUID not in there:
                    raise NotKeptError(f"{self.name} said that it keeps {file.name} and does not find it.")
        return Delivery(tuple(str(one.SOPInstanceUID) for one in objects), {}, True)

    def _instances(self, client: DICOMwebClient, study: str, series: str) -> Iterator[str]:
        for found in self._said(client.search_for_instances, study, series):
            yield str(Dataset.from_json(found).SOPInstanceUID)

    def films(self, study: str, series: str | None = None) -> list[tuple[str, str, str]]:
        """What a study, or a series of it, holds: study, series and SOP instance UID of each, in a fixed order.

        Raises:
            UnreachableError, RefusedError: as for :meth:`deliver`.
        """
        with self._client() as client:
            found = [Dataset.from_json(one) for one in self._said(client.search_for_instances, study, series)]
        return sorted((study, str(one.get("SeriesInstanceUID") or series), str(one.SOPInstanceUID)) for one in found)

    def search(self, filters: Mapping[str, str]) -> Iterator[Dataset]:
        """Every instance that matches, with its three UIDs and the number of its patient, one page after another.

        Raises:
            UnreachableError, RefusedError: as for :meth:`deliver`.
        """
        seen = 0
        last = ""
        with self._client() as client:

            def page(offset: int) -> list[dict[str, Any]]:
                return client.search_for_instances(
                    limit=PAGE,
                    offset=offset,
                    fields=["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "PatientID"],
                    search_filters=dict(filters),
                )

            while found := [Dataset.from_json(one) for one in self._said(page, seen)]:
                if str(found[0].SOPInstanceUID) == last:
                    return  # it knows no pages
                last = str(found[0].SOPInstanceUID)
                seen += len(found)
                yield from found

    def fetch(self, study: str, series: str, instance: str, file: Path) -> None:
        """Writes one instance to a file, in the transfer syntax in which the archive holds it.

        Raises:
            UnreachableError, RefusedError: as for :meth:`deliver`.
        """
        with self._client() as client:
            self._said(client.retrieve_instance, study, series, instance).save_as(file, enforce_file_format=True)

    @contextmanager
    def _client(self) -> Iterator[DICOMwebClient]:
        session = self.access.session(self.url)
        try:
            client = DICOMwebClient(self.url, session=session, timeout=SECONDS, permissive_uid=True)
            # The job tries again, and knows when to stop.
            client.set_http_retry_params(retry=False)
            yield client
        finally:
            session.close()

    def _said(self, ask: Callable[..., _Found], *arguments: Any) -> _Found:
        try:
            return ask(*arguments)
        except HTTPError as error:
            code = error.response.status_code if isinstance(error.response, Response) else 0
            if code in _CLOSED:
                raise UnreachableError(f"{self.name} answers {code} at present{_hint(code)}.") from error
            if code >= 500:
                raise NotKeptError(f"{self.name} fails and answers {code}.") from error
            raise RefusedError(f"{self.name} refuses it and answers {code}.") from error
        except (RequestException, OSError) as error:
            kind = "its certificate is not believed" if "SSL" in type(error).__name__ else "nobody answers"
            raise UnreachableError(f"{self.name} cannot be reached: {kind}.") from error
        except (ValueError, KeyError, TypeError, AttributeError, NotImplementedError) as error:
            raise RefusedError(f"{self.name} answers with something that is no DICOMweb.") from error


def _hint(code: int) -> str:
    return "; check user, password or token" if code in (401, 403) else "; check the address" if code == 404 else ""
