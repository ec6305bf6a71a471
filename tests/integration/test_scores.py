"""Scores at a real gateway, of folds that were really fitted: equal to those worked out plainly, and nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from datarun.events import FoldFailed
from tests.gateways import running_gateway
from tests.histories import run_event
from tests.scored import SPECIES, Contest, contest, patiently
from tests.sites import Site, running_site

BOTH = "metric=accuracy,log_loss"


@pytest.fixture(scope="module")
def site(kafka: str, module_postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run a gateway beside a projector."""
    with running_site(kafka, module_postgres_url, tmp_path_factory.mktemp("v1"), "v1scores.") as running:
        submission, _ = contest(running).submit(GaussianNB(), folds=1)
        patiently(running, f"submissions/{submission}/scores?{BOTH}")
        yield running


@pytest.fixture(scope="module")
def made(site: Site) -> Contest:
    """A dataset on which nobody has submitted anything."""
    return contest(site)


@pytest.fixture(scope="module")
def odd(site: Site, made: Contest) -> dict[str, int]:
    """Folds of submissions of their own, by what became of them."""
    rows = np.arange(50), np.arange(50, 75)
    found = {name: made.fold(*rows) for name in ("todo", "failed", "done")}
    site.append(run_event(FoldFailed, found["failed"]))
    made.fit(GaussianNB(), found["done"])
    return found


def by_which(told: Any) -> dict[tuple[str, str], Any]:
    """Return scores by part and function."""
    return {(one["part"], one["metric"]): one for one in told["scores"]}


def test_bagged_scores_after_each_fold_are_those_of_the_mean_prediction(site: Site, made: Contest) -> None:
    """Of every submission, on what its folds left out and on the hidden part; and each fold's own."""
    for seed, model in enumerate((GaussianNB(), KNeighborsClassifier(3), DecisionTreeClassifier(random_state=0))):
        submission, folds = made.submit(model, seed=seed)
        told = site.get(f"submissions/{submission}/scores?{BOTH}")
        assert (told["tested_folds"], told["dataset_id"], told["version"]) == (4, made.number, 1)
        for part in ("train", "valid", "test"):
            expected = made.bagged(folds, part)
            for name in ("accuracy", "log_loss"):
                found = by_which(told)[part, name]
                assert [one["fold_id"] for one in found["folds"]] == folds
                assert [one["bagged"] for one in found["folds"]] == pytest.approx([one[name] for one in expected])
                assert found["bagged"] == found["folds"][-1]["bagged"]
                own = [made.bagged([fold], part)[0][name] for fold in folds]
                assert [one["value"] for one in found["folds"]] == pytest.approx(own)
                assert found["mean"] == pytest.approx(np.mean(own))
                assert found["std"] == pytest.approx(np.std(own))
        fold = site.get(f"folds/{folds[1]}/scores?{BOTH}")
        assert by_which(fold)["valid", "log_loss"]["value"] == own_of(told, "valid", "log_loss", folds[1])
        assert [(one["part"], one["metric"]) for one in site.get(f"folds/{folds[1]}/scores")["scores"]] == [
            ("train", "accuracy"),
            ("valid", "accuracy"),
            ("test", "accuracy"),
        ]


def own_of(told: Any, part: str, name: str, fold: int) -> float:
    """Return a fold's own score."""
    [found] = [one["value"] for one in by_which(told)[part, name]["folds"] if one["fold_id"] == fold]
    return float(found)


def test_a_leaderboard_has_the_best_first_and_goes_on_in_pages(site: Site) -> None:
    """By the bagged score or the mean, whatever is better; a submission without a score comes last."""
    made = contest(site)
    submissions = [made.submit(model, folds=2)[0] for model in (GaussianNB(), KNeighborsClassifier(40))]
    train_is, test_is = np.arange(50), np.arange(50, 75)
    perfect = made.fold(train_is, test_is)
    made.say(perfect, truth(made.train), truth(made.test))
    narrow = made.fold(train_is, test_is)
    made.say(narrow, np.ones((75, 2)), np.ones((75, 2)))
    waiting = made.fold(train_is, test_is)
    for name, better in (("accuracy", -1), ("log_loss", 1)):
        for part in ("valid", "test"):
            for by in ("bagged", "mean"):
                path = f"datasets/{made.number}/leaderboard?metric={name}&part={part}&by={by}"
                standings = [one for page in pages(site, f"{path}&limit=1") for one in page]
                assert {one["submission_id"] for one in standings} == {*submissions, perfect, narrow}
                assert (standings[0]["submission_id"], standings[-1]["submission_id"]) == (perfect, narrow)
                assert "2 columns for 3 classes" in standings[-1]["reason"]
                values = [one["value"] * better for one in standings[:-1]]
                assert values == sorted(values)
                assert all(one["value"] == one[by] for one in standings)
                assert standings == site.get(path)["items"]
    assert waiting not in {one["submission_id"] for one in site.get(path)["items"]}
    made.again(perfect, perfect)
    assert perfect not in {one["submission_id"] for one in site.get(path)["items"]}


def truth(part: Any) -> np.ndarray:
    """Return predictions that are right."""
    return (part["species"].to_numpy()[:, None] == np.array(SPECIES)).astype(float)


def pages(site: Site, path: str) -> list[list[Any]]:
    """Return the items of every page."""
    found, following = [], path
    while following:
        answer = site.ask("GET", following.removeprefix("/v1/"))
        assert answer.status_code == 200, answer.text
        following = answer.json()["next"]
        found.append(answer.json()["items"])
    return found


def test_participants_see_their_own_scores_and_none_on_hidden_labels(site: Site, kafka: str) -> None:
    """Unless the service is set so; others' folds, submissions and places are not there."""
    made = contest(site)
    (own, own_folds), (other, other_folds) = made.submit(GaussianNB(), folds=2), made.submit(GaussianNB(), folds=2)
    site.give_to("participant", own)
    assert {part for part, _ in by_which(site.get(f"submissions/{own}/scores", role="participant"))} == {
        "train",
        "valid",
    }
    assert {part for part, _ in by_which(site.get(f"folds/{own_folds[0]}/scores", role="participant"))} == {
        "train",
        "valid",
    }
    board = f"datasets/{made.number}/leaderboard"
    assert [one["submission_id"] for one in site.get(board, role="participant")["items"]] == [own]
    assert len(site.get(board, role="organiser")["items"]) == 2
    assert site.ask("GET", f"submissions/{other}/scores", role="participant").status_code == 404
    assert site.ask("GET", f"folds/{other_folds[0]}/scores", role="participant").status_code == 404
    assert site.ask("GET", f"{board}?part=test", role="participant").status_code == 403
    assert site.ask("GET", board, role="runner").status_code == 403
    installation = site.installation
    with running_gateway(
        installation.folder / "open",
        kafka=kafka,
        postgres_url=installation.postgres_url,
        blobs_url=(installation.folder / "blobs").as_uri(),
        prefix=installation.catalogue.prefix,
        DATARUN_SHOW_TEST_SCORES="true",
    ) as opened:
        shown = Site(installation, opened, site.log, site.blobs, site.tokens)
        told = patiently(shown, f"submissions/{own}/scores", role="participant")
        assert by_which(told)["test", "accuracy"]["bagged"] is not None
        assert shown.ask("GET", f"submissions/{other}/scores", role="participant").status_code == 404


def test_no_answer_holds_a_label(site: Site) -> None:
    """Whatever is asked and whoever asks, also where a scoring function complains about labels."""
    made = contest(site)
    rows = np.flatnonzero(made.train["species"] == SPECIES[0])
    one_class = made.fold(np.arange(75), rows)
    made.say(one_class, np.ones((75, 3)) / 3, np.ones((75, 3)))
    every = ",".join(one["name"] for one in site.get("scoring-functions")["items"][:10])
    for path in (f"folds/{one_class}/scores", f"submissions/{one_class}/scores", f"datasets/{made.number}/leaderboard"):
        metric = every if "datasets" not in path else "roc_auc"
        answer = site.ask("GET", f"{path}?metric={metric}")
        assert answer.status_code == 200, answer.text
        assert "secret" not in answer.text
    told = by_which(site.get(f"folds/{one_class}/scores?metric=roc_auc,rmse,log_loss"))
    assert told["valid", "roc_auc"]["reason"] == "roc_auc needs each of the 3 classes among the rows"
    assert told["valid", "rmse"]["reason"] == "rmse is for regression, and this is classification"
    assert told["valid", "log_loss"]["value"] == pytest.approx(np.log(3))
    assert "do not sum to 1" in told["test", "log_loss"]["reason"]


def test_what_a_hostile_runner_says_is_explained(site: Site) -> None:
    """Shapes that are not, numbers that are none, bytes that are gone: 200 and a reason, and others go on."""
    made = contest(site)
    train_is, test_is = np.arange(50), np.arange(50, 75)
    first = made.fold(train_is, test_is)
    made.fit(GaussianNB(), first)
    good = made.bagged([first], "valid")[0]["accuracy"]
    hostile: list[tuple[str, dict[str, Any]]] = [
        ("the shape that was announced", {"full_train_shape": (2_147_483_647, 2_147_483_647, 2_147_483_647)}),
        ("the shape that was announced", {"full_train_shape": ()}),
        ("the shape that was announced", {"full_train_shape": (75, 3) + (1,) * 100}),
        ("74 predictions for 75 rows", {"full_train_shape": (74, 3)}),
        ("not in the store", {"full_train_predictions": site.blobs.put(b"").model_copy(update={"sha256": "0" * 64})}),
    ]
    for reason, said in hostile:
        number = made.fold(train_is, test_is, submission=first)
        full = np.ones((74, 3)) if "74" in reason else np.zeros((75, 3))
        if "store" in reason:
            said["full_train_predictions"] = said["full_train_predictions"].model_copy(update={"size": full.nbytes})
        made.say(number, full, np.ones((75, 3)), **said)
        told = by_which(site.get(f"folds/{number}/scores"))["valid", "accuracy"]
        assert told["value"] is None
        assert reason in told["reason"]
        assert site.ask("GET", f"folds/{number}/predictions/full-train?format=json").status_code in (200, 409, 503)
    number = made.fold(train_is, test_is, submission=first)
    short = site.blobs.put(b"12345678").model_copy(update={"size": 75 * 3 * 8})
    made.say(number, np.zeros((75, 3)), np.ones((75, 3)), full_train_predictions=short)
    assert "has 8 bytes" in by_which(site.get(f"folds/{number}/scores"))["valid", "accuracy"]["reason"]
    assert site.ask("GET", f"folds/{number}/predictions/full-train?format=csv").status_code == 409
    for value in (np.nan, np.inf, -np.inf):
        number = made.fold(train_is, test_is, submission=first)
        made.say(number, np.full((75, 3), value), np.full((75, 3), value))
        told = by_which(site.get(f"folds/{number}/scores"))["valid", "accuracy"]
        assert told["reason"] == "the predictions of 25 rows are not finite"
    found = by_which(site.get(f"submissions/{first}/scores"))["valid", "accuracy"]
    assert found["folds"][0]["value"] == found["mean"] == pytest.approx(good)
    assert found["folds"][5]["bagged"] == pytest.approx(good)
    assert [one["bagged_folds"] for one in found["folds"]][:5] == [1] * 5


def test_a_dataset_whose_labels_are_gone_is_explained(site: Site) -> None:
    """Not a crash: when they are back, there are scores."""
    made = contest(site)
    submission, _ = made.submit(GaussianNB(), folds=1)
    path = site.blobs.path(made.parts[0])
    content = path.read_bytes()
    path.unlink()
    told = by_which(site.get(f"submissions/{submission}/scores"))["valid", "accuracy"]
    assert (told["mean"], told["bagged"]) == (None, None)
    assert "not in the store" in told["folds"][0]["reason"]
    path.write_bytes(content)
    assert by_which(site.get(f"submissions/{submission}/scores"))["valid", "accuracy"]["bagged"] is not None


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("folds/{todo}/scores", 409),
        ("folds/{failed}/scores", 409),
        ("folds/999999/scores", 404),
        ("submissions/999999/scores", 404),
        ("datasets/999999/leaderboard", 404),
        ("folds/{done}/scores?metric=nothing", 400),
        ("folds/{done}/scores?metric=accuracy,", 400),
        ("folds/{done}/scores?metric=__class__", 400),
        ("datasets/{dataset}/leaderboard?metric=accuracy,rmse", 400),
        ("datasets/{dataset}/leaderboard?after=1", 400),
        ("datasets/{dataset}/leaderboard?after=1.2.3:4", 400),
        ("datasets/{dataset}/leaderboard?after=none:4", 200),
        ("datasets/{dataset}/leaderboard?part=all", 400),
        ("submissions/{todo}/scores", 200),
    ],
)
def test_what_cannot_be_scored_is_a_problem(
    site: Site, made: Contest, odd: dict[str, int], path: str, status: int
) -> None:
    """Folds without predictions, names that nobody knows, places that are none."""
    answer = site.ask("GET", path.format(**odd, dataset=made.number))
    assert answer.status_code == status, answer.text
    if "todo" in path and status == 200:
        assert (answer.json()["tested_folds"], answer.json()["scores"][0]["mean"]) == (0, None)
