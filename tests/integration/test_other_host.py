"""A runner as on another host: it is given Kafka, the gateway's URL and a token, and no folder of the installation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from datarun import tokens
from datarun.log.admin import create_topics
from datarun.post_api import decode_predictions
from tests.blob_gateways import wire
from tests.gateways import ROOT, Gateway, fold_body, indices, packed, running_gateway, wait_until

ROWS = 20_000
CLASSIFIER = """
from sklearn.linear_model import LogisticRegression
class Classifier:
    def __init__(self):
        self.model = LogisticRegression()
    def fit(self, X, y):
        self.model.fit(X, y)
    def predict_proba(self, X):
        return self.model.predict_proba(X)
"""
HIDDEN = 'mount -t tmpfs none "$0" && exec "$@"'
"""Runs a program to which a folder seems empty."""


@contextmanager
def running(argv: list[str], log: Path, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a service until the block ends."""
    with log.open("ab") as output, subprocess.Popen(argv, stdout=output, stderr=output, **options) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def hidden(folder: Path) -> list[str]:
    """Return the beginning of a command that cannot see what is in a folder."""
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    argv = [*unshare, "sh", "-c", HIDDEN, str(folder)]
    tried = subprocess.run([*argv, "ls", str(folder)], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no folder can be hidden here: {tried.stderr}")
    return argv


def table(seed: int) -> str:
    """Return a dataset of about a megabyte that a linear model can tell apart."""
    random = np.random.default_rng(seed)
    values = random.random((ROWS, 3)).round(12)
    lines = [",".join(map(str, [*row, int(row[0] > 0.5)])) for row in values]
    return "\n".join(["a,b,c,species", *lines, ""])


def run_fold(gateway: Gateway, number: int) -> float:
    """Upload a dataset, split it, run a fold of a submission; return the accuracy of its predictions."""
    name, csv = f"data-{number}", table(number)
    raw_data_id = gateway.upload(name, files={f"{name}.csv": packed(csv)})
    assert gateway.post("rawdata/split/", {"raw_data_id": raw_data_id, "held_out_test": 0.2}).ok
    rows = {"train_is": indices(*range(2000)), "test_is": indices(*range(2000, 4000))}
    body = fold_body(number, number, raw_data_id, **rows, files={"classifier.py": packed(CLASSIFIER)})
    assert gateway.post("submissionfold/", body).status_code == 201

    def ended() -> dict[str, object] | None:
        fold = gateway.get(f"submissionfold/{number}/").json()
        return fold if fold["state"] in ("TESTED", "ERROR") else None

    wait_until(ended, seconds=90)
    fold = ended()
    assert fold
    assert fold["state"] == "TESTED", fold["log_messages"]
    predicted = decode_predictions(fold["full_train_predictions"]).reshape(-1, 2)
    assert len(predicted) == ROWS * 0.8
    return float(predicted.max(axis=1).mean())


def test_a_runner_needs_only_kafka_the_gateway_and_a_token(
    kafka: str, postgres_url: str, topic_prefix: str, blobs_url: str, tmp_path: Path
) -> None:
    """Folds run to their end though every connection to the gateway is cut in the middle of a download."""
    create_topics(kafka, prefix=topic_prefix)
    token, secret, blobs = tokens.make(), tmp_path / "token", Path(blobs_url.removeprefix("file://"))
    tokens.add(postgres_url, token, "runner-elsewhere", role="runner")
    secret.write_text(token)
    secret.chmod(0o600)
    common = ["--kafka", kafka, "--topic-prefix", topic_prefix]
    servers = {"kafka": kafka, "postgres_url": postgres_url, "blobs_url": blobs_url, "prefix": topic_prefix}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DATARUN_")}
    with ExitStack() as stack:
        gateway = stack.enter_context(running_gateway(tmp_path / "gateway", **servers))
        proxy = stack.enter_context(wire(gateway.url))
        proxy.cuts = [300_000] * 1000
        projector = [sys.executable, "-m", "services.projector", "--dir", str(tmp_path), "--postgres", postgres_url]
        stack.enter_context(running([*projector, *common], tmp_path / "projector.log", cwd=ROOT))
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        log = elsewhere / "runner.log"
        runner = [*hidden(blobs), sys.executable, "-m", "services.runner", "--dir", str(elsewhere / "empty")]
        options = ["--gateway", proxy.url, "--token-file", str(secret), "--slots", "1", "--sandbox-min", "1"]
        argv = [*runner, *common, *options]
        stack.enter_context(running(argv, log, cwd=elsewhere, env=environment | {"PYTHONPATH": str(ROOT)}))
        for number in (1, 2, 3):
            made = proxy.made
            assert run_fold(gateway, number) > 0.8
            assert proxy.made > made + 2, log.read_text()
    assert "blobs.again" in log.read_text()
    kept = [path for path in (elsewhere / "empty" / "blob-cache").glob("*/*") if path.suffix != ".partial"]
    assert len(kept) >= 9


def test_a_token_that_opens_nothing_is_said_at_the_start(
    kafka: str, postgres_url: str, topic_prefix: str, blobs_url: str, tmp_path: Path
) -> None:
    """The exit code is that of a wrong configuration, so that nobody starts it again and again; no fold is taken."""
    secret = tmp_path / "token"
    secret.write_text(tokens.make())
    servers = {"kafka": kafka, "postgres_url": postgres_url, "blobs_url": blobs_url, "prefix": topic_prefix}
    with running_gateway(tmp_path / "gateway", **servers) as gateway:
        argv = [sys.executable, "-m", "services.runner", "--dir", str(tmp_path / "empty"), "--kafka", kafka]
        options = ["--gateway", gateway.url, "--token-file", str(secret)]
        ended = subprocess.run([*argv, *options], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 78
    assert "datarun token add" in ended.stderr
