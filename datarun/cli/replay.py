"""`datarun replay`: a part of the log once more, into tables, topics, a file or the standard output."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from datarun.cli.options import DEFAULT_FOLDER, Execute, Folder, Kafka, Postgres, TopicPrefix

if TYPE_CHECKING:
    from datarun.cli.bars import Bar
    from datarun.log.kafka import KafkaLog
    from datarun.projection.offsets import Offsets
    from datarun.replay.progress import Progress
    from datarun.replay.replaying import Replay
    from datarun.replay.selection import Wanted
    from datarun.replay.targets import Target
    from datarun.settings import Settings

_TIME = "ISO 8601 (UTC unless it says otherwise), or how long ago: 90s, 15m, 2h, 7d."
_Id = typer.Option(min=1, max=2_147_483_647)
LIVE_SCHEMAS = "rm"


@dataclass(frozen=True, slots=True)
class _Into:
    """Where to, as it was asked for; exactly one of them."""

    schema: str | None
    prefix: str | None
    kafka: str | None
    file: Path | None
    stdout: bool

    def check(self) -> None:
        """Raise typer.BadParameter unless one place is named, and not the live tables."""
        named = [self.schema is not None, self.prefix is not None or self.kafka is not None, self.file is not None]
        if sum(named) + self.stdout != 1:
            raise typer.BadParameter("say one of --to-schema, --to-prefix and --to-kafka, --to-file, --to-stdout")
        if self.schema is not None and (self.schema.startswith(LIVE_SCHEMAS) or not self.schema.isidentifier()):
            raise typer.BadParameter(
                "take a schema of its own, whose name does not begin with rm", param_hint="--to-schema"
            )

    @property
    def is_table(self) -> bool:
        """Whether it is a file in Parquet."""
        return self.file is not None and self.file.suffix == ".parquet"

    def __str__(self) -> str:
        places = {"schema": self.schema, "prefix": self.prefix, "kafka": self.kafka, "file": self.file}
        return ", ".join(f"{name} {place}" for name, place in places.items() if place is not None) or "stdout"


def replay(
    *,
    since: Annotated[str | None, typer.Option("--from", metavar="TIME", help=_TIME)] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Up to before this.")] = None,
    last: Annotated[str | None, typer.Option(metavar="2h", help="The last so long: 90s, 15m, 2h, 7d.")] = None,
    from_offset: Annotated[int | None, typer.Option(min=0, help="In every partition, from this offset on.")] = None,
    to_offset: Annotated[int | None, typer.Option(min=0, help="In every partition, up to before this offset.")] = None,
    topic: Annotated[list[str] | None, typer.Option(help="Without its prefix; may be given several times.")] = None,
    event: Annotated[list[str] | None, typer.Option("--type", help="Such as FoldTested; several times.")] = None,
    key: Annotated[list[str] | None, typer.Option(help="A fold, dataset or runner; several times.")] = None,
    dataset: Annotated[list[int] | None, _Id] = None,
    submission: Annotated[list[int] | None, _Id] = None,
    where: Annotated[
        str | None, typer.Option(metavar="CONDITION", help='On an event\'s fields: "metrics.train_time > 10".')
    ] = None,
    to_schema: Annotated[str | None, typer.Option(help="A schema of the database, made if it is missing.")] = None,
    to_prefix: Annotated[str | None, typer.Option(help="Topics under this prefix, made if they are missing.")] = None,
    to_kafka: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Topics of another cluster.")] = None,
    to_file: Annotated[
        Path | None,
        typer.Option(help="A file: a table if its name ends in .parquet, else JSON lines, compressed by zstd."),
    ] = None,
    to_stdout: Annotated[bool, typer.Option("--to-stdout", help="JSON lines.")] = False,
    rate: Annotated[float | None, typer.Option(min=0.1, help="Events a second at the most.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget how far an earlier replay had come.")] = False,
    execute: Execute = False,
    folder: Folder = DEFAULT_FOLDER,
    kafka: Kafka = None,
    postgres: Postgres = None,
    topic_prefix: TopicPrefix = None,
) -> None:
    """Replay a part of the log into somewhere else; without --execute only count what is meant.

    It reads by offset and joins no group. Interrupted or killed, the same command goes on where it was.
    """
    from datarun.cli.events import topics_named
    from datarun.cli.servers import database_errors
    from datarun.log.selection import Selection
    from datarun.replay.selection import Wanted
    from datarun.settings import load_settings
    from datarun.topics import DEAD_LETTERS

    into = _Into(to_schema, to_prefix, to_kafka, to_file, to_stdout)
    into.check()
    settings = load_settings(folder, kafka=kafka, postgres_url=postgres, topic_prefix=topic_prefix)
    chosen = Selection(
        topics=tuple(one for one in topics_named(topic) if one is not DEAD_LETTERS),
        first_offset=from_offset or 0,
        stop_offset=to_offset,
        types=frozenset(event or ()),
        keys=frozenset(one.encode() for one in key or ()),
        datasets=frozenset(dataset or ()),
        submissions=frozenset(submission or ()),
    )
    # In words: an ago is another moment every time.
    asked = (
        *(sorted(map(str, part)) for part in (topic or (), event or (), key or (), dataset or (), submission or ())),
    )
    said = (asked, where, from_offset, to_offset, since, until, last, settings.topic_prefix, str(into))
    digest = hashlib.sha256(repr(said).encode()).hexdigest()
    since_ms, until_ms = _times(since, until, last)
    wanted = Wanted(replace(chosen, since_ms=since_ms, until_ms=until_ms), where)
    if execute:
        with database_errors():
            _execute(settings, wanted, into, digest=digest, rate=rate, fresh=fresh)
    else:
        _show_plan(settings, wanted, into)


def _times(since: str | None, until: str | None, last: str | None) -> tuple[int | None, int | None]:
    """Return the span of time in ms."""
    from datarun.cli.moments import moment

    if last is not None and since is not None:
        raise typer.BadParameter("say --from or --last")
    now, begin = datetime.now(UTC), last if last is not None else since
    first, stop = (round(moment(text, now=now).timestamp() * 1000) if text else None for text in (begin, until))
    return first, stop


def _show_plan(settings: Settings, chosen: Wanted, into: _Into) -> None:
    from datarun.cli.bars import bar

    with _source(settings) as event_log, bar("counting") as told:
        counted = _replay(settings, event_log, chosen, told=told).count()
    for (topic, wire_type), count in sorted(counted.items()):
        print(f"{count:>12,}  {topic}  {wire_type}", file=sys.stderr)
    print(f"{counted.total():>12,}  would go to {into}; --execute does it", file=sys.stderr)


def _execute(settings: Settings, chosen: Wanted, into: _Into, *, digest: str, rate: float | None, fresh: bool) -> None:
    from datarun.cli.bars import bar

    state = _state_file(settings, into, digest)
    with ExitStack() as stack:
        event_log = stack.enter_context(_source(settings))
        progress = _progress(state, into, digest=digest, fresh=fresh)
        chosen = _as_begun(chosen, progress)
        work = _replay(settings, event_log, chosen, told=stack.enter_context(bar("replaying")), progress=progress)
        target = _target(settings, chosen, into) if into.schema is None else _tables(settings, work, into, rate)
        stack.callback(target.close)
        _go_on(target, work, progress)

        def save(here: Offsets) -> None:
            if state is not None:
                _progress_at(chosen, work, here, target, digest).save(state)

        work.run(target, rate=rate, save=save)
    if state is not None:
        state.unlink(missing_ok=True)
    speed = work.written / work.seconds if work.seconds else 0.0
    print(f"{work.written:,} events in {work.seconds:.1f} s, {speed:,.0f} events/s, to {into}", file=sys.stderr)


def _state_file(settings: Settings, into: _Into, digest: str) -> Path | None:
    if into.stdout or into.schema is not None:
        return None
    if into.file is not None:
        return into.file.with_name(f"{into.file.name}.state")
    return settings.directory / "replays" / f"{digest[:16]}.state"


def _progress(state: Path | None, into: _Into, *, digest: str, fresh: bool) -> Progress | None:
    from datarun.errors import DatarunError
    from datarun.replay.progress import Progress

    progress = None if fresh or state is None else Progress.load(state, replay=digest)
    if into.file is not None and progress is None and not fresh and into.file.exists():
        raise DatarunError(f"{into.file} is there already, and no replay of it is under way: --fresh writes it anew")
    return progress


def _as_begun(chosen: Wanted, progress: Progress | None) -> Wanted:
    """Return what is wanted with the span of time that it was begun with."""
    if progress is None:
        return chosen
    span = replace(chosen.selection, since_ms=progress.since_ms, until_ms=progress.until_ms)
    return replace(chosen, selection=span)


def _replay(
    settings: Settings, event_log: KafkaLog, chosen: Wanted, *, told: Bar, progress: Progress | None = None
) -> Replay:
    from datarun.replay.progress import offsets
    from datarun.replay.replaying import Replay
    from datarun.replay.selection import filter_of

    start, end = chosen.span(event_log, catalogue=settings.catalogue)
    if progress is not None:
        start, end = offsets(progress.here), offsets(progress.ends)
    return Replay(event_log, filter_of(chosen, event_log, catalogue=settings.catalogue), start, end, told)


def _go_on(target: Target, work: Replay, progress: Progress | None) -> None:
    from datarun.replay.tables import SchemaTarget

    target.resume(progress.written if progress else {})
    if isinstance(target, SchemaTarget):
        here = target.offsets()
        work.start = {tp: min(max(start, here.get(tp, 0)), work.end[tp]) for tp, start in work.start.items()}


def _progress_at(chosen: Wanted, work: Replay, here: Offsets, target: Target, digest: str) -> Progress:
    from datarun.replay.progress import Progress, listed

    return Progress(
        replay=digest,
        since_ms=chosen.selection.since_ms,
        until_ms=chosen.selection.until_ms,
        ends=listed(work.end),
        here=listed(here),
        written=dict(target.written()),
    )


def _target(settings: Settings, chosen: Wanted, into: _Into) -> Target:
    from datarun.replay.targets import FileTarget, StandardOutput, TableTarget

    if into.file is not None:
        if into.is_table:
            return TableTarget(into.file, catalogue=settings.catalogue)
        return FileTarget(into.file, catalogue=settings.catalogue)
    if into.stdout:
        return StandardOutput(settings.catalogue)
    return _topics(settings, chosen, into)


def _tables(settings: Settings, work: Replay, into: _Into, rate: float | None) -> Target:
    from functools import partial

    from datarun.db import connect
    from datarun.log.kafka import KafkaLog
    from datarun.projection.share import Ground
    from datarun.replay.tables import SchemaTarget

    database = partial(connect, settings.postgres, application="datarun-replay")
    ground = Ground(partial(KafkaLog, settings.brokers), database, settings.catalogue, into.schema or "")
    # Who bounds the rate wants to see them come.
    return SchemaTarget(ground, work.log, takes=work.chosen.takes, is_slow=rate is not None)


def _topics(settings: Settings, chosen: Wanted, into: _Into) -> Target:
    from datarun.log.admin import cluster_id, create_topics
    from datarun.log.brokers import Brokers
    from datarun.log.kafka import KafkaLog
    from datarun.replay.targets import Place, TopicTarget

    brokers = Brokers(into.kafka, settings.kafka_security) if into.kafka else settings.brokers
    catalogue = settings.catalogue if into.prefix is None else replace(settings.catalogue, prefix=into.prefix)
    source, target = Place(cluster_id(settings.brokers), settings.catalogue), Place(cluster_id(brokers), catalogue)
    if source != target:
        create_topics(brokers, prefix=catalogue.prefix)
    log = KafkaLog(brokers)
    with ExitStack() as stack:
        stack.callback(log.close)
        made = TopicTarget(log, source=source, target=target, topics=chosen.selection.topics)
        stack.pop_all()
    return made


@contextmanager
def _source(settings: Settings) -> Iterator[KafkaLog]:
    from datarun.log.kafka import KafkaLog

    event_log = KafkaLog(settings.brokers)
    try:
        yield event_log
    finally:
        event_log.close()
