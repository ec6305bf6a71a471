"""The client of 2016, for Python 3: the same ten functions, and the answers as `requests` gives them.

Importing it loads neither numpy nor pandas. Added to the original: time-outs, one connection kept per host, GETs that
are tried again, the priority (which the original took and never sent), `decode_predictions`.
"""

from __future__ import annotations

import base64
import os
import sys
import threading
import zlib
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 300.0

FileName = str | os.PathLike[str]

_of_thread = threading.local()


def read_compress(file_name: FileName) -> str:
    """Return a file's bytes as base64(zlib(bytes))."""
    return _packed(Path(file_name).read_bytes())


def url_post(
    url1: str,
    url2: str,
    username: str,
    password: str,
    data: Any,
) -> requests.Response:
    """POST JSON to url1 + url2."""
    url = _url(url1, url2)
    return _session(url).post(url, json=data, auth=_auth(username, password), timeout=(CONNECT_SECONDS, ANSWER_SECONDS))


def url_get(url1: str, url2: str, username: str, password: str, r_id: int | None = None) -> requests.Response:
    """GET url1 + url2, of one thing if its id is given."""
    url = _url(url1, url2 if r_id is None else f"{url2}{r_id}/")
    return _session(url).get(url, auth=_auth(username, password), timeout=(CONNECT_SECONDS, ANSWER_SECONDS))


def post_data(  # noqa: PLR0913 - the original's signature
    host_url: str,
    username: str,
    password: str,
    data_name: str,
    target_column: str,
    workflow_elements: str,
    data_file: FileName,
    extra_files: Iterable[FileName] | None = None,
) -> requests.Response:
    """Upload a dataset: its file and, for data of its own kind, a specific.py and what that needs."""
    data = {
        "name": data_name,
        "target_column": target_column,
        "workflow_elements": workflow_elements,
        "files": _files([data_file, *(extra_files or ())]),
    }
    return url_post(host_url, "/runapp/rawdata/", username, password, data)


def post_split(
    host_url: str, username: str, password: str, held_out_test: float, raw_data_id: int, random_state: int = 42
) -> requests.Response:
    """Split a dataset into a train part and a held-out test part, of the share `held_out_test`."""
    data = {"random_state": random_state, "held_out_test": held_out_test, "raw_data_id": raw_data_id}
    return url_post(host_url, "/runapp/rawdata/split/", username, password, data)


def custom_post_split(host_url: str, username: str, password: str, raw_data_id: int) -> requests.Response:
    """Split a dataset by its own specific.py."""
    return url_post(host_url, "/runapp/rawdata/customsplit/", username, password, {"raw_data_id": raw_data_id})


def post_submission_fold(  # noqa: PLR0913 - the original's signature
    host_url: str,
    username: str,
    password: str,
    sub_id: int,
    sub_fold_id: int,
    train_is: Iterable[int],
    test_is: Iterable[int],
    priority: str = "L",
    raw_data_id: int | None = None,
    list_submission_files: Sequence[FileName] | None = None,
    force: str | None = None,
) -> requests.Response:
    """Train and test a submission on a fold; the first fold of a submission brings its dataset and its files.

    The indices are positions among the rows of the train part: arrays, lists and ranges will do. `force` runs again
    what is known: "submission_fold", or "submission, submission_fold" for the submission with all its folds.
    """
    data: dict[str, Any] = {
        "databoard_sf_id": sub_fold_id,
        "databoard_s_id": sub_id,
        "train_is": _packed(_int64(train_is)),
        "test_is": _packed(_int64(test_is)),
        "priority": priority,
    }
    if raw_data_id and list_submission_files:
        data["raw_data"] = raw_data_id
        data["files"] = _files(list_submission_files)
    if force:
        data["force"] = force
    return url_post(host_url, "/runapp/submissionfold/", username, password, data)


def get_prediction_list(
    host_url: str, username: str, password: str, list_submission_fold_id: Sequence[int]
) -> requests.Response:
    """Get the predictions of some folds, in whatever state they are."""
    data = {"list_submission_fold": list(list_submission_fold_id)}
    return url_post(host_url, "/runapp/testpredictions/list/", username, password, data)


def get_prediction_new(host_url: str, username: str, password: str, raw_data_id: int) -> requests.Response:
    """Get the predictions of a dataset's folds that nobody got before."""
    return url_post(host_url, "/runapp/testpredictions/new/", username, password, {"raw_data_id": raw_data_id})


def get_raw_data(host_url: str, username: str, password: str) -> requests.Response:
    """Get the datasets."""
    return url_get(host_url, "/runapp/rawdata/", username, password)


def get_submission_fold(host_url: str, username: str, password: str) -> requests.Response:
    """Get every fold with all it has."""
    return url_get(host_url, "/runapp/submissionfold/", username, password)


def get_submission_fold_light(host_url: str, username: str, password: str) -> requests.Response:
    """Get every fold's id, submission, state and whether it is new."""
    return url_get(host_url, "/runapp/submissionfold-light/", username, password)


def get_submission_fold_detail(
    host_url: str, username: str, password: str, submission_fold_id: int
) -> requests.Response:
    """Get one fold."""
    return url_get(host_url, "/runapp/submissionfold/", username, password, r_id=submission_fold_id)


def decode_predictions(pred: str, shape: int | tuple[int, ...] | None = None) -> npt.NDArray[np.float64]:
    """Return the float64 array of an answer's predictions; the answer does not tell its shape."""
    import numpy as np  # noqa: PLC0415 - only who decodes needs it

    values = np.frombuffer(zlib.decompress(base64.b64decode(pred)), dtype="<f8").copy()
    return values if shape is None else values.reshape(shape)


def _packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content)).decode("ascii")


def _files(file_names: Iterable[FileName]) -> dict[str, str]:
    return {Path(file_name).name: read_compress(file_name) for file_name in file_names}


def _int64(indices: Iterable[int]) -> bytes:
    # An array of numpy's knows how to become a list, whatever its integers' size.
    values = indices.tolist() if hasattr(indices, "tolist") else indices
    packed = array("q", [index.__index__() for index in values])
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def _url(url1: str, url2: str) -> str:
    url = url1 + url2
    return url[:9] + url[9:].replace("//", "/")


def _auth(username: str, password: str) -> tuple[str, str]:
    # requests sends text as Latin-1, in which most names cannot be written; so each byte of UTF-8 becomes a character.
    return username.encode().decode("latin-1"), password.encode().decode("latin-1")


def _session(url: str) -> requests.Session:
    parts = urlsplit(url)
    host = f"{parts.scheme}://{parts.netloc}"
    # A session belongs to one thread: requests does not promise more.
    sessions: dict[str, requests.Session] = _of_thread.__dict__.setdefault("sessions", {})
    if host not in sessions:
        sessions[host] = _new_session()
    return sessions[host]


def _new_session() -> requests.Session:
    session = requests.Session()
    retry = Retry(total=3, backoff_factor=0.2, status_forcelist=(503,), allowed_methods=("GET",), raise_on_status=False)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session


__all__ = [
    "custom_post_split",
    "decode_predictions",
    "get_prediction_list",
    "get_prediction_new",
    "get_raw_data",
    "get_submission_fold",
    "get_submission_fold_detail",
    "get_submission_fold_light",
    "post_data",
    "post_split",
    "post_submission_fold",
    "read_compress",
    "url_get",
    "url_post",
]
