"""A pipeline as it runs on a cluster: with resources, settings and secrets, and a step that ends every run."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from kfp import dsl, kubernetes
from kfp.compiler import Compiler
from kfp.dsl import pipeline_context
from kfp.dsl.graph_component import GraphComponent

from secateur.components.finish.component import finish
from secateur.components.images import IMAGE
from secateur.dataset.shared import DATA_VARIABLE
from secateur.pipelines.resources import LIGHT, Cluster, Resources

# Keys of the ConfigMap and of the Secret; each is the name of the environment variable too, and each may be missing.
SETTINGS = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "SECATEUR_REGISTRY",
    "SECATEUR_STORE",
    "SECATEUR_STATE_URI",
    "SECATEUR_DATA",
    "AWS_ENDPOINT_URL",
    "AWS_DEFAULT_REGION",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "GIT_SSH_COMMAND",
)
CREDENTIALS = (
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AZURE_STORAGE_CONNECTION_STRING",
    "HF_TOKEN",
    "SECATEUR_REGISTRY",  # here too, for a URL with a password
    "SECATEUR_STORE",
    "SECATEUR_ALERT_URL",
)
SECRET_FILES, DATA = "/etc/secateur", "/data"
TABLES = f"{DATA}/secateur"  # in the claim, where `ingest` leaves its tables for all other steps
RUN_LABEL = "metadata.labels['pipeline/runid']"  # which Kubeflow puts on each pod of a run


def for_cluster(pipeline: GraphComponent, cluster: Cluster, *, pinned: bool = False) -> GraphComponent:
    """The same pipeline with a place for each step, and `finish` at the end, also of a failed run.

    It gives no outputs: KFP has none for what runs under an exit handler.

    Args:
        pipeline: As it runs on one machine.
        cluster: What its steps ask for and find.
        pinned: The source cannot change behind its name, so that `ingest` may be taken from the cache.
    """
    body, parts = pipeline.pipeline_func, placed_parts(pipeline, cluster)

    def run(*arguments: object) -> None:
        end = finish().set_caching_options(enable_caching=False)
        with dsl.ExitHandler(end, name="all steps"):
            body(*arguments)
        for task in place_all(cluster, parts):
            if task.component_spec.name == "ingest" and not pinned:
                task.set_caching_options(enable_caching=False)

    return rewritten(pipeline, run, outputs=False)


def rewritten(pipeline: GraphComponent, body: Callable[..., Any], *, outputs: bool = True) -> GraphComponent:
    """A pipeline with another body, and the arguments of the old one."""
    signature = inspect.signature(pipeline.pipeline_func)
    body.__doc__ = pipeline.pipeline_func.__doc__
    body.__signature__ = signature if outputs else signature.replace(return_annotation=inspect.Signature.empty)  # type: ignore[attr-defined]
    return dsl.pipeline(body, name=pipeline.name)


def placed_parts(pipeline: GraphComponent, cluster: Cluster) -> dict[str, GraphComponent]:
    """Pipelines that a pipeline has among its steps, by name, with places for their own steps.

    They are found where its function finds them, among the names of its module; KFP does not let them be made while
    the pipeline itself is.
    """

    def placed(part: GraphComponent) -> GraphComponent:
        inner = placed_parts(part, cluster)

        def run(*arguments: object) -> Any:
            outputs = part.pipeline_func(*arguments)
            place_all(cluster, inner)
            return outputs

        return rewritten(part, run)

    function = inspect.unwrap(pipeline.pipeline_func)
    used = {name for name in function.__code__.co_names if isinstance(function.__globals__.get(name), GraphComponent)}
    return {part.name: placed(part) for part in map(function.__globals__.get, used)}


def place_all(cluster: Cluster, parts: Mapping[str, GraphComponent]) -> list[dsl.PipelineTask]:
    """Place all steps of the pipeline that is being made; gives them."""
    tasks = list(pipeline_context.Pipeline.get_default_pipeline().tasks.values())
    for task in tasks:
        name = task.component_spec.name
        if task.pipeline_spec is None:
            place(task, cluster.step(name), cluster)
        else:
            task.component_spec, task.pipeline_spec = parts[name].component_spec, parts[name].pipeline_spec
    return tasks


def place(task: dsl.PipelineTask, resources: Resources, cluster: Cluster) -> None:
    """Give a step its resources, and what all steps find."""
    if resources.nodes > 1:
        spread(task, resources, cluster)
        resources = dataclasses.replace(resources, cpu=1, memory=LIGHT.memory, gpus=0, shm="")
    ask(task, resources)
    find(task, cluster)


def spread(task: dsl.PipelineTask, resources: Resources, cluster: Cluster) -> None:
    """Tell a step to work on several machines, see `secateur.components.trainjob`."""
    told = {
        "NODES": resources.nodes,
        "NODE_GPUS": resources.gpus,
        "NODE_CPU": resources.cpu,
        "NODE_MEMORY": resources.memory,
        "SHARED": cluster.claim,
        "SHARED_PATH": DATA,
        "IMAGE": cluster.image or IMAGE,
    }
    for name, value in told.items():
        task.set_env_variable(f"SECATEUR_{name}", str(value))


def ask(task: dsl.PipelineTask, resources: Resources) -> None:
    """Say what a step needs of its node."""
    cpu = str(resources.cpu)
    task.set_cpu_request(cpu).set_cpu_limit(cpu)
    task.set_memory_request(resources.memory).set_memory_limit(resources.memory)
    task.set_env_variable("OMP_NUM_THREADS", cpu)  # a pod sees all cores of its node
    if resources.gpus:
        task.set_accelerator_type(resources.gpu).set_accelerator_limit(resources.gpus)
    task.set_retry(resources.retries, backoff_duration=f"{resources.retry_wait}s", backoff_factor=2.0)
    if resources.shm:
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=resources.shm)
    if resources.scratch:
        kubernetes.empty_dir_mount(task, "scratch", "/tmp", size_limit=resources.scratch)
    for label, value in resources.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for toleration in resources.tolerations:
        kubernetes.add_toleration(task, **toleration)
    kubernetes.set_timeout(task, max(1, round(3600 * resources.hours)))


def find(task: dsl.PipelineTask, cluster: Cluster) -> None:
    """Let a step find settings, credentials, files and the run that it belongs to."""
    if cluster.image:
        task.set_container_image(cluster.image)
    kubernetes.set_security_context(task, run_as_non_root=True)  # any: OpenShift gives each namespace users of its own
    kubernetes.use_field_path_as_env(task, "KFP_RUN_ID", RUN_LABEL)
    if cluster.config_map:
        kubernetes.use_config_map_as_env(task, cluster.config_map, {key: key for key in SETTINGS}, optional=True)
    if cluster.secret:
        kubernetes.use_secret_as_env(task, cluster.secret, {key: key for key in CREDENTIALS}, optional=True)
    if cluster.secret_files:
        kubernetes.use_secret_as_volume(task, cluster.secret_files, SECRET_FILES)
    if cluster.claim:
        kubernetes.mount_pvc(task, cluster.claim, DATA)
        task.set_env_variable(DATA_VARIABLE, TABLES)
    if cluster.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(cluster.image_pull_secrets))
    if cluster.image_pull_policy:
        kubernetes.set_image_pull_policy(task, cluster.image_pull_policy)
    labels = {"app.kubernetes.io/name": "secateur", "app.kubernetes.io/component": task.component_spec.name}
    for label, value in (labels | dict(cluster.labels)).items():
        kubernetes.add_pod_label(task, label, value)


def compile_pipeline(pipeline: GraphComponent, path: str) -> None:
    """Write a pipeline as YAML: its own part, then that for Kubernetes."""
    Compiler().compile(pipeline, path)
