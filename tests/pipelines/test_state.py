from secateur.pipelines.events import Event
from secateur.pipelines.state import RunState, expected_steps


def state(method: str = "multimodal", baselines: tuple[str, ...] = ("full", "random")) -> RunState:
    return RunState(expected_steps({"method": method, "keep": 0.7, "baselines": baselines}), clock=lambda: 100.0)


def test_steps_are_shown_in_the_order_of_the_pipeline() -> None:
    assert [s.label for s in state().steps] == [
        "ingest", "embed", "warmup", "prune multimodal", "baseline full", "baseline random", "evaluate", "publish",
    ]  # fmt: skip


def test_a_step_goes_from_waiting_to_done() -> None:
    run = state()
    ingest = run.steps[0]
    run.apply(Event("starting", "ingest"))
    assert (ingest.status, ingest.began) == ("running", 100.0)
    run.apply(Event("started", "ingest", seconds=2.0))
    assert (ingest.status, ingest.began, ingest.start_up) == ("running", 98.0, 2.0)
    assert run.apply(Event("line", "ingest", text="hello")) == (ingest,)
    run.apply(Event("done", "ingest", seconds=5.0))
    assert (ingest.status, ingest.seconds, ingest.line) == ("done", 5.0, "hello")
    assert run.start_up == 2.0


def test_start_up_side_by_side_counts_once() -> None:
    run, now = state(), 0.0
    run.clock = lambda: now
    for at, task, part, seconds in (
        (3.0, "warmup", "", 3.0),
        (14.0, "prune-2", "full 0.7", 4.0),
        (16.0, "prune-2", "random 0.7", 5.0),
        (30.0, "evaluate", "", 1.0),
    ):
        now = at
        run.apply(Event("started", task, part, seconds=seconds))
    assert run.start_up == 3 + (16 - 10) + 1


def test_the_only_shard_is_shown_as_embed() -> None:
    run = state()
    run.apply(Event("started", "embed", "shard-00000-of-00001.arrow"))
    assert run.labels("running") == ["embed"]
    assert len(run.steps) == 8


def test_further_shards_join_beside_the_first() -> None:
    run = state()
    for shard in "abc":
        run.apply(Event("started", "embed", shard))
    assert [s.label for s in run.steps[1:4]] == ["embed", "embed b", "embed c"]


def test_a_reused_step() -> None:
    run = state()
    assert [s.label for s in run.apply(Event("reused", "warmup"))] == ["warmup"]
    assert run.labels("reused") == ["warmup"]


def test_a_reused_step_of_a_loop_is_named_once_there_is_no_doubt() -> None:
    run = state()
    run.apply(Event("starting", "prune-2"))
    assert not run.apply(Event("reused", "prune-2"))
    named = run.apply(Event("started", "prune-2", "full 0.7"))
    assert [(s.label, s.status) for s in named] == [("baseline full", "running"), ("baseline random", "reused")]


def test_a_loop_reused_as_a_whole() -> None:
    run = state()
    run.apply(Event("reused", "prune-2"))
    assert len(run.apply(Event("reused", "prune-2"))) == 2
    assert run.labels("reused") == ["baseline full", "baseline random"]


def test_hits_do_not_leak_from_the_pruned_arm_to_a_baseline_of_the_same_method() -> None:
    run = state(method="random")
    run.apply(Event("reused", "prune"))
    assert run.labels("reused") == ["prune random"]


def test_a_failed_step() -> None:
    run = state()
    run.apply(Event("failed", "prune-2", "full 0.7", "keep must be in (0, 1], got 1.4"))
    assert run.labels("failed") == ["baseline full"]
