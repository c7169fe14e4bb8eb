"""`secateur inspect`: what is wrong with a labelled data set, without training on it."""

import dataclasses
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.components.images import source_image
from secateur.dataset import ImageTable, open_table
from secateur.dataset.sources import IngestConfig
from secateur.dataset.table import INFO_FILE
from secateur.evaluation.inspection import InspectConfig
from secateur.files import read_json, replacing, write_json
from secateur.pipelines import checks
from secateur.pipelines.options import build, with_config_options
from secateur.records.dvc_source import ingest
from secateur.semantics.config import ClipConfig
from secateur.state import STATE_VARIABLE, content_key

if TYPE_CHECKING:
    from secateur.evaluation.inspection import Inspection
    from secateur.semantics.embeddings import Embeddings

WHERE = "Where"
TOO_MANY = 3  # the exit code where more labels are wrong than --fail-above accepts
REPORT_FILE, AUDIT_PAGE = "report.html", "audit.html"
PANELS: dict[str, type] = {"Inspection": InspectConfig, "CLIP": ClipConfig, "Data": IngestConfig}


@partial(with_config_options, panels=PANELS, without=("source",))
def inspect(
    data: Annotated[str, typer.Argument(help="what `run --source` takes: a folder of class folders, a table, ...")],
    out: Annotated[
        Path | None, typer.Option(help="folder for report and findings, instead of one in home", rich_help_panel=WHERE)
    ] = None,
    home: Annotated[
        Path, typer.Option(help="folder that keeps tables, embeddings and results", rich_help_panel=WHERE)
    ] = Path(".secateur"),
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks", rich_help_panel=WHERE)] = False,
    **settings: Any,
) -> None:
    """Find wrong labels, copies and leaks in a data set, without training on it.

    Exit code: 0; 3 if the estimated fraction of wrong labels is above --fail-above; 2 for wrong input; 1 for a failure.
    """
    source = checks.absolute_source(build(IngestConfig, settings | {"source": data}))
    clip, config = checks.absolute_files(build(ClipConfig, settings)), build(InspectConfig, settings)
    home = home.absolute()
    checks.check_home(home)
    if out:
        checks.check_home(out, "out")
    with progress():
        table, table_folder = read_table(source, home)
        folder = (out or home / "inspect" / f"{table.info.name}-{table.info.digest[:12]}").absolute()
        places, rate = look(table, table_folder, clip, config, folder, home)
    for name, place in places.items():
        print(f"{name:<9} {place}")
    limit = config.limit()
    if limit is not None and rate > limit:
        text = f"the estimated fraction of wrong labels must be at most {limit:.2%}, got {rate:.2%}"
        print(f"error: {text}", file=sys.stderr)
        raise typer.Exit(TOO_MANY)


@contextmanager
def progress() -> Iterator[None]:
    """Print what the library tells of its work to the standard error."""
    logger, handler = logging.getLogger("secateur"), logging.StreamHandler()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # other packages set up the root logger
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def read_table(source: IngestConfig, home: Path) -> tuple[ImageTable, Path]:
    """The table of a source, and where it lies: the source itself, or one made now or in an earlier call."""
    if (Path(source.source) / INFO_FILE).is_file():
        return open_table(source.source), Path(source.source)
    files = checks.snapshot(source.source, ClipConfig())
    state = content_key(config=dataclasses.asdict(source), files=files, code=source_image())
    folder = home / "tables" / content_key(source=source.source)
    if not (folder / "state.json").is_file() or read_json(folder / "state.json") != state:
        with replacing(folder) as temporary:
            ingest(source, temporary / "table", temporary / "clean_labels.parquet")
            write_json(temporary / "state.json", state)
    return open_table(folder / "table"), folder / "table"


def embed(table: ImageTable, table_folder: Path, clip: ClipConfig, home: Path) -> "Embeddings":
    """The embeddings of all shards; what was embedded before is taken from the durable state."""
    from secateur.semantics.embed import embed_shard, open_embeddings

    os.environ.setdefault(STATE_VARIABLE, str(home / "state"))
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is loaded: threads that wait do not spin
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        folders = [Path(scratch) / shard for shard in table.info.shards]
        for shard, folder in zip(table.info.shards, folders, strict=True):
            embed_shard(table_folder, shard, clip, folder)
        return open_embeddings(folders, table)


def look(
    table: ImageTable, table_folder: Path, clip: ClipConfig, config: InspectConfig, folder: Path, home: Path
) -> tuple[dict[str, str], float]:
    """Inspect a table, and write everything into a folder.

    Returns:
        What to print at the end, by its name; and the estimated fraction of wrong labels.
    """
    from secateur.evaluation import findings_file, inspect_page, judging, view
    from secateur.evaluation.inspection import inspect, judged_rows

    ids = table.sample_id[judged_rows(table)]
    audited = judging.read_audit(config.audited, ids) if config.audited else {}
    if config.audit:
        judging.check_audit(folder / judging.AUDIT_FILE, config.audit, len(ids))
    embeddings = embed(table, table_folder, clip, home)
    found = inspect(table, embeddings, audited)
    findings_file.write_findings(found, folder)
    write_text(folder / REPORT_FILE, inspect_page.render_inspection(found, config.suspect_above))
    places = summary(found, config) | {
        "report": str(folder / REPORT_FILE),
        "findings": f"{folder / findings_file.FINDINGS_FILE}, {findings_file.FINDINGS_TEXT_FILE}",
    }
    if config.audit:
        position_A = judging.draw(found, config.audit)
        judging.write_audit(found, position_A, folder / judging.AUDIT_FILE)
        write_text(folder / AUDIT_PAGE, inspect_page.render_audit(found, position_A, judging.AUDIT_FILE))
        places["audit"] = f"{folder / AUDIT_PAGE}; to fill in: {folder / judging.AUDIT_FILE}"
    if config.export != "none":
        judged = found if config.change_test else inspect(table, embeddings, audited, test=False)
        info = view.write_view(judged, found, config, folder / config.export)
        places["export"] = f"{folder / config.export} (digest {info.digest[:12]})"
    return places, found.findings.rate.value


def summary(found: "Inspection", config: InspectConfig) -> dict[str, str]:
    """The findings in a few lines, by their names."""
    from secateur.evaluation.inspect_page import headline, rate_sentence
    from secateur.evaluation.page import count

    suspected = count(len(found.suspects(config.suspect_above)))
    fit, leaks = found.findings.clip_fit, int(found.leak.sum())
    lines = {
        "labels": f"{headline(found)}: {rate_sentence(found)}",
        "suspected": f"{suspected} labels, each wrong with more than {config.suspect_above:.0%} probability",
        "copies": f"{count((found.group >= 0).sum())} pictures in {count(len(found.groups))} groups; "
        f"{count(leaks)} of them leak from training to test",
    }
    if fit:
        lines["fit"] = fit.reason
    return {name: line.replace("\N{NO-BREAK SPACE}", " ") for name, line in lines.items()}


def write_text(file: Path, text: str) -> None:
    """Write a page."""
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
