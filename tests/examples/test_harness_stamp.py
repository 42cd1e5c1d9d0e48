"""The stamp of results tells code that is in no commit."""


def test_the_stamp_tells_code_that_is_in_no_commit(tmp_path, monkeypatch):
    import subprocess

    from harness import command

    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "examples" / "harness").mkdir(parents=True)
    monkeypatch.setattr(command, "__file__", str(tmp_path / "examples" / "harness" / "command.py"))
    git("init")
    (tmp_path / "model.py").write_text("a = 1\n")
    git("add", "model.py")
    git("commit", "-m", "first")
    clean = command.commit()
    assert len(clean) == 40
    (tmp_path / "results.json").write_text("{}")  # no code
    assert command.commit() == clean
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "other.py").write_text("b = 2\n")  # code that git does not know
    assert command.commit() == clean + "-changed"
    (tmp_path / "new" / "other.py").unlink()
    (tmp_path / "model.py").write_text("a = 2\n")
    assert command.commit() == clean + "-changed"
