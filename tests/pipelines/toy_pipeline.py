"""A pipeline that runs in seconds, for the tests of the runner."""

# ruff: noqa: UP006, UP035  KFP knows typing's own names
from typing import List

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Output

from secateur.pipelines.cluster import for_cluster
from secateur.pipelines.resources import read_cluster


@dsl.component(base_image="toy", install_kfp_package=False)
def start(text: str, data: Output[Dataset]) -> List[str]:
    import logging
    from pathlib import Path

    from secateur import logs

    logs.configure("start")
    logging.getLogger("secateur.toy").info("writing %s", text)
    Path(data.path).write_text(text)
    return ["one", "two"]


@dsl.component(base_image="toy", install_kfp_package=False)
def work(data: Input[Dataset], mode: str, metrics: Output[Metrics]) -> str:
    import logging
    import os
    import signal
    import time
    from pathlib import Path

    from secateur import logs
    from secateur.errors import InputError

    logs.configure("work", mode)
    logging.getLogger("secateur.toy").warning("mode %s", mode)
    print("a line of somebody else")
    if mode == "refuse":
        raise InputError("keep must be in (0, 1], got 1.4")
    if mode == "break":
        raise KeyError("a bug")
    if mode == "vanish":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "hang":
        Path(data.path).with_name("pid").write_text(str(os.getpid()))
        time.sleep(600)
    metrics.log_metric("length", 1.0)
    Path(metrics.path).write_text("{}")
    return f"{mode} {os.environ.get('TOY', '')}"


@dsl.pipeline(name="toy")
def toy_pipeline(mode: str, text: str = "hello", modes: List[str] = ["a", "b"]) -> str:  # noqa: B006
    first = start(text=text)
    with dsl.ParallelFor(modes, parallelism=2) as item:
        work(data=first.outputs["data"], mode=item)
    last = work(data=first.outputs["data"], mode=mode).set_retry(3, backoff_duration="60s")
    return last.outputs["Output"]


toy_on_cluster = for_cluster(toy_pipeline, read_cluster())
