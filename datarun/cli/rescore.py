"""`datarun rescore`: every attempt that was ever tested under a scoring function, from the log and the blobs."""

from __future__ import annotations

import sys
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from datarun.cli.options import DEFAULT_FOLDER, Folder, Kafka, TopicPrefix

if TYPE_CHECKING:
    from datarun.scoring.folds import Part
    from datarun.scoring.history import History, Offsets
    from datarun.scoring.history import Wanted as Whose
    from datarun.scoring.metrics import Metric
    from datarun.scoring.rescoring import Rescoring
    from datarun.scoring.sinks import ScoreFile
    from datarun.settings import Settings

SAVE_SECONDS = 1.0
_Id = typer.Option(min=1, max=2_147_483_647)


class Format(StrEnum):
    """What is written."""

    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"


class Rows(StrEnum):
    """Which rows of a fold."""

    TRAIN = "train"
    VALID = "valid"
    TEST = "test"


def rescore(
    metric: Annotated[
        list[str] | None, typer.Argument(help="Scoring functions by name; --list tells which there are.")
    ] = None,
    *,
    function: Annotated[
        list[str] | None,
        typer.Option(
            metavar="path.py:name",
            help="A scoring function of your own; the file is run in this process, with all you may do.",
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Print the scoring functions that have a name.")] = False,
    dataset: Annotated[int | None, _Id] = None,
    submission: Annotated[int | None, _Id] = None,
    part: Annotated[list[Rows] | None, typer.Option(help="Only these rows; may be given several times.")] = None,
    format_: Annotated[
        Format, typer.Option("--format", help="A table of submissions, or a line a score.")
    ] = Format.TABLE,
    output: Annotated[Path | None, typer.Option(dir_okay=False, help="A file for the lines.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Write the file anew.")] = False,
    folder: Folder = DEFAULT_FOLDER,
    kafka: Kafka = None,
    blobs: Annotated[str | None, typer.Option(metavar="URL", help="The blob store, instead of the folder's.")] = None,
    topic_prefix: TopicPrefix = None,
) -> None:
    """Score every tested attempt of the log again, superseded ones too; nothing is run again or appended.

    With --output an interrupted command goes on where it was. What is written tells scores on hidden labels.
    """
    from datarun.scoring.folds import Part
    from datarun.scoring.functions import load_function
    from datarun.scoring.history import Wanted as Whose
    from datarun.scoring.metrics import named
    from datarun.settings import load_settings

    if list_:
        _print_functions()
        return
    metrics = [*(named(name) for name in metric or ()), *(load_function(one) for one in function or ())]
    if not metrics:
        raise typer.BadParameter("name a scoring function, or --function path.py:name; --list tells which there are")
    if output is not None and format_ is Format.TABLE:
        raise typer.BadParameter("a file takes --format jsonl or csv", param_hint="--output")
    parts = [Part(one) for one in dict.fromkeys(part or Rows)]
    settings = load_settings(folder, kafka=kafka, blobs=blobs, topic_prefix=topic_prefix)
    work = _Work(settings, metrics, parts, Whose(dataset, submission))
    if output is None:
        work.print(format_)
    else:
        work.write(output, format_, fresh=fresh, functions=function or ())


class _Work:
    """One run of the command."""

    def __init__(self, settings: Settings, metrics: list[Metric], parts: list[Part], whose: Whose) -> None:
        self._settings = settings
        self._metrics = list({metric.name: metric for metric in metrics}.values())
        self._parts = parts
        self._whose = whose

    def print(self, form: Format) -> None:
        """Print lines as they come, or a table in the end."""
        from datarun.cli.bars import bar
        from datarun.cli.score_table import Summary
        from datarun.scoring.sinks import as_csv, as_jsonl, csv_header

        _, work = self._begin(None)
        summary = Summary(work.metrics)
        if form is Format.CSV:
            sys.stdout.write(csv_header().decode())
        with bar("scoring", "attempts") as told:
            for rows in work.rows(told=told):
                if form is Format.TABLE:
                    summary.add(rows)
                else:
                    sys.stdout.write((as_jsonl(rows) if form is Format.JSONL else as_csv(rows)).decode())
        if form is Format.TABLE:
            summary.print()
        _tell(work.history)

    def write(self, path: Path, form: Format, *, fresh: bool, functions: list[str] | tuple[()]) -> None:
        """Write lines to a file, going on where an earlier process was."""
        from datarun.scoring.sinks import ScoreFile

        names = [metric.name for metric in self._metrics]
        sources = [Path(one.rpartition(":")[0]).read_bytes() for one in functions]
        asked = (names, sources, self._parts, self._whose, form, self._settings.topic_prefix)
        file = ScoreFile(path, asked=asked)
        if fresh:
            file.forget()
        self._fill(file, form)
        print(f"written to {path}", file=sys.stderr)

    def _fill(self, file: ScoreFile, form: Format) -> None:
        import time

        from datarun.cli.bars import bar
        from datarun.crashes import crash_point
        from datarun.scoring.sinks import as_csv, as_jsonl, csv_header

        begun = file.begun()
        end, work = self._begin(begun.offsets if begun else None)
        done = begun.groups if begun else 0
        file.open(begun, header=csv_header() if form is Format.CSV else b"")
        file.save(end, groups=done)
        saved_at = time.monotonic()
        with bar("scoring", "attempts") as told:
            for rows in work.rows(done=done, told=told):
                file.write(as_jsonl(rows) if form is Format.JSONL else as_csv(rows))
                done += 1
                crash_point("rescore.after_group")
                if time.monotonic() - saved_at > SAVE_SECONDS:
                    file.save(end, groups=done)
                    saved_at = time.monotonic()
        file.finish()
        _tell(work.history)

    def _begin(self, end: Offsets | None) -> tuple[Offsets, Rescoring]:
        from datarun.blobs import open_blobs
        from datarun.cli.bars import bar
        from datarun.log.kafka import KafkaLog
        from datarun.scoring.folds import Scorer
        from datarun.scoring.history import end_of, read_history
        from datarun.scoring.rescoring import Rescoring
        from datarun.scoring.truth import Truths

        store, catalogue = open_blobs(self._settings.blobs), self._settings.catalogue
        with closing(KafkaLog(self._settings.brokers)) as event_log, bar("reading the log") as told:
            end = end or end_of(event_log, catalogue=catalogue)
            history = read_history(event_log, self._whose, end, catalogue=catalogue, told=told)
        return end, Rescoring(history, Scorer(store, Truths(store)), self._metrics, self._parts)


def _print_functions() -> None:
    from datarun.scoring.metrics import METRICS

    for metric in METRICS.values():
        better = "lower" if metric.is_lower_the_better else "higher"
        print(f"{metric.name:<18} {metric.kind:<15} of {metric.takes}, {better} is better")


def _tell(history: History) -> None:
    said = f"{history.attempts:,} tested attempts scored; {history.failed:,} failed ones have no predictions"
    if history.unrequested:
        said += f"; {history.unrequested:,} results without a request in the log are left out"
    print(said, file=sys.stderr)
