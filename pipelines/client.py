"""Kubeflow Pipelines by its own SDK, with bounded waits and an outcome in one sentence for whatever goes wrong."""

import contextlib
import io
import json
import os
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import typer
from kfp.client import Client
from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials
from kfp_server_api import ApiException, V2beta1Pipeline
from urllib3.exceptions import HTTPError

from secateur.errors import InputError
from secateur.records.git import without_credentials

HOST, NAMESPACE = "KF_PIPELINES_ENDPOINT", "SECATEUR_KFP_NAMESPACE"
TOKEN, TOKEN_FILE, COOKIE = "SECATEUR_KFP_TOKEN", "SECATEUR_KFP_TOKEN_FILE", "SECATEUR_KFP_COOKIE"
IN_POD, POD_TOKEN = "KUBERNETES_SERVICE_HOST", "KF_PIPELINES_SA_TOKEN_PATH"
POD_HOST = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
POD_TOKEN_FILE = "/var/run/secrets/kubeflow/pipelines/token"
CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
TIMEOUT = (5.0, 60.0)  # seconds to connect, and to read
WAITS = (0.5, 1.0, 2.0)  # seconds before each further try of a request that changes nothing if it comes twice
REPEATABLE = ("GET", "DELETE")
PAGE = 100


class ClusterError(typer.TyperException):
    """Something on the cluster's side that a user cannot mend by other input; the exit code is 1."""


class PatientClient(Client):  # type: ignore[misc]
    """The SDK's client, which asks again, a few times, where a server says that it has a trouble of its own."""

    def __init__(self, host: str, **options: Any) -> None:
        super().__init__(host=host, **options)
        self.host = host.rstrip("/")
        self.be_patient()

    def run_url(self, run_id: str) -> str:
        """Where a browser finds a run."""
        return f"{without_credentials(self.host)}/#/runs/details/{run_id}"

    def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:
        """Ask how the server is; the SDK would do so five times, and wait for half a minute in between."""
        self.be_patient()
        return self._healthz_api.healthz_service_get_healthz()

    def be_patient(self) -> None:
        """Give all requests a time limit, and those that may be repeated further tries."""
        rest = self._healthz_api.api_client.rest_client
        if hasattr(rest, "plain_request"):
            return
        rest.plain_request = rest.request

        def request(method: str, url: str, **options: Any) -> Any:
            options["_request_timeout"] = TIMEOUT
            for wait in WAITS if method in REPEATABLE else ():
                try:
                    return rest.plain_request(method, url, **options)
                except HTTPError:
                    pass
                except ApiException as error:
                    if error.status < 500:
                        raise
                time.sleep(wait)
            return rest.plain_request(method, url, **options)

        rest.request = request


def connect(host: str = "", namespace: str = "") -> Client:
    """Connect to Kubeflow Pipelines.

    The host comes from `KF_PIPELINES_ENDPOINT` if it is not given; in a pod it is the cluster's own. What it wants to
    see comes from the environment only: `SECATEUR_KFP_TOKEN`, a file that `SECATEUR_KFP_TOKEN_FILE` names,
    `SECATEUR_KFP_COOKIE`, or in a pod the service account's token, in this order.

    Args:
        host: URL.
        namespace: Of the runs, where Kubeflow has many users; else empty.

    Raises:
        InputError: No host, nobody there, or no right to be there.
    """
    environment = os.environ
    host = host or environment.get(HOST) or (POD_HOST if environment.get(IN_POD) else "")
    if not host.startswith(("http://", "https://")):
        raise InputError(f"host must be the URL of Kubeflow Pipelines, got {without_credentials(host)!r}")
    # KFP's own default, which it takes for none.
    options: dict[str, Any] = {"namespace": namespace or environment.get(NAMESPACE) or "kubeflow"}
    with told(host), quiet():
        client = PatientClient(host, **options, **access(environment), **network(host))
        multi_user = client.get_kfp_healthz().multi_user
    if multi_user and not client.get_user_namespace():
        raise InputError("namespace must be named on a Kubeflow with several users, got none")
    return client


def access(environment: Mapping[str, str]) -> dict[str, Any]:
    """What the SDK shall show to the server.

    Raises:
        InputError: A token file that is not there.
    """
    if token := environment.get(TOKEN):
        return {"existing_token": token}
    file = environment.get(TOKEN_FILE, "")
    if file and not Path(file).is_file():
        raise InputError(f"{TOKEN_FILE} must be a file, got {file!r}")
    if not file and environment.get(COOKIE):
        return {"cookies": environment[COOKIE]}
    file = file or environment.get(POD_TOKEN) or POD_TOKEN_FILE
    # It is read for each request: the cluster renews it.
    return {"credentials": ServiceAccountTokenVolumeCredentials(file)} if Path(file).is_file() else {}


def network(host: str) -> dict[str, Any]:
    """Proxy and certificates, as the environment has them for everybody else."""
    parts = urlsplit(host)
    proxy = None if urllib.request.proxy_bypass(parts.hostname or "") else urllib.request.getproxies().get(parts.scheme)
    bundle = next((os.environ[name] for name in CERTIFICATES if os.environ.get(name)), None)
    return {"proxy": proxy, "ssl_ca_cert": bundle}


@contextmanager
def told(host: str) -> Iterator[None]:
    """Say what went wrong with a request.

    Raises:
        InputError: The server is away, or does not know or like who asks.
        ClusterError: It has a trouble of its own, or refuses what was asked.
    """
    shown = without_credentials(host)
    try:
        yield
    except HTTPError as error:
        cause = getattr(error, "reason", None) or error
        raise InputError(f"host must be a server that answers, got {shown}: {said(str(cause))}") from error
    except ApiException as error:
        if error.status == 401:
            raise InputError(f"token or cookie must be one that {shown} takes, got HTTP status 401") from error
        if error.status == 403:
            raise InputError(f"account must have the right to do that at {shown}, got: {message(error)}") from error
        if error.status == 0:
            raise InputError(f"host must be a server that can be trusted, got {shown}: {said(error.reason)}") from error
        raise ClusterError(f"Kubeflow Pipelines at {shown}: {message(error)}") from error


def message(error: ApiException) -> str:
    """What the server said, in one sentence."""
    try:
        body = json.loads(error.body or "")
        text = body.get("error_message") or body.get("message") or body.get("error")
    except (ValueError, AttributeError):
        text = None
    return f"HTTP status {error.status}: {said(str(text or error.reason))}"


def said(text: str, length: int = 300) -> str:
    """A text on one line, not too long, with nobody's password."""
    line = without_credentials(" ".join(text.split()))
    return line if len(line) <= length else f"{line[:length]}..."


@contextmanager
def quiet() -> Iterator[None]:
    """Keep to ourselves what the SDK prints and warns about."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def named(key: str, value: str) -> str:
    """A filter for lists: those whose field is just this."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "string_value": value}]})


def listed(call: Callable[..., Any], field: str, **options: Any) -> list[Any]:
    """All pages of a list.

    Args:
        call: Of the SDK.
        field: Of its answer.
        options: For the call.
    """
    found: list[Any] = []
    token = ""
    while True:
        answer = call(page_token=token, page_size=PAGE, **options)
        found += getattr(answer, field) or []
        token = answer.next_page_token
        if not token:
            return found


def pipeline_id(client: Client, name: str) -> str:
    """The id of a pipeline, made if need be."""
    namespace = client.get_user_namespace() or None

    def find() -> str | None:
        found = listed(client.list_pipelines, "pipelines", filter=named("display_name", name), namespace=namespace)
        return found[0].pipeline_id if found else None

    def make() -> str:
        wanted = V2beta1Pipeline(display_name=name, name=name, namespace=namespace)
        return str(client.pipelines.pipeline_service_create_pipeline(pipeline=wanted).pipeline_id)

    return find() or made_once(make, find)


def upload(client: Client, name: str, version: str, file: Path) -> tuple[str, str, bool]:
    """Have a compiled pipeline on the server, as a version that is never overwritten.

    Args:
        client: The server.
        name: Of the pipeline.
        version: Of its version; what is there under this name already is taken, since the name holds a digest.
        file: YAML.

    Returns:
        Ids of the pipeline and the version, and whether it is new.
    """
    pipeline = pipeline_id(client, name)

    def find() -> str | None:
        options = {"pipeline_id": pipeline, "filter": named("display_name", version)}
        found = listed(client.list_pipeline_versions, "pipeline_versions", **options)
        return found[0].pipeline_version_id if found else None

    def make() -> str:
        answer = client.upload_pipeline_version(str(file), version, pipeline_id=pipeline)
        return str(answer.pipeline_version_id)

    known = find()
    return pipeline, known or made_once(make, find), known is None


def experiment_id(client: Client, name: str) -> str:
    """The id of an experiment, made if need be."""
    namespace = client.get_user_namespace() or None

    def find() -> str | None:
        found = listed(client.list_experiments, "experiments", filter=named("display_name", name), namespace=namespace)
        return found[0].experiment_id if found else None

    def make() -> str:
        return str(client.create_experiment(name, namespace=namespace).experiment_id)

    return find() or made_once(make, find)


def made_once(make: Callable[[], str], find: Callable[[], str | None]) -> str:
    """Make something that can be found again, where a server that failed may or may not have made it.

    Args:
        make: Asks for it; gives its id.
        find: Looks for it; gives its id, or None.
    """
    for wait in (*WAITS, None):
        try:
            with quiet():
                return make()
        except (ApiException, HTTPError) as error:
            if isinstance(error, ApiException) and error.status < 500 and error.status != 409:
                raise
            found = find()
            if found is None and wait is None:
                raise
        if found is not None:
            return found
        time.sleep(wait or 0)
    raise AssertionError
