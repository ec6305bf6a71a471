"""Digests of what a fold came from: equal for the same, different for anything that could change a prediction."""

import json
import re
import subprocess
import sys

import pytest

from datarun import envelope
from datarun.errors import SchemaMismatch
from datarun.events import Blob, Dataset, FoldReproduced, FoldTested, NamedBlob, Provenance, Runtime, Sandbox, Split
from services.runner.execution.isolated.distributions import environment_digest, installed
from services.runner.execution.isolated.runtime import first_processor, harness_digest, runtime
from services.runner.execution.programs import FOLDER
from services.runner.execution.provenance import code_digest, data_digest, provenance_of
from tests.histories import run_event
from tests.unit.test_envelope import fold_requested

RUNTIME = Runtime(
    environment="e" * 64, harness="d" * 64, threads=1, cpu="a CPU", cpu_flags="f" * 64, blas=("openblas 1",)
)


def file(name, number):
    """Return a file whose content no other number has."""
    return NamedBlob(name=name, blob=Blob(sha256=f"{number:064x}", size=1))


def dataset(*files, target="y", elements="classifier"):
    """Return a dataset."""
    return Dataset(raw_data_id=1, name="data", target_column=target, workflow_elements=elements, files=files)


def standard(train, test):
    """Return a standard split into parts of these numbers."""
    return Split(kind="standard", task_id="t", train=file("train", train).blob, test=file("test", test).blob)


def test_code_is_files_and_their_names_in_any_order():
    """Renaming a file, changing it, adding one: each is other code; another order is not."""
    one = code_digest([file("a.py", 1), file("b.py", 2)])
    assert code_digest([file("b.py", 2), file("a.py", 1)]) == one
    others = [
        [file("a.py", 2), file("b.py", 1)],
        [file("a.py", 1), file("c.py", 2)],
        [file("a.py", 1)],
        [file("a.py", 1), file("b.py", 3)],
        [],
    ]
    assert len({one, *map(code_digest, others)}) == len(others) + 1


def test_data_is_what_the_rows_are_cut_from():
    """Of a standard dataset the two parts count and which is which, not the table that they were split from."""
    one = data_digest(dataset(file("raw.csv", 9)), standard(1, 2))
    assert data_digest(dataset(file("other.csv", 8)), standard(1, 2)) == one
    assert data_digest(dataset(file("raw.csv", 9)), standard(2, 1)) != one
    assert data_digest(dataset(file("raw.csv", 9), target="z"), standard(1, 2)) != one
    assert data_digest(dataset(file("raw.csv", 9), elements="regressor"), standard(1, 2)) != one


def test_data_of_a_prepared_dataset_is_all_its_files():
    """The dataset's own code and every prepared file count; a prepared file takes the place of one of its name."""
    own = file("specific.py", 1)
    split = Split(kind="custom", task_id="t", prepared=(file("train.npz", 2),))
    one = data_digest(dataset(own), split)
    assert data_digest(dataset(file("specific.py", 3)), split) != one
    assert data_digest(dataset(own, file("train.npz", 7)), split) == one
    assert data_digest(dataset(own), split.model_copy(update={"prepared": (file("train.npz", 4),)})) != one


def test_a_provenance_is_made_of_the_request_and_the_process():
    """Indices by their blobs, the process by what it said, the level by what was proved."""
    request = fold_requested()
    request = request.model_copy(update={"dataset": dataset().model_copy(update={"split": standard(1, 2)})})
    made = provenance_of(request, runtime=RUNTIME, sandbox=Sandbox(level=3))
    assert (made.train_is, made.sandbox_level, made.threads) == (request.train_is.sha256, 3, 1)
    assert {name: getattr(made, name) for name in Runtime.model_fields} == dict(RUNTIME)


def distribution(folder, name, version):
    """Install a distribution that is nothing but its metadata."""
    place = folder / f"{name}-{version}.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_the_environment_is_every_distribution_with_its_version(tmp_path):
    """Names are normalised, the first on the path hides the second, an interrupted installation is none."""
    near, far = tmp_path / "near", tmp_path / "far"
    distribution(near, "Some_Package", "1.0")
    distribution(far, "some-package", "2.0")
    distribution(far, "other", "3")
    (far / "half-1.dist-info").mkdir()
    path = [str(near), str(far)]
    assert installed(path) == ["other==3", "some-package==1.0"]
    before = environment_digest(path)
    assert environment_digest(path) == before
    assert environment_digest([*reversed(path)]) != before
    distribution(far, "third", "1")
    assert environment_digest(path) != before


def test_another_interpreter_says_the_same_of_the_same_environment():
    """The module needs nothing but the standard library, so any environment's own interpreter can be asked."""
    code = "import sys; sys.path.append(sys.argv[1]); import isolated.distributions as d; print(d.environment_digest())"
    command = [sys.executable, "-P", "-s", "-c", code, str(FOLDER)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env={}, cwd="/").stdout.strip()
    assert said == environment_digest([path for path in sys.path if "site-packages" in path])


def test_a_process_says_what_it_computes_with():
    """What is said fits the fact, whatever this machine is."""
    said = Runtime.model_validate(json.loads(json.dumps(runtime("0" * 64))))
    assert said.threads >= 1
    assert all(re.match(r"\w+ \S+ \S+ \S+ \S+\Z", library) for library in said.blas)
    assert not any("/" in library for library in said.blas)


def test_the_harness_is_the_code_around_the_submission(tmp_path):
    """Another line in one of its files, or another file, is another harness; byte code beside it is not."""
    (tmp_path / "a.py").write_text("a = 1\n")
    before = harness_digest(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "a.pyc").write_bytes(b"0")
    assert harness_digest(tmp_path) == before
    (tmp_path / "a.py").write_text("a = 2\n")
    changed = harness_digest(tmp_path)
    (tmp_path / "b.py").write_text("")
    assert len({before, changed, harness_digest(tmp_path)}) == 3


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor\t: 0\nmodel name\t: X: 1\nflags\t\t: b a\n\nprocessor\t: 1\n", ("model name", "X: 1")),
        ("processor\t: 0\nCPU part\t: 0xd0c\nFeatures\t: fp\n\nHardware\t: Y\n", ("CPU part", "0xd0c")),
        ("", ("", "")),
    ],
)
def test_the_first_processor_is_read_on_x86_and_arm(cpuinfo, expected):
    """Whatever the kernel writes is read, and nothing is not an error."""
    name, value = expected
    assert first_processor(cpuinfo).get(name, "") == value


def test_a_result_from_before_there_was_provenance_is_read():
    """Old events stay readable, and what is no provenance is refused."""
    event = run_event(FoldTested, 7)
    old = event.model_dump_json(exclude={"provenance"}, exclude_none=True).encode()
    headers = [("ce_type", FoldTested.type_name().encode())]
    assert envelope.decode(old, headers) == event
    assert event.provenance is None
    with pytest.raises(SchemaMismatch, match="/provenance"):
        envelope.decode(old[:-1] + b',"provenance":{"label":"setosa"}}', headers)


def test_a_provenance_comes_back_from_its_event():
    """Written and read again it is equal, field by field, so that it can be compared."""
    made = Provenance(
        **dict(RUNTIME), data="1" * 64, code="2" * 64, train_is="3" * 64, test_is="4" * 64, sandbox_level=2
    )
    event = run_event(FoldTested, 7).model_copy(update={"provenance": made})
    again = envelope.decode(event.model_dump_json().encode(), [("ce_type", FoldTested.type_name().encode())])
    assert again.provenance == made


def test_a_verification_has_an_id_of_its_own_that_repeats():
    """The same fold verified by the same program is the same fact; by another it is another."""
    event = run_event(FoldReproduced, 7)
    assert event.event_id == event.model_copy(update={"differing": ("threads",)}).event_id
    assert event.event_id != event.model_copy(update={"runner_id": "another"}).event_id
