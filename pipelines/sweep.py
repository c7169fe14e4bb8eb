"""The pipeline of a sweep: methods and ratios over one ingest, one embedding and one warm-up, for all seeds."""

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, List, NamedTuple, TypeVar

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Metrics, Model

from secateur.components.compare.component import compare
from secateur.components.embed.component import embed
from secateur.components.ingest.component import ingest
from secateur.components.prune.component import prune
from secateur.components.record.component import record
from secateur.components.settings import documented
from secateur.components.warmup.component import warmup
from secateur.dataset.sources import IngestConfig
from secateur.pruning.config import PruneConfig
from secateur.semantics.config import ClipConfig
from secateur.training.config import TrainConfig

CONFIGS = (IngestConfig, ClipConfig, TrainConfig, PruneConfig)
VARIED = ("method", "keep")  # what tells the arms apart
ARMS = [{"method": method, "keep": keep} for method in ("multimodal", "full", "random") for keep in (0.3, 0.5, 0.7)]

Function = TypeVar("Function", bound=Callable[..., Any])


class Outputs(NamedTuple):
    """What a sweep ends with."""

    results: Metrics
    report: HTML
    run_id: str


def with_settings(*configs: type, without: Collection[str] = ()) -> Callable[[Function], Function]:
    """Give a pipeline function a parameter for each field of configs; it gets them in its `**settings`.

    Args:
        configs: Config classes.
        without: Fields that become no parameter.
    """

    def parameter(field: Any, kind: Any) -> inspect.Parameter:
        is_list = isinstance(field.default, tuple)
        default, kind = (list(field.default), List[int]) if is_list else (field.default, kind)
        return inspect.Parameter(field.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind)

    def decorate(function: Function) -> Function:
        given = inspect.signature(function)
        own = [p for p in given.parameters.values() if p.kind is not p.VAR_KEYWORD]
        made = [
            parameter(field, typing.get_type_hints(config)[field.name])
            for config in configs
            for field in dataclasses.fields(config)
            if field.name not in without
        ]
        signature = given.replace(parameters=[*own, *made])

        @functools.wraps(function)
        def call(*values: Any, **named: Any) -> Any:
            return function(**signature.bind(*values, **named).arguments)

        call.__signature__ = signature  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in [*own, *made]} | {"return": given.return_annotation}
        return call  # type: ignore[return-value]

    return decorate


def of(config: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of one config."""
    return {field.name: settings[field.name] for field in dataclasses.fields(config) if field.name in settings}


class Trained(NamedTuple):
    """What the arms end with, in their order."""

    models: List[Model]
    masks: List[Dataset]


@dsl.pipeline(name="secateur-arms")
@with_settings(PruneConfig, without=VARIED)
@documented(PruneConfig)
def train_arms(
    dataset: Input[Dataset],
    embeddings: Input[List[Dataset]],
    warm_model: Input[Model],
    arms: List[dict],  # type: ignore[type-arg]  # KFP knows no more of it
    **settings: Any,
) -> Trained:
    """Prune and train by several methods and ratios; a pipeline of its own, for KFP takes no collection into a loop.

    Args:
        dataset: the table that `ingest` wrote
        embeddings: what `embed` wrote for each shard
        warm_model: what `warmup` wrote
        arms: method and keep of each arm
    """
    with dsl.ParallelFor(arms, name="each arm", parallelism=2) as arm:
        arm.keep.channel_type = "float"  # KFP takes all values of a dictionary for texts
        pruned = prune(
            dataset=dataset,
            embeddings=embeddings,
            warm_model=warm_model,
            method=arm.method,
            keep=arm.keep,
            **of(PruneConfig, settings),
        )
    return Trained(models=dsl.Collected(pruned.outputs["model"]), masks=dsl.Collected(pruned.outputs["mask"]))


@dsl.pipeline(name="secateur-sweep")
@with_settings(*CONFIGS, without=VARIED)
@documented(*CONFIGS)
def sweep_pipeline(
    arms: List[dict] = ARMS,  # type: ignore[type-arg]
    snapshot: str = "",
    **settings: Any,
) -> Outputs:
    """Compare methods and ratios on one data set.

    Args:
        arms: method and keep of each arm; with `full` and `random` among them, the report has their lines to beat
        snapshot: any text that names the state of the source; with another one, the source is read anew, not reused
    """
    table = ingest(snapshot=snapshot, **of(IngestConfig, settings))
    dataset = table.outputs["dataset"]
    with dsl.ParallelFor(table.outputs["Output"], name="each shard") as shard:
        asked = embed(dataset=dataset, shard=shard, **of(ClipConfig, settings))
    warm = warmup(dataset=dataset, **of(TrainConfig, settings))
    trained = train_arms(
        dataset=dataset,
        embeddings=dsl.Collected(asked.outputs["embeddings"]),
        warm_model=warm.outputs["warm_model"],
        arms=arms,
        **of(PruneConfig, settings),
    )
    compared = compare(
        dataset=dataset,
        clean_labels=table.outputs["clean_labels"],
        models=trained.outputs["models"],
        masks=trained.outputs["masks"],
    )
    recorded = (
        record(
            dataset=dataset,
            models=trained.outputs["models"],
            results=compared.outputs["results"],
            report=compared.outputs["report"],
            summary=compared.outputs["summary"],
            embedded=dsl.Collected(asked.outputs["metrics"]),
        ).set_caching_options(enable_caching=False)  # its effects lie outside of the pipeline
    )
    return Outputs(
        results=compared.outputs["results"], report=compared.outputs["report"], run_id=recorded.outputs["Output"]
    )
