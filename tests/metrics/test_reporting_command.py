"""The command: where models come from, what is read from files, and what it says of mistakes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from report_command import MODEL

from vaereg.metrics.reporting import Notice, ReportPage, _command
from vaereg.metrics.reporting._command import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the models above, which is where the command runs."""
    (tmp_path / "given_models.py").write_text(MODEL, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("given_models", None)


def run(*arguments):
    return main([*arguments, "--quick", "--quiet"])


def seen():
    return sys.modules["given_models"].SEEN


@pytest.fixture
def data(folder):
    rng = np.random.default_rng(0)

    def write(**arrays):
        np.savez(folder / "test.npz", **arrays)
        return str(folder / "test.npz")

    write.rng = rng
    return write


@pytest.mark.parametrize("source", ["given_models.py:pair", "given_models:pair"])
def test_a_file_or_a_module(folder, source, capsys):
    assert run(source) == 0
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert f"<title>{source}</title>" in text and "30 rows of 4" in text
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "report.html"
    assert "not measured: negative log-likelihood: nll is not given" in out


def test_a_file_in_another_folder_finds_its_neighbours(folder, monkeypatch):
    (folder / "sub").mkdir()
    (folder / "sub" / "given_more.py").write_text("from given_next import make", encoding="utf-8")
    (folder / "sub" / "given_next.py").write_text(
        "import given_models\nmake = given_models.pair\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(folder))
    assert run(str(folder / "sub" / "given_more.py") + ":make") == 0
    for name in ("given_more", "given_next"):
        sys.modules.pop(name, None)


def test_a_mapping(folder):
    assert run("given_models.py:mapping", "-o", "deep/er/page.html") == 0
    text = (folder / "deep" / "er" / "page.html").read_text(encoding="utf-8")
    assert "<title>Mine</title>" in text and "25 rows of 4" in text
    assert "<th scope='col'>shape</th>" in text and '<img class="strip"' in text
    x, observed = seen()[0]
    assert x.dtype == observed["y"].dtype and len(observed["y"]) == len(x) == 25
    assert observed["mode"] == "fast"


def test_options_stand_above_what_is_returned(folder):
    assert run(
        "given_models.py:mapping", "--rows", "20", "--title", "Other", "--image-shape", "4", "1",
        "--output", "page.html", "--seed", "3", "--fitted", "20",
    ) == 0  # fmt: skip
    text = (folder / "page.html").read_text(encoding="utf-8")
    assert "<title>Other</title>" in text and "20 rows of 4" in text and "seed: 3" in text
    assert "iframe" not in text and 'id="information"' not in text


def test_data_from_a_file(folder, data):
    path = data(
        x=data.rng.random((40, 4)), factors=np.arange(40) % 2, factor_names=np.array(["side"]),
        y=np.arange(40, dtype=np.uint8), flags=np.ones((40, 2), bool),
    )  # fmt: skip
    assert run("given_models.py:alone", "--data", path) == 0
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "40 rows of 4" in text and "<th scope='col'>side</th>" in text
    x, observed = seen()[0]
    assert str(x.dtype) == "torch.float32"
    # Classes are numbers, not brightness.
    assert sorted(observed["y"].tolist()) == list(range(40))
    assert observed["flags"].sum() == 80.0


@pytest.mark.parametrize("name", ["x", "images"])
def test_bytes_are_scaled(folder, data, name):
    pixels = data.rng.integers(256, size=(40, 4), dtype=np.uint8)
    assert run("given_models.py:alone", "--data", data(**{name: pixels})) == 0
    x = np.concatenate([part.numpy() for part, _ in seen()])
    found = np.unique(np.round(255.0 * x).astype(int), axis=0)
    assert x.max() <= 1.0 and np.array_equal(found, np.unique(pixels.astype(int), axis=0))


def test_what_is_returned_stands_above_the_file(folder, data):
    path = data(x=np.zeros((7, 2)))
    assert run("given_models.py:pair", "--data", path) == 0
    assert "30 rows of 4" in (folder / "report.html").read_text(encoding="utf-8")


def test_options_of_the_report(folder, monkeypatch):
    asked = []

    def record(model, x, **options):
        asked.append(options)
        return ReportPage("page", {}, (Notice("bad", "Broken", "why"),), ())

    monkeypatch.setattr(_command, "report", record)
    assert main(["given_models.py:pair"]) == main(["given_models.py:pair", "--quiet"]) == 0
    assert run("given_models.py:pair", "--rows", "9", "--fitted", "8", "--seed", "7") == 0
    title = {"title": "given_models.py:pair"}
    quick = {"bracket": False, "audit": False, "rows": 9, "fitted": 8, "seed": 7}
    assert asked == [
        {"progress": True, **title}, {"progress": False, **title},
        {"progress": False, **title, **quick},
    ]  # fmt: skip


def test_notices_are_printed(folder, monkeypatch, capsys):
    page = ReportPage("page", {}, (Notice("bad", "Broken", "why"),), (("audit", "no rows"),))
    monkeypatch.setattr(_command, "report", lambda model, x, **options: page)
    assert run("given_models.py:vae") == 0
    expected = "bad: Broken\nnot measured: audit: no rows\nreport.html\n"
    assert capsys.readouterr().out == expected


def test_a_vae(folder):
    assert run("given_models.py:vae") == 0
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "bernoulli likelihood" in text and 'id="information"' not in text


@pytest.mark.parametrize("source, message", [
    ("given_models.py", "SOURCE: expected FILE.py:FUNCTION or module:FUNCTION, got"),
    (":pair", "SOURCE: expected FILE.py:FUNCTION or module:FUNCTION, got ':pair'"),
    ("given_models:", "SOURCE: expected FILE.py:FUNCTION or module:FUNCTION, got"),
    ("nowhere.py:pair", "SOURCE: expected a Python file, got 'nowhere.py', which is none"),
    ("no_such_module:pair", "No module named 'no_such_module'"),
    ("given_models.py:nothing", "SOURCE: expected a function 'nothing' in given_models.py"),
    ("given_models.py:number", "SOURCE: expected a function 'number' in given_models.py, got 3"),
    ("given_models.py:three", "SOURCE: expected (model, x), got a tuple of 3"),
    ("given_models.py:without", "SOURCE: expected a mapping with \"model\", got ['x']"),
    ("given_models.py:alone", "x: expected data from SOURCE or --data, got none"),
    ("given_models.py:no_data", "x: expected data from SOURCE or --data, got none"),
    ("given_models.py:nothing_returned",
     "SOURCE: expected 'nothing_returned' to return a vaereg.VAE, or a model with encode(x), got "
     "None"),
    ("given_models.py:swapped", "or a model with encode(x), got Tensor"),
    ("given_models.py:absent_key", "KeyError: 'weights' (given_models.py, line "),
    ("given_models.py:wants", "wants() missing 1 required positional argument: 'argument'"),
    ("given_models.py:broken", "two lines"),
])  # fmt: skip
def test_mistakes_about_the_source(folder, source, message, capsys):
    assert run(source) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("vaereg-report: ") and message in captured.err
    assert captured.err.count("\n") == 1 and captured.out == ""
    assert not (folder / "report.html").exists()


def test_pictures_with_their_channels_last(folder, capsys):
    hint = "; x is (30, 8, 8, 3): models of pictures mostly take channels first, (N, C, H, W)"
    for source, whose in (
        ("channels_last", "in encode)"), ("layers_only", "(in a layer of the model)"),
    ):  # fmt: skip
        assert run(f"given_models.py:{source}") == 2
        text = capsys.readouterr().err
        assert text.startswith("vaereg-report: Given groups=1") and text.count("\n") == 1
        assert whose + hint in text
        if source == "channels_last":
            line = 1 + MODEL.splitlines().index(
                '        return {"z": vaereg.gaussian(self.net(x).flatten(1), '
                "std=torch.ones(len(x), 64))}"
            )
            assert f"(given_models.py, line {line}, in encode)" in text


@pytest.mark.parametrize("name", ["rows", "seed", "title", "image_shape", "model", "nll"])
def test_arrays_that_have_the_name_of_an_option(folder, data, name, capsys):
    path = data(**{"x": np.zeros((9, 2)), name: np.array(3)})
    assert run("given_models.py:alone", "--data", path) == 2
    text = capsys.readouterr().err
    assert f"observed variables, got {name}, which is an option of the report" in text
    assert not (folder / "report.html").exists()


def test_where_no_page_can_be_written_is_said_before_the_work(folder, capsys):
    (folder / "taken").mkdir()
    (folder / "file").write_text("", encoding="utf-8")
    for path, why in (
        ("taken", "--output: expected a file, got the folder taken"),
        ("file/page.html", "--output: expected a file that can be written, got file/page.html ("),
        ("file/a/b.html", "Not a directory"), ("/proc/page.html", "got /proc/page.html (/proc: "),
    ):  # fmt: skip
        assert run("given_models.py:pair", "-o", path) == 2
        text = capsys.readouterr().err
        assert why in text and text.count("\n") == 1
    assert "given_models" not in sys.modules  # nothing was loaded, let alone fitted
    before = sorted(folder.iterdir())
    assert run("given_models.py:pair", "--rows", "1", "-o", "new/page.html") == 2
    assert [p for p in sorted(folder.iterdir()) if p.name != "__pycache__"] == before


def test_mistakes_about_data(folder, data, capsys):
    def said(path):
        assert run("given_models.py:alone", "--data", str(path)) == 2
        text = capsys.readouterr().err
        assert text.startswith("vaereg-report: ") and text.count("\n") == 1
        return text

    for path, why in (("absent.npz", "No such file or directory"), (".", "Is a directory")):
        expected = f"--data: expected an npz file of arrays of numbers or texts, got {path} ({why}"
        assert expected in said(path)
    (folder / "text.npz").write_text("no archive", encoding="utf-8")
    (folder / "empty.npz").write_bytes(b"")
    (folder / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    np.save(folder / "array.npy", np.zeros((3, 3)))
    np.savez(folder / "objects.npz", x=np.array([None, "a"], dtype=object))
    for name in ("text.npz", "empty.npz", "cut.npz", "array.npy", "objects.npz"):
        assert f"--data: expected an npz file of arrays of numbers or texts, got {name}" in said(
            name
        )
    assert "x: expected data from SOURCE or --data, got none" in said(data(y=np.zeros(3)))
    assert "x: expected a tensor (N, *event)" in said(data(x=np.zeros(3)))
    assert "factors: expected integers" in said(data(x=np.ones((9, 2)), factors=np.arange(9) / 2))
    assert "y: expected as many rows as x, 9, got 3" in said(
        data(x=np.zeros((9, 2)), y=np.zeros(3))
    )
    assert "expected finite values" in said(data(x=np.full((9, 2), np.nan)))


def test_mistakes_about_options(folder, capsys):
    assert run("given_models.py:pair", "--rows", "1") == 2
    assert capsys.readouterr().err == "vaereg-report: rows: expected at least 2, got 1\n"
    assert run("given_models.py:pair", "--image-shape", "28") == 2
    assert "image_shape: expected (H, W)" in capsys.readouterr().err
    for arguments in ([], ["a:b", "--rows", "many"], ["a:b", "--unknown"]):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)


def test_help(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    for word in (
        "SOURCE",
        "--data",
        "--output",
        "--quick",
        "--quiet",
        "factor_names",
        "def trained",
    ):
        assert word in text


def test_as_a_program(folder):
    command = [sys.executable, "-m", "vaereg.metrics.reporting", "given_models.py:pair"]
    done = subprocess.run(
        [*command, "--quick", "-o", "page.html"], capture_output=True, text=True,
        timeout=120, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "page.html", done.stderr
    lines = done.stderr.splitlines()
    assert "report: codes" in lines and not [line for line in lines if ": :" in line]
    assert (folder / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
