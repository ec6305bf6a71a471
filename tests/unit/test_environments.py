"""What is asked for, what may be asked for, and what a runner makes of it: events, folders, builds one by one."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datarun import envelope
from datarun.environments import DEFAULT, Environments
from datarun.events import PackageFailed, PackageInstalled, PackageRequested, PackageResult, RunnerHeartbeat, Sandbox
from datarun.log.memory import MemoryLog
from datarun.packages import Switchboard
from datarun.requirements import RequirementRefused, parse
from datarun.topics import ENVIRONMENTS, Catalogue
from services.runner.environments.base import base_pins, modules_of
from services.runner.environments.builder import Builder
from services.runner.environments.folders import Built, Folders
from services.runner.environments.follower import Follower
from services.runner.environments.installer import NotInstalled, tail
from services.runner.environments.shelf import Shelf
from services.runner.execution import Environment, ExecutionUnavailable
from services.runner.publisher import Publisher

CATALOGUE = Catalogue("t.")


def requested(requirement: str, environment: str = DEFAULT, *, request_id: str | None = None) -> PackageRequested:
    """Return a request whose id is its requirement, unless another is given."""
    return PackageRequested(
        environment=environment,
        request_id=request_id or f"{environment} {requirement}",
        requirement=requirement,
        requested_by="tester",
    )


def installed(request: PackageRequested, *packages: str, runner_id: str = "one") -> PackageInstalled:
    """Return a runner's answer to a request."""
    return PackageInstalled(
        environment=request.environment,
        request_id=request.request_id,
        requirement=request.requirement,
        runner_id=runner_id,
        seconds=1.0,
        packages=packages,
    )


def environments(*events: PackageRequested | PackageInstalled) -> Environments:
    """Return the fold of some events."""
    state = Environments()
    for event in events:
        state.take(event)
    return state


def texts(state: Environments, environment: str) -> list[str]:
    """Return what is required in an environment."""
    return [request.requirement for request in state.requests(environment)]


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("emoji", "emoji"),
        ("Scikit_Image >= 0.2 , < 1", "scikit-image<1,>=0.2"),
        ("x[b,a]~=1.0", "x[a,b]~=1.0"),
        ("torch==2.1+cpu", "torch==2.1+cpu"),
    ],
)
def test_names_with_versions_and_extras_are_taken(text: str, canonical: str) -> None:
    """What goes to the installer is written anew, never the text that came."""
    assert parse(text).text == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-r requirements.txt",
        "--index-url=http://127.0.0.1/",
        "x --index-url http://127.0.0.1/",
        "git+https://example.org/x.git",
        "x @ git+https://example.org/x.git",
        "x @ file:///etc",
        "https://example.org/x.whl",
        "./x.whl",
        "/x.whl",
        "x; python_version > '3'",
        "x===anything",
        "x\n--pre",
        "x\ny",
        "x\x00",
        "x" * 201,
    ],
)
def test_whatever_reaches_past_the_index_is_refused(text: str) -> None:
    """Options, addresses, paths, conditions and second lines are no package."""
    with pytest.raises(RequirementRefused):
        parse(text)


@given(st.text(max_size=40))
def test_no_text_gets_an_option_through(text: str) -> None:
    """Whatever is taken begins with a letter or digit and has no space, so that it is one name to the installer."""
    try:
        canonical = parse(text).text
    except RequirementRefused:
        return
    assert canonical[0].isalnum()
    assert not any(character.isspace() for character in canonical)
    assert not {"/", "@", ";", "#"} & set(canonical)


def test_a_dataset_has_the_packages_of_all_and_its_own() -> None:
    """Requests are in the order of the log; other datasets run in the default."""
    state = environments(requested("b", "7"), requested("a"), requested("c", "7"))
    assert texts(state, DEFAULT) == ["a"]
    assert texts(state, "7") == ["b", "a", "c"]


def test_a_later_request_takes_the_place_of_an_earlier_one() -> None:
    """One version of a package holds; a dataset's own holds for it whatever comes later for all."""
    state = environments(requested("Emoji==1"), requested("emoji==2", "7"), requested("emoji==3"))
    assert texts(state, DEFAULT) == ["emoji==3"]
    assert texts(state, "7") == ["emoji==2"]


def test_a_request_that_comes_twice_counts_once() -> None:
    """A retried append is known by its id, wherever it stands."""
    old, new = requested("emoji==1"), requested("emoji==2")
    assert texts(environments(old, new, old), DEFAULT) == ["emoji==2"]


def test_the_first_installation_chooses_the_versions() -> None:
    """Whoever builds later is to choose the same, until the package is asked for again."""
    first, again = requested("emoji"), requested("emoji", request_id="again")
    state = environments(first, installed(first, "emoji==1", "dep==5"), installed(first, "emoji==2", runner_id="two"))
    assert state.pins(DEFAULT) == {"emoji": "1", "dep": "5"}
    state.take(again)
    assert state.pins(DEFAULT) == {}
    state.take(installed(again, "emoji==2", "dep==5"))
    assert state.pins(DEFAULT) == {"emoji": "2", "dep": "5"}


class ScriptedInstaller:
    """An index in memory: versions by name; `base` is a package that the runner has itself."""

    def __init__(self, **offers: str) -> None:
        self.offers = offers
        self.installs: list[str] = []

    def resolve(self, requirements: Sequence[str], *, base: str, pins: Mapping[str, str], room: Path) -> dict[str, str]:
        """Find every package."""
        assert base
        assert room.is_dir()
        missing = [name for name in requirements if name not in self.offers]
        if missing:
            raise NotInstalled(f"there is no {missing[0]}")
        return {name: pins.get(name, self.offers[name]) for name in requirements if self.offers[name] != "base"}

    def lock(self, versions: Mapping[str, str], *, room: Path) -> str:
        """Name the versions."""
        assert room.is_dir()
        return " ".join(f"{name}=={version}" for name, version in sorted(versions.items()))

    def install(self, lock: str, *, target: Path, room: Path) -> None:
        """Write one file."""
        assert target.parent == room
        self.installs.append(lock)
        (target / "content").write_text(lock)


class Bench:
    """A builder over a folder, whose imports fail for packages that the test names."""

    def __init__(self, root: Path, **offers: str) -> None:
        self.installer = ScriptedInstaller(**offers)
        self.folders = Folders(root)
        self.breaking: set[str] = set()
        self.builder = Builder(self.folders, self.installer, self._attempt)

    def _attempt(self, environment: Environment, modules: Sequence[str]) -> str | None:
        assert set(modules) <= {"numpy"}
        content = environment.packages / "content"
        text = content.read_text() if content.exists() else ""
        return next((f"{name} breaks" for name in self.breaking if name in text), None)


def content(built: Built | None) -> str:
    """Return what a built environment holds."""
    assert built is not None
    return (built.environment.packages / "content").read_text()


def test_all_requests_are_built_at_once(tmp_path: Path) -> None:
    """One folder with all, nothing left beside it; asked again it is found, not made."""
    bench = Bench(tmp_path, one="1", two="2")
    requests = [requested("one"), requested("two")]
    outcome = bench.builder.build(requests, {})
    assert (content(outcome.built), outcome.failures) == ("one==1 two==2", {})
    assert outcome == bench.builder.build(requests, {})
    assert bench.installer.installs == ["one==1 two==2"]
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == [
        outcome.built.environment.key if outcome.built else ""
    ]


def test_what_fails_is_left_out_and_named(tmp_path: Path) -> None:
    """A package that is not there, one that breaks, one that is refused: each with its reason, the others work."""
    bench = Bench(tmp_path, one="1", bad="1", two="2")
    bench.breaking = {"bad"}
    requests = [requested(text) for text in ("none", "one", "bad", "x @ file:///x", "two")]
    outcome = bench.builder.build(requests, {})
    assert content(outcome.built) == "one==1 two==2"
    reasons = {request_id.removeprefix("default "): reason for request_id, reason in outcome.failures.items()}
    assert reasons.keys() == {"none", "bad", "x @ file:///x"}
    assert reasons["bad"] == "bad breaks"
    assert not list(tmp_path.glob(".building-*"))


def test_versions_that_were_chosen_are_chosen_again(tmp_path: Path) -> None:
    """Neither a newer version in the index nor a folder built before with another one is taken instead."""
    bench = Bench(tmp_path, one="2")
    requests = [requested("one")]
    assert content(bench.builder.build(requests, {}).built) == "one==2"
    assert content(bench.builder.build(requests, {"one": "1"}).built) == "one==1"
    assert content(bench.builder.build(requests, {"one": "2"}).built) == "one==2"
    assert len(bench.installer.installs) == 2


def test_the_runners_own_packages_need_no_folder(tmp_path: Path) -> None:
    """What is there already is installed without an environment."""
    bench = Bench(tmp_path, numpy="base")
    outcome = bench.builder.build([requested("numpy")], {})
    assert (outcome.built, outcome.failures, bench.installer.installs) == (None, {}, [])


def test_a_folder_in_use_is_never_swept(tmp_path: Path) -> None:
    """Of the unused only the last few are kept, and what died while it was built is not."""
    bench = Bench(tmp_path, **{f"p{number}": "1" for number in range(9)})
    bench.folders = Folders(tmp_path, kept_unused=2)
    bench.builder = Builder(bench.folders, bench.installer, lambda _environment, _modules: None)
    (tmp_path / ".building-dead").mkdir()
    first = bench.builder.build([requested("p0")], {}).built
    assert first is not None
    with first.environment.held():
        for number in range(1, 9):
            bench.builder.build([requested(f"p{number}")], {})
        assert content(first) == "p0==1"
        assert sum(path.is_dir() for path in tmp_path.iterdir()) == 3
    bench.builder.build([requested("p1"), requested("p2")], {})
    assert not first.environment.packages.exists()
    with pytest.raises(ExecutionUnavailable), first.environment.held():
        pass


def test_one_builder_at_a_time(tmp_path: Path) -> None:
    """Two runners of a host that are asked at once build once."""
    benches = [Bench(tmp_path, one="1") for _ in range(2)]
    threads = [threading.Thread(target=bench.builder.build, args=([requested("one")], {})) for bench in benches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [lock for bench in benches for lock in bench.installer.installs] == ["one==1"]


def test_a_fold_waits_for_the_first_environment_only(tmp_path: Path) -> None:
    """Before it is there a fold is given back after a while; later changes make nobody wait."""
    built = Bench(tmp_path, one="1").builder.build([requested("one")], {}).built
    shelf = Shelf(tmp_path, patience_seconds=0.05)
    shelf.expect(["7"])
    with shelf.use(1) as environment:
        assert environment is None
    with pytest.raises(ExecutionUnavailable), shelf.use(7):
        pass
    shelf.put("7", built)
    shelf.expect([])
    with shelf.use(7) as environment:
        assert environment == (built.environment if built else None)
    assert shelf.keys() == {"environment.7": built.environment.key[:12]} if built else {}


def test_a_runner_says_once_what_came_of_a_request(tmp_path: Path) -> None:
    """One answer a request, in force before it is said; a record that is none is passed over."""
    log = MemoryLog(CATALOGUE)
    context = envelope.Context(source="test", time=envelope.now())

    def append(event: PackageRequested) -> None:
        log.append(envelope.encode(event, catalogue=CATALOGUE, context=context))

    def answers() -> list[PackageResult]:
        ends = log.end_offsets([CATALOGUE.full_name(ENVIRONMENTS)])
        records = [record for batch in log.read(dict.fromkeys(ends, 0), until_end=True) for record in batch]
        events = [envelope.decode(record.value, record.headers) for record in records if record.value != b"{}"]
        return [event for event in events if isinstance(event, PackageResult)]

    append(requested("one"))
    record = envelope.encode(requested("two"), catalogue=CATALOGUE, context=context)
    log.append(type(record)(record.topic, record.key, b"{}", record.headers))
    publisher = Publisher(log, catalogue=CATALOGUE, source="test")
    follower = Follower(log, publisher.append_surely, shelf=Shelf(tmp_path), catalogue=CATALOGUE, runner_id="one")
    follower.start(Bench(tmp_path, one="1", two="2").builder)
    with follower.shelf.use(1) as environment:
        assert environment is not None
    append(requested("none"))
    append(requested("two"))
    deadline = threading.Event()
    for _ in range(400):
        if len(answers()) >= 3 or deadline.wait(0.05):
            break
    deadline.wait(0.5)
    follower.stop()
    said = {event.requirement: type(event) for event in answers()}
    assert said == {"one": PackageInstalled, "none": PackageFailed, "two": PackageInstalled}
    assert len(answers()) == 3


def test_nobody_waits_for_a_runner_that_stopped() -> None:
    """The command ends when every living runner answered, and names those that did not."""
    log, now = MemoryLog(CATALOGUE), [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    context = envelope.Context(source="test", time=envelope.now())
    for runner_id, stopping in (("one", False), ("two", True), ("three", False)):
        beat = RunnerHeartbeat(
            runner_id=runner_id,
            sequence=1,
            host="host",
            pid=1,
            queues=("H",),
            slots=1,
            sandbox=Sandbox(level=3),
            stopping=stopping,
        )
        log.append(envelope.encode(beat, catalogue=CATALOGUE, context=context))
    switchboard = Switchboard(log, CATALOGUE, clock=clock)
    request = switchboard.request("emoji", DEFAULT, requested_by="tester")
    for runner_id in ("one", "three"):
        answer = installed(request, "emoji==1", runner_id=runner_id)
        log.append(envelope.encode(answer, catalogue=CATALOGUE, context=context))
    told: list[str] = []
    answers = switchboard.await_answers(request, timeout_seconds=50, tell=lambda result: told.append(result.runner_id))
    assert (told, answers.silent) == (["one", "three"], set())
    assert sorted(answers.results) == ["one", "three"]


def test_modules_are_read_from_what_was_installed(tmp_path: Path) -> None:
    """The module of the package's own name, else all that are public; nothing of tests and folders of data."""
    info = tmp_path / "my_pkg-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: My.Pkg\nVersion: 1\n")
    files = ["my_pkg-1.dist-info/METADATA", "tests/__init__.py", "other/__init__.py", "_speed.cpython-311.so", "a.txt"]
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in files))
    assert modules_of("my-pkg", tmp_path) == ["other"]
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in [*files, "my_pkg/core.py"]))
    assert modules_of("my-pkg", tmp_path) == ["my_pkg"]
    assert modules_of("scikit-learn", tmp_path) == ["sklearn"]
    assert modules_of("nothing", tmp_path) == []
    assert "numpy==" in base_pins()


def test_passwords_of_addresses_are_not_told() -> None:
    """The reason of a failure goes into the log for everybody to read."""
    assert tail("a\nfetching https://user:secret@mirror/x failed") == "a\nfetching https://mirror/x failed"
