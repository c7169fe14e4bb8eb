"""What the steps will find on the cluster, as far as the Kubernetes API tells whoever asks."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from secateur.errors import InputError
from secateur.pipelines.resources import Cluster

IN_POD = "KUBERNETES_SERVICE_HOST"
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
PATIENCE = 10  # seconds


class SkipError(Exception):
    """Nothing to check, and why."""


class KubernetesChecks:
    """The checks, for one namespace."""

    def __init__(self, namespace: str, wanted: Cluster) -> None:
        self.wanted, self.given, self.api = wanted, namespace, None

    def core(self) -> Any:
        """The Kubernetes API, from the pod's account or the user's configuration."""
        from kubernetes import client, config

        if self.api is None:
            try:
                (config.load_incluster_config if os.environ.get(IN_POD) else config.load_kube_config)()
            except config.ConfigException as error:
                raise SkipError("there is no configuration for Kubernetes here") from error
            self.api = client.CoreV1Api()
        return self.api

    def read(self, kind: str, name: str) -> Any:
        """An object of the namespace."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        namespace = self.given or (NAMESPACE_FILE.read_text() if NAMESPACE_FILE.is_file() else "kubeflow")
        try:
            return getattr(self.core(), f"read_namespaced_{kind}")(name, namespace, _request_timeout=PATIENCE)
        except ApiException as error:
            if error.status == 404:
                raise InputError(f"{kind} must be there, got no {name!r} in the namespace {namespace}") from error
            if error.status in (401, 403):
                raise SkipError(f"no right to see {name!r} in the namespace {namespace}") from error
            raise InputError(f"Kubernetes must answer, got HTTP status {error.status}: {error.reason}") from error
        except HTTPError as error:
            raise InputError(f"Kubernetes must answer, got: {error}") from error

    def settings(self) -> str:
        """The ConfigMap, and keys in it that no step reads."""
        from secateur.pipelines.cluster import SETTINGS

        return self.keys("config_map", self.wanted.config_map, SETTINGS)

    def secrets(self) -> str:
        """The Secrets; no value is looked at."""
        from secateur.pipelines.cluster import CREDENTIALS

        for name in (self.wanted.secret_files, *self.wanted.image_pull_secrets):
            if name:
                self.read("secret", name)
        return self.keys("secret", self.wanted.secret, CREDENTIALS)

    def keys(self, kind: str, name: str, known: Iterable[str]) -> str:
        """The keys of a ConfigMap or Secret."""
        if not name:
            raise SkipError("none is wanted")
        found = set(self.read(kind, name).data or {})
        if strange := sorted(found - set(known)):
            raise InputError(f"{kind} {name} must have only keys that a step reads, got {', '.join(strange)}")
        return f"{name}: {', '.join(sorted(found)) or 'empty'}"

    def claim(self) -> str:
        """The PersistentVolumeClaim."""
        if not self.wanted.claim:
            raise SkipError("none is wanted")
        found = self.read("persistent_volume_claim", self.wanted.claim)
        return f"{self.wanted.claim}: {found.status.phase}, {', '.join(found.spec.access_modes or ())}"

    def nodes(self) -> str:
        """Whether some node has as many GPUs as the greediest step asks for."""
        from kubernetes.client import ApiException

        most = max(self.wanted.steps.values(), key=lambda step: step.gpus)
        if not most.gpus:
            raise SkipError("no step asks for a GPU")
        try:
            found = self.core().list_node(_request_timeout=PATIENCE).items
        except ApiException as error:
            raise SkipError(f"no right to see the nodes (HTTP status {error.status})") from error
        best = max((int((node.status.allocatable or {}).get(most.gpu, 0)) for node in found), default=0)
        if best < most.gpus:
            raise InputError(f"some node must have {most.gpus} {most.gpu}, got at most {best}")
        return f"a node with {best} {most.gpu}"
