"""The commands about what was published, on a registry with versions of a small run."""

import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "records"))
from made_outputs import Outputs, results, write_outputs
from made_registry import make_registry

from secateur.files import write_json
from secateur.pipelines import cli, reproducing
from secateur.pruning.config import PruneConfig
from secateur.pruning.mask import read_mask
from secateur.records.git import git
from secateur.records.registry import catalogue
from secateur.records.registry import repository as registry
from secateur.records.registry.checkout import open_version
from secateur.training.config import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon:DeprecationWarning")
LINE = "my-pets/multimodal-0.7"

Invoke = Callable[..., SimpleNamespace]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[Outputs]]]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("published")
        monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(folder / "dvc-site"))
        made = [write_outputs(folder / str(kept), kept_first=kept) for kept in (8, 6)]
        yield make_registry(folder, *made), made


@pytest.fixture
def invoke(
    published: tuple[str, list[Outputs]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Invoke:
    """Calls the command line in an empty folder; gives exit code and output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "dvc-site"))
    monkeypatch.setenv("SECATEUR_REGISTRY", published[0])
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)

    def call(*arguments: str) -> SimpleNamespace:
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        out, err = capsys.readouterr()
        return SimpleNamespace(code=end.value.code, out=out, err=err)

    return call


def test_list_names_all_versions(invoke: Invoke) -> None:
    ran = invoke("versions", "list")
    assert ran.code == 0
    assert re.findall(rf"({LINE}/v\d+) +(\S+ %) +(\S+ %)", ran.out) == [
        (f"{LINE}/v1", "66.7 %", "85.0 %"),
        (f"{LINE}/v2", "50.0 %", "85.0 %"),
    ]
    assert [facts["version"] for facts in json.loads(invoke("versions", "list", "--json").out)] == [
        f"{LINE}/v1",
        f"{LINE}/v2",
    ]


def test_show_prints_the_cards_of_the_version(invoke: Invoke, published: tuple[str, list[Outputs]]) -> None:
    ran = invoke("versions", "show", f"{LINE}/v2")
    assert f"# Data card: {LINE}/v2" in ran.out
    assert f"# Model card: {LINE}/v2" in ran.out
    assert json.loads(invoke("versions", "show", f"{LINE}/v2", "--json").out)["mask_digest"] == published[1][1].digest


def test_diff_says_what_changed_and_shows_it(invoke: Invoke, published: tuple[str, list[Outputs]]) -> None:
    first, second = (outputs.mask for outputs in published[1])
    ran = invoke("versions", "diff", f"{LINE}/v1", f"{LINE}/v2", "--gallery", "out.html", "--json")
    assert ran.code == 0, ran.err
    says = json.loads(ran.out)
    assert set(says["dropped"]["second"]) == set(first.sample_id[first.kept & ~second.kept])
    assert says["reasons"] == [{"from": "kept", "to": "redundant", "samples": 2}]
    assert sum(counts["both"] for counts in says["per_class"].values()) == 4
    page = Path("out.html").read_text()
    assert f"Dropped by {LINE}/v2, kept by {LINE}/v1: 2" in page
    assert f"Dropped by {LINE}/v1, kept by {LINE}/v2: 0" in page
    assert page.count("data:image/") == 2
    words = invoke("versions", "diff", f"{LINE}/v1", f"{LINE}/v2").out
    assert "12 pictures are in both: 4 dropped by both, 0 only by A, 2 only by B" in words
    assert "agree on 83.3 %" in words
    assert re.search(r"kept +66\.7 % +50\.0 % +-16\.7 points", words)


def test_checkout_writes_the_folder(invoke: Invoke) -> None:
    ran = invoke("versions", "checkout", f"{LINE}/v1", "out")
    assert (ran.code, ran.out) == (0, f"{LINE}/v1: 8 train in out\n")
    assert len(list(Path("out").rglob("*.bmp"))) == 8


def test_checkout_into_the_working_directory(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    ran = invoke("versions", "checkout", f"{LINE}/v1", ".")
    monkeypatch.chdir(tmp_path)
    assert (ran.code, ran.out) == (0, f"{LINE}/v1: 8 train in .\n"), ran.err
    assert len(list(Path("here").rglob("*.bmp"))) == 8


def test_verify_says_what_is_not_fine_by_its_exit_code(invoke: Invoke) -> None:
    ran = invoke("versions", "verify", f"{LINE}/v1", "--tracking-uri", "sqlite:///nowhere.db")
    assert ran.code == 1
    assert f"{LINE}/v1  ok      table:" in ran.out
    assert f"{LINE}/v1  NOT OK  MLflow: tracking_uri must be a store that is there" in ran.out


def test_all_are_verified_in_one_clone(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, forgotten = list[str](), list[Path]()
    monkeypatch.setattr(registry, "git", lambda *command, **named: (calls.extend(command), git(*command, **named))[1])
    monkeypatch.setattr(catalogue, "forget", forgotten.append)
    ran = invoke("versions", "verify", "--tracking-uri", "sqlite:///nowhere.db", "--json")
    assert [(c["version"], c["fine"]) for c in json.loads(ran.out) if c["what"] in ("table", "MLflow")] == [
        (f"{LINE}/{number}", fine) for number in ("v1", "v2") for fine in (True, False)
    ]
    assert calls.count("clone") == 1
    assert len(forgotten) == 1  # the data set, which is the same, is fetched once


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("checkout", f"{LINE}/v3", "out"), f"version must be one of the registry, such as {LINE}/v"),
        (("checkout", f"{LINE}/v1", "."), "DIR must be a new or an empty folder, got '.'"),
        (("checkout", f"{LINE}/v1", "out", "--as", "zip"), "as must be one of"),
        (("list", "--registry", "nowhere.git"), "registry must be a git repository, got"),
        (("list", "--registry", "https://ada:hunter2@127.0.0.1:1/r.git"), "registry must be a git repository, got"),
        (("show", "nothing"), "version must be one of the registry"),
        (("diff", f"{LINE}/v1", f"{LINE}/v2", "--gallery", "out.png"), "gallery must end in .html"),
        (("checkout", f"{LINE}/v1", "out", "--store", "gone"), "store must be the folder that the registry names"),
        (("checkout", f"{LINE}/v1", "out", "--table", "gone"), "data set must be a folder with"),
    ],
)
def test_wrong_input_is_one_sentence(invoke: Invoke, tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    (tmp_path / "note").touch()
    ran = invoke("versions", *arguments)
    assert ran.code == 2
    assert ran.err.startswith(f"error: {sentence}")
    assert ran.err.count("\n") == 1
    assert "hunter2" not in ran.err
    assert not Path("out").exists()


def test_init_and_withdraw(invoke: Invoke, published: tuple[str, list[Outputs]], tmp_path: Path) -> None:
    ran = invoke("registry", "init", "new.git", "--store", "data")
    assert (ran.code, ran.out) == (0, f"{tmp_path}/new.git: a registry with 0 versions\n")
    assert "url = " + str(tmp_path / "data") in git("show", "main:.dvc/config", folder="new.git")
    assert invoke("registry", "init", "new.git").code == 0
    assert invoke("registry", "init", "new.git", "--store", "data").code == 0
    for other in ("other", "https://ada:hunter2@example.org/store"):
        ran = invoke("registry", "init", "new.git", "--store", other)
        assert (ran.code, "hunter2" in ran.err) == (2, False)
        assert ran.err.startswith(f"error: store must be the one of the registry, {tmp_path}/data, got ")
    shutil.copytree(Path(published[0]).parent, tmp_path / "copy")
    copy = str(tmp_path / "copy" / "registry.git")
    gone = str(published[1][0].mask.sample_id[0])
    ran = invoke("registry", "withdraw", gone, "--registry", copy, "--reason", "asked")
    assert ran.code == 0, ran.err
    assert re.findall(rf"({LINE}/v\d) +(\w+) +3 +(\S+)", ran.out) == [
        (f"{LINE}/v1", "kept", "runs:/f00/model"),
        (f"{LINE}/v2", "kept", "runs:/f00/model"),
    ]
    assert "7 train" in invoke("versions", "checkout", f"{LINE}/v1", "out", "--registry", copy).out
    ran = invoke("versions", "reproduce", f"{LINE}/v1", "--registry", copy)
    assert (ran.code, "version must hold no withdrawn picture" in ran.err) == (2, True)
    (tmp_path / "empty").mkdir()
    ran = invoke("registry", "withdraw", "somebody", "--registry", copy, "--store", "empty")
    assert (ran.code, ran.out) == (0, "somebody is withdrawn from every later checkout.\n")


def test_a_mask_is_made_again_byte_for_byte(invoke: Invoke, digits_folder: Path, tmp_path: Path) -> None:
    train = TrainConfig(warmup_epochs=1, batch_size=64, seeds=(3,))
    prune = PruneConfig(method="hardest", keep=0.5, epochs=2)
    job = {
        "dataset": str(digits_folder),
        "shards": [],
        "train_config": dataclasses.asdict(train),
        "prune_config": dataclasses.asdict(prune),
        "clip": None,
    }
    then = tmp_path / "then"
    write_json(then / reproducing.JOB_FILE, job)
    reproducing.run_again(then, None, 1)
    mask = read_mask(then / "mask")
    outputs = Outputs(then, mask.digest)
    outputs.files["dataset_folder"] = digits_folder
    write_json(outputs.files["results_file"], results(mask.meta["dataset"], mask, "hardest"))
    for name in ("report_file", "summary_file"):
        outputs.files[name].touch()
    make_registry(tmp_path / "again", outputs)
    ran = invoke("versions", "reproduce", "digits/hardest-0.5/v1", "--registry", "again/registry.git")
    assert ran.code == 0, ran.err
    assert ran.out == f"digits/hardest-0.5/v1: the mask is identical, byte for byte (digest {mask.digest[:12]})\n"
    assert "hardest seed 3, epoch 2" in ran.err
    write_json(then / reproducing.JOB_FILE, job | {"dataset": "nowhere"})
    with pytest.raises(ValueError, match=r"version must be one that can be made again here, got: .*nowhere"):
        reproducing.run_again(then, None, 1)


def test_what_a_library_leaves_behind_goes_with_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "again.py").write_text("import tempfile; tempfile.mkdtemp(prefix='left-')")
    (tmp_path / "work").mkdir()
    monkeypatch.setattr(reproducing, "__file__", str(tmp_path / "reproducing.py"))
    reproducing.run_again(tmp_path / "work", None, None)
    assert [path.name.partition("-")[0] for path in (tmp_path / "work").iterdir()] == ["left"]


def test_another_mask_is_told_with_what_differs(published: tuple[str, list[Outputs]]) -> None:
    then, now = (outputs.mask for outputs in published[1])
    with open_version(published[0], f"{LINE}/v1") as version:
        facts = version.facts | {
            "versions": {"torch": "1.0", "threads": 8},
            "code_version": "0.0.1+g0123456789ab-dirty",
        }
        run = {"versions": {"torch": "1.0", "threads": 1}, "semantics": None}
        differs = reproducing.differences(facts, run, None)
    outcome = reproducing.compare("v1", then, now, False, differs)
    assert (outcome.identical, outcome.agreement) == (False, pytest.approx(10 / 12))
    assert outcome.sentence.startswith("v1: the masks agree on 83.33 % of the samples. What differs: code 0.0.1")
    assert "threads 8, now 1" in outcome.sentence
    assert "torch" not in outcome.sentence
    assert reproducing.compare("v1", then, then, True, differs).sentence.startswith("v1: the mask is identical, byte")


def test_code_of_another_commit_is_brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "repository" / "secateur"
    package.mkdir(parents=True)
    git("init", "--quiet", folder=package.parent)
    for text in ("then", "now"):
        (package / "__init__.py").write_text(text)
        git("add", ".", folder=package)
        git("-c", "user.name=a", "-c", "user.email=b", "commit", "--quiet", f"--message={text}", folder=package)
    then, now = (git("rev-parse", "--short=12", at, folder=package) for at in ("HEAD~1", "HEAD"))
    monkeypatch.setattr(reproducing, "secateur", SimpleNamespace(__file__=str(package / "__init__.py")))
    monkeypatch.setattr(reproducing, "code_version", lambda: f"0.1.0+g{now}")
    code = reproducing.checkout_code(f"0.1.0+g{then}", tmp_path / "code")
    assert code is not None
    assert (code / "secateur" / "__init__.py").read_text() == "then"
    for wanted in (f"0.1.0+g{now}", "0.1.0+g000000000000", "0.1.0"):
        assert reproducing.checkout_code(wanted, tmp_path / "other") is None
