"""What the examples share: archives, the folder of results, lines in place of bars, errors."""

import argparse
import io
import sys
import zipfile

import numpy as np
import pytest

from harness import logs
from harness.archive import array_names, read_array
from harness.checkpoint import CheckpointError
from harness.command import errors_of, run_command
from harness.output import check_folder, check_results, keep_earlier, tell_if_nothing_to_resume

# ---- results of earlier runs


def test_earlier_results_take_the_first_number_that_is_free_for_both_files(tmp_path, capsys):
    path = tmp_path / "results.json"
    keep_earlier(path)
    assert capsys.readouterr().out == "" and not list(tmp_path.iterdir())
    path.write_text("a")
    keep_earlier(path)
    assert capsys.readouterr().out == "kept the results of an earlier run as results.1.json\n"
    (tmp_path / "results.2.npz").write_text("another's")
    path.write_text("b")
    path.with_suffix(".npz").write_text("c")
    keep_earlier(path)
    told = "kept the results of an earlier run as results.3.json and results.3.npz\n"
    assert capsys.readouterr().out == told
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        "results.1.json": "a", "results.2.npz": "another's",
        "results.3.json": "b", "results.3.npz": "c",
    }  # fmt: skip


def test_results_that_cannot_be_kept_are_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    path.write_text("a")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "rename", refuse)
    with pytest.raises(
        CheckpointError, match=r"cannot keep .*results\.1\.json: Permission denied"
    ):
        keep_earlier(path)
    assert path.read_text() == "a"


@pytest.mark.parametrize("name", ["checkpoint.pt", "checkpoint.pt.previous", "measured.json"])
def test_nothing_to_resume(name, tmp_path, capsys):
    runs = [tmp_path / "a", tmp_path / "b"]
    tell_if_nothing_to_resume(tmp_path, runs)
    told = f"nothing to resume in {tmp_path}: starting from the beginning\n"
    assert capsys.readouterr().out == told
    runs[1].mkdir()
    (runs[1] / name).touch()
    tell_if_nothing_to_resume(tmp_path, runs)
    assert capsys.readouterr().out == ""


# ---- archives


def test_arrays_of_an_archive(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(3), y=np.array([{}]))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("note", "no array")
    assert array_names(path) == ["x", "y", "note"]
    assert read_array(path, "x").tolist() == [0, 1, 2]
    for name in ("y", "note"):
        with pytest.raises(ValueError) as caught:
            read_array(path, name, option="--draw")
        assert str(caught.value) == (
            f"--draw: expected an .npz archive, got a.npz, where {name!r} holds Python objects or "
            "no array"
        )


def test_files_that_are_no_archive(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(1000))
    whole = path.read_bytes()
    npy = io.BytesIO()
    np.save(npy, np.arange(3))
    for content in (b"", b"text", npy.getvalue(), whole[:-200], b"before" + whole):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"^--data: expected an \.npz archive, got a\.npz: "):
            array_names(path)
    path.write_bytes(whole[:500] + bytes(100) + whole[600:])
    with pytest.raises(ValueError, match=r"^--data: expected an \.npz archive, got a\.npz: "):
        read_array(path, "x")
    with pytest.raises(ValueError, match=r"^--data: cannot read .*none\.npz: No such file"):
        array_names(tmp_path / "none.npz")


# ---- a line for each tenth


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_where_there_is_no_terminal(capsys):
    with logs.progress_bar("run", total=25, initial=5, show=True) as bar:
        for step in range(20):
            bar.update()
            bar.set_postfix(loss=f"{step}", refresh=False)
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert shown.out == "" and len(lines) == 8
    assert lines[0].startswith("run: 30 %, step 8 of 25, ") and lines[0].endswith(" s, loss 1")
    assert lines[-1].startswith("run: 100 %, step 25 of 25, ")


def test_a_bar_on_a_terminal_and_nothing_when_quiet(monkeypatch, capsys):
    with logs.progress_bar("run", total=3, initial=0, show=False) as bar:
        bar.update()
        bar.set_postfix(loss="1", refresh=False)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys, "stderr", Terminal())
    with logs.progress_bar("run", total=3, initial=0, show=True) as bar:
        bar.update(3)
    assert "3/3" in sys.stderr.getvalue()


def test_a_run_without_steps_left(capsys):
    with logs.progress_bar("run", total=4, initial=9, show=True):
        pass
    assert capsys.readouterr().err == ""


# ---- errors


def shown(error, capsys):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("--c-lr", "--seeds", "--objective"):
        parser.add_argument(name)

    def run(*_):
        raise error

    assert run_command("x.py", parser, run, [], smaller="--batch", kept="it") == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("c_lr: expected a number", "--c-lr: expected a number"),
        ("seed: expected a number", "--seeds: expected a number"),
        ("objective 'a:1': expected names", "--objective 'a:1': expected names"),
        ("objective names: expected others", "objective names: expected others"),
        ("other: expected a number", "other: expected a number"),
        ("--c-lr: expected a\nnumber", "--c-lr: expected a number"),
    ],
)
def test_errors_name_the_option(text, expected, capsys):
    assert shown(ValueError(text), capsys) == f"x.py: {expected}\n"
    assert shown(OSError("c_lr: x"), capsys) == "x.py: c_lr: x\n"


def test_an_option_in_front_of_errors_that_name_none():
    for text, expected in (("expected a", "--a: expected a"), ("--b: c", "--b: c")):
        with pytest.raises(ValueError) as caught, errors_of("--a"):
            raise ValueError(text)
        assert str(caught.value) == expected


def test_folders_and_files_that_cannot_be_used(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(ValueError, match=f"^--output: cannot write to {folder}: "):
            check_folder(folder)
    check_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    check_results([tmp_path / "file"])
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(ValueError, match=f"^--draw: expected a results file, got {path}: "):
            check_results([tmp_path / "file", path])
