"""`secateur schedule`: runs of the pipeline that Kubeflow starts by the clock."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from secateur.errors import InputError
from secateur.pipelines.options import names, with_config_options
from secateur.pipelines.resources import read_cluster
from secateur.pipelines.submitting import (
    Baselines,
    ClusterFile,
    Experiment,
    Host,
    Namespace,
    Overrides,
    Preset,
    Root,
    ServiceAccount,
    cluster_arguments,
    have_version,
    start,
)

if TYPE_CHECKING:
    from kfp.client import Client

CRON_CHARACTERS = set("0123456789*/,-?LW#ABCDEFGHIJKLMNOPQRSTUVWXYZ")
MOST = 10  # runs of one schedule side by side that Kubeflow allows

app = typer.Typer(help="Run the pipeline on Kubeflow by the clock.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="of the schedule")]


@app.command()
@with_config_options
def create(
    name: Name,
    cron: Annotated[
        str, typer.Option(help="minute hour day month weekday, with seconds before them if you like; UTC mostly")
    ] = "0 3 * * 1",
    concurrency: Annotated[int, typer.Option(help="runs of it that may work side by side")] = 1,
    baselines: Baselines = "full,random",
    host: Host = "",
    namespace: Namespace = "",
    experiment: Experiment = "secateur",
    pipeline_root: Root = "",
    service_account: ServiceAccount = "",
    preset: Preset = "",
    cluster: ClusterFile = None,
    overrides: Overrides = None,
    **settings: Any,
) -> None:
    """Make a schedule, or put it in the place of the one with this name; runs that were missed are not made up for."""
    arguments = cluster_arguments(settings, names(baselines))
    placed, when = read_cluster(cluster, overrides or (), preset), six_fields(cron)
    if not 1 <= concurrency <= MOST:
        raise InputError(f"concurrency must be in [1, {MOST}], got {concurrency}")
    from secateur.pipelines import client as kubeflow

    client = kubeflow.connect(host, namespace)
    with kubeflow.told(client.host):
        pipeline, version = have_version(client, placed, arguments)
        before = schedules(client, name)
        old = [each.recurring_run_id for each in before]
        paused = bool(before) and all(each.status == "DISABLED" for each in before)
        options = {
            "experiment_id": kubeflow.experiment_id(client, experiment),
            "job_name": name,
            "cron_expression": when,
            "max_concurrency": concurrency,
            "no_catchup": True,
            "enabled": not paused,
            "params": arguments,
            "pipeline_id": pipeline,
            "version_id": version,
            "pipeline_root": pipeline_root or None,
            "service_account": service_account or None,
        }
        made = kubeflow.made_once(
            lambda: str(client.create_recurring_run(**options).recurring_run_id),
            lambda: next((s.recurring_run_id for s in schedules(client, name) if s.recurring_run_id not in old), None),
        )
        retire(client, old)
    print(f"schedule {name}: {when}{', paused as it was' if paused else ''} ({made})")
    if old:
        print(f"in the place of {', '.join(old)}")


def retire(client: "Client", old: list[str]) -> None:
    """Remove what a new schedule has replaced; all are stopped before any is removed.

    Raises:
        ClusterError: That could not be done.
    """
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    from secateur.pipelines.client import ClusterError

    try:
        for action in (client.disable_recurring_run, client.delete_recurring_run):
            for identity in old:
                action(identity)
    except (ApiException, HTTPError) as error:
        raise ClusterError(
            f"the new schedule is there, but the old one ({', '.join(old)}) could not be removed; "
            "the same command again will try to"
        ) from error


@app.command("list")
def list_all(host: Host = "", namespace: Namespace = "") -> None:
    """List the schedules."""
    from secateur.pipelines import client as kubeflow

    client = kubeflow.connect(host, namespace)
    with kubeflow.told(client.host):
        found = schedules(client)
    table = Table("schedule", "cron", "state", "runs at once", "source", "id", box=box.SIMPLE_HEAD)
    for each in found:
        trigger = each.trigger.cron_schedule.cron if each.trigger and each.trigger.cron_schedule else "by interval"
        source = ((each.runtime_config and each.runtime_config.parameters) or {}).get("source", "digits")
        state = (each.status or "").lower()
        table.add_row(each.display_name, trigger, state, str(each.max_concurrency), source, each.recurring_run_id)
    Console(markup=False).print(table if found else "there are no schedules")


@app.command()
def pause(name: Name, host: Host = "", namespace: Namespace = "") -> None:
    """Start no further runs, until it is resumed."""
    on_each(name, host, namespace, "disable_recurring_run", "paused")


@app.command()
def resume(name: Name, host: Host = "", namespace: Namespace = "") -> None:
    """Start runs again, from the next time on."""
    on_each(name, host, namespace, "enable_recurring_run", "resumed")


@app.command()
def delete(name: Name, host: Host = "", namespace: Namespace = "") -> None:
    """Remove a schedule; its runs stay."""
    on_each(name, host, namespace, "delete_recurring_run", "deleted")


@app.command("run-now")
def run_now(name: Name, host: Host = "", namespace: Namespace = "", experiment: Experiment = "secateur") -> None:
    """Start a run as the schedule would, at once."""
    from secateur.pipelines import client as kubeflow

    client = kubeflow.connect(host, namespace)
    with kubeflow.told(client.host):
        schedule = existing(client, name)[-1]
        version = schedule.pipeline_version_reference
        if version is None or schedule.runtime_config is None:
            raise InputError(f"schedule must be one that secateur made, got {name!r}")
        config = schedule.runtime_config
        where = {"service_account": schedule.service_account or "", "pipeline_root": config.pipeline_root or ""}
        identity = version.pipeline_id, version.pipeline_version_id
        run_id = start(client, name, *identity, config.parameters or {}, experiment=experiment, **where)
    print(f"run {run_id}: {client.run_url(run_id)}")


def on_each(name: str, host: str, namespace: str, action: str, done: str) -> None:
    """Do something to all schedules of a name; there are two where one could not be removed."""
    from secateur.pipelines import client as kubeflow

    client = kubeflow.connect(host, namespace)
    with kubeflow.told(client.host):
        for each in existing(client, name):
            getattr(client, action)(each.recurring_run_id)
    print(f"schedule {name}: {done}")


def schedules(client: "Client", name: str = "") -> list[Any]:
    """The schedules, those of one name if one is given, the oldest first."""
    from secateur.pipelines.client import listed, named

    options = {"filter": named("display_name", name)} if name else {}
    namespace = client.get_user_namespace() or None
    return listed(
        client.list_recurring_runs, "recurring_runs", sort_by="created_at asc", namespace=namespace, **options
    )


def existing(client: "Client", name: str) -> list[Any]:
    """The schedules of a name.

    Raises:
        InputError: There is none.
    """
    found = schedules(client, name)
    if not found:
        known = sorted({each.display_name for each in schedules(client)})
        raise InputError(f"schedule must be one of {', '.join(known) or 'those that there are: none'}, got {name!r}")
    return found


def six_fields(cron: str) -> str:
    """A cron expression as Kubeflow takes it, with seconds.

    Raises:
        InputError: It is none.
    """
    fields = cron.split()
    if len(fields) not in (5, 6) or not set("".join(fields).upper()) <= CRON_CHARACTERS:
        raise InputError(f"cron must be 5 or 6 fields such as '0 3 * * 1', got {cron!r}")
    return " ".join(["0"] * (6 - len(fields)) + fields)
