import subprocess
import sys

import pytest

from secateur.errors import InputError
from secateur.pipelines import cli
from secateur.pruning import methods
from secateur.pruning.config import PruneConfig
from secateur.pruning.method import Method
from secateur.pruning.methods import METHODS, find_method
from secateur.pruning.pruner import Pruner

CODE = """
import numpy as np
from secateur.pruning.method import Method, Selection


class EveryOther(Method):
    summary = "every other sample [sic]"
    paper = "nobody's"
    cost = "a thought"

    def select(self, samples, progress):
        return Selection(np.arange(len(samples)) % 2 == 0)


class Silent(EveryOther):
    summary = None


class Idle(Method):
    summary = paper = ""


number = 3
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Make distributions with entry points, as if they were installed."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "others_methods", raising=False)
    (tmp_path / "others_methods.py").write_text(CODE)

    def make(distribution, **entries):
        folder = tmp_path / f"{distribution}-1.2.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        lines = [f"{name.replace('_', '-')} = {value}" for name, value in entries.items()]
        (folder / "entry_points.txt").write_text("\n".join(["[secateur.methods]", *lines]))
        methods.brought.cache_clear()

    yield make
    methods.brought.cache_clear()


def shown(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as end:
        cli.main(["methods"])
    printed = capsys.readouterr()
    return end.value.code, printed.out, printed.err


def test_a_method_of_another_distribution_works_like_a_built_in_one(install):
    install("others", every_other="others_methods:EveryOther")
    pruner = Pruner(PruneConfig(method="every-other"), None, [0] * 10)
    assert pruner.next_epoch(0, 0.0).active_N.tolist() == [True, False] * 5
    assert pruner.mask().meta["method"] == "every-other"
    assert "every-other" not in METHODS


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ("absent_module:Method", "be importable, got ModuleNotFoundError: No module named 'absent_module'"),
        ("others_methods:Absent", "be importable, got AttributeError: module 'others_methods' has no attribute"),
        ("others_methods:number", "be a subclass of Method with `select`, got 3"),
        ("others_methods:Idle", "be a subclass of Method with `select`, got <class 'others_methods.Idle'>"),
        ("others_methods:Silent", "have a text in `summary`, got None"),
    ],
)
def test_a_broken_method_names_its_distribution(install, entry, error):
    install("others", mine=entry)
    with pytest.raises(InputError, match=r"^method 'mine' of others 1.2 must ") as raised:
        find_method("mine")
    assert error in str(raised.value)
    assert find_method("random") is METHODS["random"]


def test_a_name_that_is_taken_is_refused(install):
    install("others", random="others_methods:EveryOther", mine="others_methods:EveryOther")
    install("more", mine="others_methods:EveryOther")
    with pytest.raises(InputError, match=r"'random' of others 1.2 must have a name of its own, got that of a built-in"):
        find_method("random")
    with pytest.raises(InputError, match=r"'mine' of \w+ 1.2 must have a name of its own, got that of \w+ 1.2"):
        find_method("mine")
    assert find_method("full") is METHODS["full"]


def test_an_unknown_name_is_told_all_names_and_imports_nothing(install):
    install("others", every_other="absent_module:Method")
    with pytest.raises(InputError, match=r"method must be one of adaptive, .*every-other, .*static-random, got 'best'"):
        find_method("best")


@pytest.mark.parametrize("columns", [80, 120])
def test_the_list_has_all_there_is_to_know(install, capsys, monkeypatch, columns):
    install("others", every_other="others_methods:EveryOther")
    code, out, err = shown(capsys, monkeypatch, columns)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= columns
    text = " ".join(out.split())
    for name, method in [*METHODS.items(), ("every-other", find_method("every-other"))]:
        assert f" {name} {method.summary} from: {method.paper}" in text
        assert all(f"needs: {', '.join(method.needs)}" in text for _ in method.needs)
    assert "from: nobody's cost: a thought" in text
    assert "…" not in out


def test_the_list_goes_on_beside_a_broken_method(install, capsys, monkeypatch):
    install("others", every_other="others_methods:EveryOther", mine="absent_module:Method")
    code, out, err = shown(capsys, monkeypatch, 80)
    assert code == 2
    assert "every-other" in out
    assert err.startswith("error: method 'mine' of others 1.2 must be importable")
    assert err.count("\n") == 1


def test_every_built_in_method_says_what_it_is():
    for name, method in METHODS.items():
        assert method.summary, name
        assert method.paper, name
        assert method.cost != Method.cost or not set(method.needs) - {"validation"}, name


def test_the_names_of_methods_are_known_without_what_they_use():
    code = "import secateur.pipelines.cli, sys; print(*sorted({'cleanlab', 'sklearn', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
