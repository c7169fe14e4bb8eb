"""The end of a pipeline run on a cluster: MLflow hears of a failure, and so does whoever waits for bad news."""

import json
import logging
import os
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from secateur.files import replacing
from secateur.records.git import without_credentials
from secateur.records.places import check_server, places
from secateur.records.tracking.live import FAILURE

if TYPE_CHECKING:
    from mlflow.entities import Run

    from secateur.records.tracking.runs import TrackedRun

log = logging.getLogger(__name__)

ALERT_VARIABLE = "SECATEUR_ALERT_URL"
SUCCEEDED, FAILED = ("SUCCEEDED", "COMPLETE", "CACHED"), ("FAILED", "CANCELED", "CANCELLED", "ERROR")  # as KFP has it
REPORT_FILE = "failure.md"
SHOWN = ("registry_version", "mask_digest", FAILURE)  # tags
TRIES, PATIENCE = 3, 10.0  # seconds


def finish(state: str, message: str, summary_file: str | Path) -> str:
    """End a pipeline run; nothing that happens here is an error.

    Args:
        state: What KFP says of the steps. Where it says neither success nor failure, the MLflow run tells.
        message: What else KFP says; may be empty.
        summary_file: Written in any case, Markdown.

    Returns:
        "succeeded" or "failed".
    """
    run, found = open_quietly()
    failed = state in FAILED or (run is not None and found is not None and unfinished(run, found))
    if state in SUCCEEDED or not failed:
        write(summary_file, "The run succeeded.\n")
        if run and found and FAILURE in found.data.tags:  # of a try that another one made good
            run.client.delete_tag(run.run_id, FAILURE)
        return "succeeded"
    tags, figures = (found.data.tags, found.data.metrics) if found else ({}, {})
    reason = tags.get(FAILURE) or message or f"the steps ended as {state}"
    text = describe(places().key or "", reason, figures)
    write(summary_file, text)
    if run:
        mark_failed(run, reason, text)
    alert(f"secateur: run {places().key or ''} failed: {reason}")
    return "failed"


def unfinished(run: "TrackedRun", found: "Run") -> bool:
    """Whether MLflow knows of no good end: `publish` ends a run that is ours, and gives its version's name to any."""
    if run.ours:
        return bool(found.info.status != "FINISHED")
    return FAILURE in found.data.tags and "registry_version" not in found.data.tags


def open_quietly() -> "tuple[TrackedRun, Run] | tuple[None, None]":
    """The MLflow run of this pipeline run; none if nobody named a server, or it is away."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return None, None
    try:
        where = places()
        check_server(where.tracking_uri)
        from secateur.records.tracking import runs

        run = runs.open_run(where, where.key or "")
        return run, run.client.get_run(run.run_id)
    except Exception as error:  # whatever it is, the alert has to go out
        log.warning("MLflow cannot be told how the run ended: %s", without_credentials(str(error)))
        return None, None


def mark_failed(run: "TrackedRun", reason: str, report: str) -> None:
    """Give an MLflow run, and those below it that have not ended, the status FAILED."""
    from mlflow.exceptions import MlflowException

    from secateur.records.tracking import runs

    try:
        runs.set_tags(run, {FAILURE: reason[:5000]})
        run.client.log_text(run.run_id, report, REPORT_FILE)
    except (MlflowException, OSError) as error:
        log.warning("MLflow does not take the reason: %s", without_credentials(str(error)))
    runs.end_run(run, "FAILED")


def describe(key: str, reason: str, figures: Mapping[str, float]) -> str:
    """The report of a failure, Markdown."""
    lines = [f"# Run {key} failed".replace("  ", " "), "", reason, ""]
    if figures:
        lines += ["Last figures before that:", "", "| figure | value |", "| --- | ---: |"]
        lines += [f"| {name} | {value:g} |" for name, value in sorted(figures.items())]
    return "\n".join([*lines, ""])


def alert(text: str) -> None:
    """Post a sentence to the address that the environment names; the address is a secret and is not logged."""
    url = os.environ.get(ALERT_VARIABLE)
    if not url:
        return
    headers = {"Content-Type": "application/json"}
    for attempt in range(TRIES):
        try:
            request = urllib.request.Request(url, json.dumps({"text": text}).encode(), headers)
            with urllib.request.urlopen(request, timeout=PATIENCE):
                return
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            log.warning("the alert was not taken: %s", reason)
            time.sleep(attempt)


def write(path: str | Path, text: str) -> None:
    """Write a text file."""
    with replacing(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def final_figures(key: str) -> dict[str, str]:
    """The figures and the version of a pipeline run, from the MLflow server that the environment names.

    Args:
        key: The pipeline run's id in Kubeflow.

    Returns:
        Texts by name; nothing if there is no server, or it knows nothing.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return {}
    try:
        where = places()
        check_server(where.tracking_uri)
        from secateur.records.tracking import runs

        client = runs.open_client(where.tracking_uri)
        experiment = client.get_experiment_by_name(where.experiment)
        wanted = f"tags.`{runs.KEY}` = '{key}'"
        found = client.search_runs([experiment.experiment_id], wanted) if experiment else []
    except Exception as error:
        log.warning("MLflow cannot be asked for the figures: %s", without_credentials(str(error)))
        return {}
    if not found:
        return {}
    data = found[0].data
    figures = {name: f"{value:.4g}" for name, value in sorted(data.metrics.items()) if "/" not in name}
    return figures | {name: data.tags[name] for name in SHOWN if name in data.tags}
