"""The servers: whether each answers, knows us, and is as this version needs it. Nothing is changed in any of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from hashlib import sha256

from datarun.doctor.findings import Finding, missing, noted, well
from datarun.errors import DatarunError
from datarun.gateway_client import GatewayClient, GatewayRefused
from datarun.settings import Settings

ANSWER_SECONDS = 5.0
BEAT_SECONDS = 5.0
"""Longer than the pause between two heartbeats."""
MAX_SKEW_SECONDS = 5.0
_UNKNOWN, _NOT_ALLOWED, _NOT_FOUND = 401, 403, 404
_NO_FOLD = "/runapp/submissionfold/9999999999/"
_MAKE_ONE = "datarun token add NAME --role runner > FILE, where the database is; then --token-file FILE"


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield what was found of each server that is named."""
    from datarun.log.admin import probe  # noqa: PLC0415 - the machine is looked at meanwhile

    if not settings.kafka:
        yield missing("kafka", "none is named", "datarun up, or pass --kafka HOST:PORT, or --dir of a running stack")
    elif not probe(settings.brokers, ANSWER_SECONDS):
        yield missing("kafka", f"{settings.kafka} does not answer", "datarun up, or pass --kafka HOST:PORT")
    else:
        yield well("kafka", f"{settings.kafka} answers")
        yield _guarded("topics", lambda: _topics(settings))
        yield _guarded("clock", lambda: _clock(settings))
    yield _guarded("postgres", lambda: _postgres(settings))
    yield _guarded("blobs", lambda: _blobs(settings))
    yield _guarded("gateway", lambda: _gateway(settings))


def _guarded(name: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except (DatarunError, OSError) as error:
        return missing(name, str(error).strip(), "see that it runs and is named right")


def _topics(settings: Settings) -> Finding:
    from datarun.log.admin import topic_differences  # noqa: PLC0415

    found = topic_differences(settings.brokers, prefix=settings.topic_prefix)
    if found:
        remedy = f"datarun topics create --kafka {settings.kafka} --topic-prefix {settings.topic_prefix}"
        return missing("topics", "; ".join(one.what for one in found), remedy)
    return well("topics", f"those of {settings.topic_prefix}* and their share groups are as the catalogue says")


def _clock(settings: Settings) -> Finding:
    """Compare with the broker's by the next heartbeat of any runner: its timestamp is the broker's, and just now."""
    from datarun.log.kafka import KafkaLog  # noqa: PLC0415
    from datarun.topics import RUNNER_STATUS  # noqa: PLC0415

    log = KafkaLog(settings.brokers)
    try:
        ends = log.end_offsets([settings.catalogue.full_name(RUNNER_STATUS)])
        deadline = time.monotonic() + BEAT_SECONDS
        for batch in log.read(ends):
            if batch:
                skew = time.time() - batch[-1].timestamp_ms / 1000
                break
            if time.monotonic() > deadline:
                return noted("clock", "not compared: no runner beats, and only a heartbeat brings the broker's time")
    finally:
        log.close()
    if abs(skew) > MAX_SKEW_SECONDS:
        return missing("clock", f"{skew:+.1f} s beside the broker's", "timedatectl set-ntp true")
    return well("clock", f"{skew:+.1f} s beside the broker's")


def _postgres(settings: Settings) -> Finding:
    if settings.postgres_url is None:
        return noted("postgres", "none is named; only the gateway and the projector need one", "pass --postgres URL")
    import psycopg2  # noqa: PLC0415

    from datarun import db  # noqa: PLC0415

    try:
        outdated = db.outdated(settings.postgres_url)
    except psycopg2.Error as error:
        return missing("postgres", f"it does not answer: {error}".strip(), "datarun up, or pass --postgres URL")
    if outdated:
        return missing("postgres", outdated, "datarun db upgrade --postgres URL")
    return well("postgres", "answers, and its tables are of this version")


def _blobs(settings: Settings) -> Finding:
    if settings.blobs_url is None:
        state = "the gateway's" if settings.gateway_url else "none is named"
        return noted("blobs", state, "" if settings.gateway_url else "pass --blobs URL, or --gateway URL")
    from datarun.blobs import open_blobs  # noqa: PLC0415

    store, content = open_blobs(settings.blobs_url), b"datarun doctor was here"
    if store.get(store.put(content)) != content:
        return missing("blobs", f"{settings.blobs_url} gives back other bytes", "choose another --blobs")
    return well("blobs", f"{settings.blobs_url} takes and gives")


def _gateway(settings: Settings) -> Finding:
    if settings.gateway_url is None:
        return noted("gateway", "none is named", "pass --gateway URL and --token-file FILE")
    token = settings.token.get_secret_value() if settings.token else ""
    client = GatewayClient(settings.gateway_url, token)
    client.request("GET", "/healthz")
    if not token:
        return missing("gateway", f"{settings.gateway_url} answers; there is no token", _MAKE_ONE)
    try:
        client.request("HEAD", f"/blobs/{sha256().hexdigest()}")
    except GatewayRefused as error:
        if error.status == _UNKNOWN:
            return missing("gateway", f"{settings.gateway_url} does not know the token", _MAKE_ONE)
        if error.status == _NOT_ALLOWED:
            return missing("gateway", f"{settings.gateway_url} knows the token; its role may not run folds", _MAKE_ONE)
        if error.status != _NOT_FOUND:
            raise
    return well("gateway", f"{settings.gateway_url} answers, and takes the token as {_role(client)}")


def _role(client: GatewayClient) -> str:
    try:
        # People's paths are closed to runners.
        client.request("GET", _NO_FOLD)
    except GatewayRefused as error:
        if error.status == _NOT_ALLOWED:
            return "runner"
    return "admin"
