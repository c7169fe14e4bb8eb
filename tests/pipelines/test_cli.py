import dataclasses
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import secateur
from secateur.pipelines import cli, local
from secateur.pipelines.events import Event
from secateur.pipelines.local import Home, StepError
from secateur.pipelines.options import PANELS
from secateur.pruning.methods import METHODS

Invoke = Callable[..., SimpleNamespace]

ARM = {
    "name": "multimodal", "role": "pruned", "keep": 0.7, "keep_achieved": 0.7004, "seeds": [0, 1],
    "accuracy": [0.9, 0.92], "accuracy_mean": 0.91, "accuracy_sd": 0.014,
    "forward_samples": 3000, "backward_samples": 20000, "seconds": 1.25,
}  # fmt: skip
RESULTS = {
    "arms": [ARM, ARM | {"name": "full", "role": "baseline", "keep_achieved": 1.0}],
    "noise": {"wrong": 100, "found_wrong": 90, "recall": 0.9, "precision": 0.95, "dropped_wrong_all": 97},
    "alarms": ["CLIP does not fit"],
}


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Calls the command line in an empty folder; gives exit code and output."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "SECATEUR_STATE_URI", "SECATEUR_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)

    def call(*arguments: str) -> SimpleNamespace:
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        out, err = capsys.readouterr()
        return SimpleNamespace(code=end.value.code, out=out, err=err)

    return call


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Puts a runner in the place of KFP that only notes how it was called."""
    called: dict[str, Any] = {}

    def run(
        home: Home,
        arguments: Mapping[str, Any],
        environment: Mapping[str, str],
        watch: Callable[[Event], None],
        **how: Any,
    ) -> dict[str, Any]:
        called.update(home=home, arguments=arguments, environment=environment, **how)
        for task in ("ingest", "embed", "warmup"):
            watch(Event("reused", task))
        watch(Event("started", "prune", "multimodal 0.7", seconds=2.0))
        watch(Event("done", "prune", "multimodal 0.7", seconds=4.0))
        results = tmp_path / "results.json"
        results.write_text(json.dumps(RESULTS))
        outputs = {name: f"/runs/{name}" for name in ("mask", "model", "report", "log")}
        return outputs | {
            "results": str(results),
            "version": "digits/v1",
            "run_id": "f00",
            "mask_digest": "0123456789abcdef",
            "promotion": "became champion",
            "unsent": 0,
        }

    monkeypatch.setattr(cli, "run_pipeline", run)
    return called


def test_the_end_of_a_run(invoke: Invoke, ran: dict[str, Any]) -> None:
    done = invoke("run")
    assert done.code == 0
    assert "accuracy (2 seeds)" in done.out
    assert [line.split() for line in done.out.splitlines() if "20,000" in line] == [
        ["multimodal", "70.0", "%", "91.0", "±", "1.4", "%", "20,000", "1.2", "s"],
        ["full", "100.0", "%", "91.0", "±", "1.4", "%", "20,000", "1.2", "s"],
    ]
    assert (
        "Of 100 wrong labels the mask found 90 inconsistent (recall 90 %, precision 95 %), and dropped 97." in done.out
    )
    assert "warning: CLIP does not fit" in done.out
    assert "Reused from earlier runs: ingest, embed, warmup." in done.out
    assert "embed: reused from an earlier run" in done.out
    assert "prune multimodal: done in 4.0 s" in done.out
    for place in ("/runs/report", "/runs/mask (digest 0123456789ab)", "digits/v1 in ", "mlflow ui --backend-store-uri"):
        assert place in done.out


def test_defaults_are_those_of_the_configs(invoke: Invoke, ran: dict[str, Any]) -> None:
    invoke("run")
    expected = {"snapshot": "", "baselines": ["full", "random"]}
    for config in PANELS.values():
        expected |= dataclasses.asdict(config())
    assert ran["arguments"] == expected | {"seeds": [0, 1, 2]}
    assert ran["cache"] is True


def test_options_reach_the_pipeline(invoke: Invoke, ran: dict[str, Any], tmp_path: Path) -> None:
    done = invoke(
        "run", "--keep", "0.5", "--method", "adaptive", "--seeds", "4, 5", "--baselines", "random", "--home", "a home",
        "--model-name", "mine", "--no-cache", "--registry", "/registry.git",
    )  # fmt: skip
    assert done.code == 0
    got = ran["arguments"]
    assert (got["keep"], got["method"], got["seeds"], got["baselines"]) == (0.5, "adaptive", [4, 5], ["random"])
    assert got["model_name"] == "mine"
    assert ran["cache"] is False
    home = tmp_path / "a home"
    assert ran["home"] == Home(home)
    assert ran["environment"] == {
        "SECATEUR_STATE_URI": str(home / "state"),
        "SECATEUR_REGISTRY": "/registry.git",
        "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}",
        "MLFLOW_EXPERIMENT_NAME": "secateur",
    }


def test_a_source_is_known_by_its_absolute_path_and_its_state(
    invoke: Invoke, ran: dict[str, Any], tmp_path: Path
) -> None:
    picture = tmp_path / "pictures" / "cat" / "1.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"1")
    invoke("run", "--source", "pictures")
    before = ran["arguments"]
    assert before["source"] == str(tmp_path / "pictures")
    invoke("run", "--source", "pictures")
    assert ran["arguments"] == before
    picture.write_bytes(b"22")
    invoke("run", "--source", "pictures")
    assert ran["arguments"]["snapshot"] not in ("", before["snapshot"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--keep", "1.4"], "keep must be in (0, 1], got 1.4"),
        (["--keep", "0"], "keep must be in (0, 1], got 0"),
        (["--method", "best"], "method must be one of adaptive, "),
        (["--seeds", "0,x"], "seeds must be whole numbers with commas between them, got '0,x'"),
        (["--seeds", ""], "seeds must be one or more different whole numbers, got []"),
        (["--epochs", "6"], "epochs must be more than warmup_epochs (6), got 6"),
        (["--source", "nowhere"], "source must be 'digits', a folder or a file, got 'nowhere', which is not there"),
        (["--checkpoint", "nowhere.safetensors"], "checkpoint must be a file, got 'nowhere.safetensors'"),
        (["--baselines", ""], "baselines must be one or more different methods, got none"),
        (["--baselines", "full,full"], "baselines must be one or more different methods, got full,full"),
        (["--baselines", "full,multimodal"], "baselines must be methods that do without CLIP, got 'multimodal'"),
        (
            ["--baselines", "seta,proxy,gate-random"],
            "baselines must be methods that do without CLIP, got 'gate-random'",
        ),
        (["--model-name", "a/b"], "model_name must be without '/', ':' and quotes, got 'a/b'"),
        (["--keep", "much"], "Invalid value for '--keep'"),
        (["--kep", "1"], "No such option: --kep"),
    ],
)
def test_wrong_input_is_refused_before_any_work(
    invoke: Invoke, ran: dict[str, Any], tmp_path: Path, options: list[str], sentence: str
) -> None:
    done = invoke("run", *options)
    assert done.code == 2
    assert done.err.startswith(f"error: {sentence}")
    assert done.err.count("\n") == 1
    assert not ran
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback(invoke: Invoke) -> None:
    done = invoke("run", "--keep", "1.4", "--debug")
    assert done.code == 2
    assert "Traceback" in done.err
    assert done.err.endswith("error: keep must be in (0, 1], got 1.4\n")


def test_a_home_that_cannot_be_written(invoke: Invoke, ran: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = invoke("run", "--home", "file/home")
    assert (done.code, ran) == (2, {})
    assert (
        done.err == f"error: home must be a folder that can be written, got '{tmp_path}/file/home': Not a directory\n"
    )


def test_a_home_without_space(invoke: Invoke, ran: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=12 * 10**6))
    done = invoke("run")
    assert (done.code, ran) == (2, {})
    assert done.err.startswith("error: home must be on a disk with at least 200 MB free, got 12 MB in ")


def test_a_tracking_server_that_is_away(invoke: Invoke, ran: dict[str, Any]) -> None:
    started = time.monotonic()
    done = invoke("run", "--tracking-uri", "http://127.0.0.1:9")
    assert (done.code, ran) == (2, {})
    assert done.err.startswith("error: tracking_uri must be a server that answers, got http://127.0.0.1:9: ")
    assert time.monotonic() - started < 8


def test_a_step_that_fails(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def run(home: Any, arguments: Any, environment: Any, watch: Callable[[Event], None], **_: Any) -> None:
        failed = Event("failed", "prune-2", "full 0.7", "keep must be less")
        watch(failed)
        raise StepError(failed, tmp_path / "log.txt", "Traceback: here")

    monkeypatch.setattr(cli, "run_pipeline", run)
    done = invoke("run")
    assert done.code == 1
    assert done.err == f"error: baseline full: keep must be less\nThe whole log is in {tmp_path}/log.txt\n"
    assert "Traceback: here" in invoke("run", "--debug").err


def test_an_interrupted_run(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_pipeline", run)
    done = invoke("run")
    assert (done.code, done.err) == (130, "error: interrupted\n")


def test_help_tells_what_every_option_is(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = invoke("run", "--help")
    assert shown.code == 0
    for panel, config in PANELS.items():
        assert f"─ {panel} ─" in shown.out
        for field in dataclasses.fields(config):
            assert f"--{field.name.replace('_', '-')} " in shown.out
    assert "fraction of the training samples kept; also sets the budget" in shown.out


def test_without_a_command_there_is_help(invoke: Invoke) -> None:
    shown = invoke()
    assert (shown.code, "Usage" in shown.out) == (0, True)


def test_methods_and_version(invoke: Invoke) -> None:
    listed = invoke("methods").out
    assert all(name in listed for name in METHODS)
    assert invoke("version").out == f"{secateur.__version__}\n"


def test_compile_writes_the_pipeline(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("compile", "-o", "made/pipeline.yaml")
    assert (done.code, done.out) == (0, "made/pipeline.yaml\n")
    assert (tmp_path / "made" / "pipeline.yaml").read_text().startswith("# PIPELINE DEFINITION\n# Name: secateur-prune")
    done = invoke("compile", "-o", "pipeline.txt")
    assert (done.code, done.err) == (2, "error: output must end in .yaml, got 'pipeline.txt'\n")


def test_data_wants_its_pointer(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("data")
    assert (done.code, done.err) == (2, f"error: root must hold data.dvc, got none in '{tmp_path}'\n")


def test_data_builds_the_default_data_set(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    called: list[Any] = []
    monkeypatch.setattr(
        "secateur.records.data_version.track_default", lambda root, *, accept: called.append((root, accept))
    )
    assert invoke("data").code == 0
    assert invoke("data", "--accept").out == "data/ is what data.dvc says\n"
    assert called == [(tmp_path, False), (tmp_path, True)]


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = ("torch", "kfp", "mlflow", "dvc", "open_clip", "sklearn", "matplotlib", "pandas", "scipy")
    script = f"import sys, secateur.pipelines.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_steps_find_their_threads_and_their_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local.os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    environment = local.step_environment()
    assert environment["OMP_NUM_THREADS"] == "4"
    assert environment["PATH"].split(":")[0] == str(Path(sys.executable).parent)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert local.step_environment()["OMP_NUM_THREADS"] == "3"


def test_a_sweep_is_every_method_at_every_ratio_beside_what_is_to_beat(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    called: dict[str, Any] = {}

    def run(home: Home, arguments: Any, environment: Any, watch: Callable[[Event], None], **how: Any) -> dict[str, Any]:
        called.update(arguments=arguments, **how)
        watch(Event("started", "prune", "infobatch 0.3", seconds=2.0))
        watch(Event("done", "prune", "infobatch 0.3", seconds=4.0))
        results = tmp_path / "results.json"
        results.write_text(json.dumps({"arms": [ARM | {"recall": 0.5}, ARM | {"name": "full", "recall": None}]}))
        return {"results": str(results), "report": "/runs/report", "run_id": "f00", "log": "/log", "unsent": 3}

    monkeypatch.setattr(cli, "run_pipeline", run)
    done = invoke("sweep", "--methods", "infobatch,random", "--keeps", "0.3, 0.5", "--seeds", "0,1", "--rate", "0.25")
    assert done.code == 0, done.err
    arms = [(arm["method"], arm["keep"]) for arm in called["arguments"]["arms"]]
    assert arms == [(m, k) for m in ("infobatch", "random", "full") for k in (0.3, 0.5)] + [("full", 1.0)]
    assert (called["arguments"]["seeds"], called["arguments"]["rate"]) == ([0, 1], 0.25)
    assert not {"method", "keep", "model_name"} & called["arguments"].keys()
    assert (called["pipeline"], called["name"]) == ("secateur.pipelines.sweep:sweep_pipeline", "sweep")
    assert "infobatch 0.3: done in 4.0 s" in done.out
    assert "run f00 in sqlite:" in done.out
    assert "warning: MLflow is away; send what is left with: secateur sync" in done.out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--methods", "random,random"), "methods must be one or more different ones, got random,random"),
        (("--methods", "nonsense"), "method must be one of"),
        (("--keeps", "a"), "keeps must be numbers with commas between them, got 'a'"),
        (("--keeps", ""), "keeps must be one or more different ones, got none"),
        (("--keeps", "0.5,1.5"), "keep must be in (0, 1], got 1.5"),
    ],
)
def test_a_wrong_sweep_is_said_before_anything_starts(
    invoke: Invoke, ran: dict[str, Any], options: tuple[str, ...], sentence: str
) -> None:
    done = invoke("sweep", *options)
    assert (done.code, ran) == (2, {})
    assert sentence in done.err


def test_there_may_be_nothing_to_send(invoke: Invoke) -> None:
    assert invoke("sync").out == "nothing is left to send\n"


def test_what_local_runs_left_is_sent_where_the_state_is_elsewhere_too(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from secateur.records.tracking import sending

    asked: list[Path] = []
    monkeypatch.setattr(sending, "sync", lambda *spools: asked.extend(spools) or (1, []))
    monkeypatch.setenv("SECATEUR_STATE_URI", "memory://state")
    assert invoke("sync", "--home", str(tmp_path / "home")).out == "1 message sent\n"
    assert tmp_path / "home" / "spool" in asked
