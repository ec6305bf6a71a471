"""Folds whose data cannot be had, custom code that fails, and what a submission can see of the data."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from datarun.errors import Retryable
from datarun.events import Blob, Cause, Dataset, Fault, Stage
from services.runner.execution import Failed, Limits, Tested
from tests.integration.execution_workbench import GOOD, Workbench, workbench

ROWS = 75
FILES: dict[str, str | bytes] = {"classifier.py": GOOD}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """One executor for all folds of this module."""
    with workbench(tmp_path_factory.mktemp("data"), Limits(hard_seconds=10)) as bench:
        yield bench


def labels(first: int) -> np.ndarray:
    """Labels that are found in memory: large numbers that occur nowhere else."""
    return 0x5EC2E7_00000000 + np.arange(first, first + 2 * ROWS, dtype=np.int64) * 0x1_00001


@pytest.fixture(scope="module")
def dataset(bench: Workbench) -> Dataset:
    """A table with labels that can be looked for, split in halves."""
    values = np.random.RandomState(0).rand(2 * ROWS, 2).round(6)
    lines = [f"{a},{b},{label}" for (a, b), label in zip(values, labels(0), strict=True)]
    raw = ("a,b,target\n" + "\n".join(lines) + "\n").encode()
    return bench.split(bench.dataset({"raw.csv": raw}, "regressor"), held_out=0.5)


def refused(outcome: Tested | Failed) -> str:
    """The message of a fold that failed for its data."""
    assert isinstance(outcome, Failed), outcome
    assert (outcome.stage, outcome.fault) == (Stage.SPLIT, Fault.USER)
    return outcome.message


@pytest.mark.parametrize("index", [99, -1, 75])
def test_an_index_out_of_range_is_named(bench: Workbench, dataset: Dataset, index: int) -> None:
    """The first index that is not a row of the train part is in the message, with the tag."""
    outcome = bench.run(dataset, FILES, [0, 1, index, 200])
    text = f"IndexError('index {index} is out of range 0..74')ERROR(split data) \n"
    assert refused(outcome) == text
    assert outcome.cause is Cause.INVALID


def test_indices_that_are_no_integers_are_refused(bench: Workbench, dataset: Dataset) -> None:
    """A number of bytes that is no multiple of eight is said so."""
    request = bench.request(dataset, FILES, [0])
    request = request.model_copy(update={"train_is": bench.blobs.put(b"thirteen byte")})
    message = refused(bench.executor.run(request, on_trained=lambda _: None))
    assert "13 bytes long, not a multiple of 8" in message


def test_a_dataset_without_a_split_says_so(bench: Workbench, dataset: Dataset) -> None:
    """A fold of a dataset that nobody split fails with the legacy tag."""
    outcome = bench.run(dataset.model_copy(update={"split": None}), FILES, range(10))
    assert refused(outcome) == "LookupError(\"dataset 'data' was never split\")ERROR(split data) \n"


def test_the_error_of_a_failed_split_is_repeated(bench: Workbench, dataset: Dataset) -> None:
    """A fold of a dataset whose split failed says why, with one tag."""
    broken = dataset.model_copy(update={"split": None, "split_error": "ValueError('x')ERROR(split data) \n"})
    assert refused(bench.run(broken, FILES, range(10))) == "ValueError('x')ERROR(split data) \n"


def test_a_missing_blob_is_the_platforms_fault(bench: Workbench, dataset: Dataset) -> None:
    """A fold whose code is not in the store may succeed later."""
    request = bench.request(dataset, FILES, range(10))
    nowhere = request.files[0].model_copy(update={"blob": Blob(sha256="0" * 64, size=1)})
    with pytest.raises(Retryable):
        bench.executor.run(request.model_copy(update={"files": (nowhere,)}), on_trained=lambda _: None)


def test_a_corrupt_blob_is_the_platforms_fault(bench: Workbench, dataset: Dataset) -> None:
    """Bytes that are not what their name says never run."""
    request = bench.request(dataset, {"classifier.py": GOOD + "\n# corrupt\n"}, range(10))
    bench.blobs.path(request.files[0].blob).write_bytes(b"something else")
    with pytest.raises(Retryable):
        bench.executor.run(request, on_trained=lambda _: None)


@pytest.mark.parametrize("name", ["../x.py", "/etc/x", "a/b.py", "", ".hidden", "x\n.py"])
def test_a_file_name_that_is_a_path_is_refused(bench: Workbench, dataset: Dataset, name: str) -> None:
    """Names are labels; one that could leave the box stops the fold before it starts."""
    request = bench.request(dataset, FILES, range(10))
    file = request.files[0].model_copy(update={"name": name})
    outcome = bench.executor.run(request.model_copy(update={"files": (file,)}), on_trained=lambda _: None)
    assert "is not a file name" in refused(outcome)


def test_a_split_of_what_is_no_table_fails(bench: Workbench) -> None:
    """A file that cannot be read as CSV ends the split with its reason and the runner goes on."""
    dataset = bench.dataset({"raw.csv": b'a,b\n"1,2\n3,4,5\n6,7,8,9,0\n'}, "classifier")
    outcome = bench.executor.split(bench.split_request(dataset, held_out=0.5))
    assert isinstance(outcome, Failed)
    assert (outcome.stage, outcome.cause, outcome.fault) == (Stage.SPLIT, Cause.USER_ERROR, Fault.USER)
    assert "ERROR(split data)" in outcome.message


SPECIFIC = """
    import os
    import numpy as np
    PREPARE
    def get_train_data(raw_data_path):
        return np.arange(40.0).reshape(20, 2), np.arange(20)
    def get_test_data(raw_data_path):
        TEST
        return np.arange(20.0).reshape(10, 2), np.arange(10)
    def train_submission(module_path, X_array, y_array, train_is):
        return sorted(os.listdir(os.path.dirname(__file__)))
    def test_submission(model, X_array, test_is):
        assert model == ['specific.py'], model
        return np.ones(len(test_is))
"""


def custom(prepare: str = "def prepare_data(raw_data_path): pass", test: str = "pass") -> dict[str, str | bytes]:
    """The files of a dataset with its own code."""
    return {"specific.py": SPECIFIC.replace("PREPARE", prepare).replace("TEST", test), "labels.csv": b"1\n2\n"}


def test_prepare_data_that_raises_fails_the_split(bench: Workbench) -> None:
    """The organiser sees the exception, the line in specific.py and what was printed."""
    prepare = "def prepare_data(raw_data_path): print('trying'); raise OSError('no raw data')"
    outcome = bench.executor.split(bench.split_request(bench.dataset(custom(prepare), "")))
    assert isinstance(outcome, Failed)
    assert outcome.message.startswith("OSError('no raw data')ERROR(split data) \n")
    assert 'File "specific.py", line 4, in prepare_data' in outcome.message
    assert outcome.log == "trying\n"


def test_links_are_not_prepared_data(bench: Workbench) -> None:
    """Only regular files are kept; what a link points to is nobody's data."""
    prepare = "def prepare_data(path): os.symlink('/proc/self/status', path + '/l'); open(path + '/kept', 'w').close()"
    split = bench.split(bench.dataset(custom(prepare), "")).split
    assert split is not None
    assert {file.name for file in split.prepared} == {"specific.py", "labels.csv", "kept"}


@pytest.mark.parametrize(
    ("prepare", "text"),
    [
        ("def prepare_data(path): os.mkdir(path + '/folder')", "only files are kept"),
        ("def prepare_data(path): open(path + '/a b', 'w').close()", "left a file named 'a b'"),
    ],
)
def test_prepared_data_that_cannot_be_kept_fails(bench: Workbench, prepare: str, text: str) -> None:
    """A folder or a name that is no label is said so, not dropped."""
    outcome = bench.executor.split(bench.split_request(bench.dataset(custom(prepare), "")))
    assert isinstance(outcome, Failed)
    assert text in outcome.message


def test_a_custom_submission_sees_no_data_file(bench: Workbench) -> None:
    """Beside specific.py the child of a submission has no file of the dataset."""
    dataset = bench.split(bench.dataset(custom(), ""))
    outcome = bench.run(dataset, FILES, range(5))
    assert isinstance(outcome, Tested), outcome
    assert (outcome.full_train.shape, outcome.test.shape) == ((20,), (10,))


def test_custom_data_that_raises_fails_the_fold(bench: Workbench) -> None:
    """An error in get_test_data is the dataset's, at the stage of the split."""
    dataset = bench.split(bench.dataset(custom(test="raise KeyError('gone')"), ""))
    message = refused(bench.run(dataset, FILES, range(5)))
    assert message.startswith("KeyError('gone')ERROR(split data) \n")


def test_a_custom_index_out_of_range_is_named(bench: Workbench) -> None:
    """Custom data counts its rows as well."""
    dataset = bench.split(bench.dataset(custom(), ""))
    assert "index 20 is out of range 0..19" in refused(bench.run(dataset, FILES, [3, 20]))


MASK = 0x7A7A7A7A7A7A7A7A
SCAN = """
import base64, ctypes, re
import numpy as np

MASK = 0x7A7A7A7A7A7A7A7A

def read():
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
    with open('/proc/self/maps') as maps:
        regions = [line.split() for line in maps]
    with open('/proc/self/mem', 'rb', 0) as memory:
        for where, mode, *rest in regions:
            first, last = (int(end, 16) for end in where.split('-'))
            if 'r' in mode and not rest[-1].startswith('[v'):
                try:
                    memory.seek(first)
                    yield memory.read(last - first)
                except OSError:
                    continue

def words():
    number, text = (
        re.compile(pattern) for pattern in (re.escape(bytes([0xE7, 0xC2, 0x5E, 0])), b'2667' + b'2945' + rb'\\d{9}')
    )
    for content in read():
        for match in number.finditer(content):
            word = content[match.start() - 4:match.end()]
            yield int.from_bytes(word, 'little') ^ MASK
        for match in text.finditer(content):
            yield int(match.group()) ^ MASK

class Regressor:
    def fit(self, X, y):
        own, held = (set(np.frombuffer(base64.b64decode(text), dtype='<i8').tolist()) for text in ('OWN', 'HELD'))
        seen = set(words())
        print('own', len(own & seen), 'held', len(held & seen))

    def predict(self, X):
        return np.ones(len(X))
"""


def disguise(values: np.ndarray) -> str:
    """Values in a form in which they are not found as themselves."""
    return base64.b64encode((values ^ MASK).tobytes()).decode()


def test_no_label_outside_the_train_rows_is_in_memory(bench: Workbench, dataset: Dataset) -> None:
    """While it trains a submission finds its own labels in its memory, and no other, as number or as text."""
    split = dataset.split
    assert split is not None
    assert split.train is not None
    train = pd.read_csv(io.BytesIO(bench.blobs.get(split.train)))["target"].to_numpy()
    own, held = train[:40], np.setdiff1d(labels(0), train[:40])
    assert len(held) == 110
    code = SCAN.replace("OWN", disguise(own)).replace("HELD", disguise(held))
    outcome = bench.run(dataset, {"regressor.py": code}, range(40))
    assert isinstance(outcome, Tested), outcome
    assert outcome.log == "own 40 held 0\n"
