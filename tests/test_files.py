"""Files and folders that are there whole or not at all, whatever goes wrong on the way."""

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import shoal.files
from shoal.files import (
    check_free,
    check_replaceable,
    claim,
    whole_file,
    whole_folder,
    write_bytes,
)
from shoal.vocabulary import RunError


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def full_disk(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with whole_file(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == tmp_path  # a rename must not cross file systems
        assert temporary.name.startswith(".")
    assert path.read_text() == "whole"
    assert names(tmp_path) == ["a.txt"]


def test_write_bytes_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    assert write_bytes(str(path), b"\x00\x01") == path
    assert path.read_bytes() == b"\x00\x01"
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a.bin"]


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        path = write_bytes(tmp_path / "a", b"x")
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError("no"), SystemExit(3)])
@pytest.mark.parametrize("existed", [False, True])
def test_a_failure_in_the_block_leaves_what_was(
    tmp_path: Path, error: BaseException, existed: bool
) -> None:
    path = tmp_path / "a"
    if existed:
        path.write_text("old")
    kind = error if isinstance(error, type) else type(error)
    with pytest.raises(kind), whole_file(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert names(tmp_path) == (["a"] if existed else [])
    assert not existed or path.read_text() == "old"


@pytest.mark.parametrize("where", ["write_bytes", "fsync", "replace"])
def test_a_full_disk_is_one_line_and_leaves_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    monkeypatch.setattr(Path if where == "write_bytes" else os, where, full_disk)
    with pytest.raises(RunError, match=r"a: can't be written \(No space left") as caught:
        write_bytes(path, b"new")
    monkeypatch.undo()
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["a"]
    assert path.read_text() == "old"


def test_the_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def noted(*arguments: Any, name: str = name, real: Any = real) -> Any:
            calls.append(name)
            return real(*arguments)

        monkeypatch.setattr(os, name, noted)
    write_bytes(tmp_path / "a", b"x")
    assert calls == ["fsync", "replace", "fsync"]  # the bytes, the name, the folder that has it


def test_a_block_that_wrote_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="can't be written"), whole_file(tmp_path / "a"):
        pass
    assert names(tmp_path) == []


def test_a_folder_under_the_name_of_a_file_stays(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(RunError, match="can't be written"):
        write_bytes(tmp_path / "a", b"x")
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == ["b"]


# ------------------------------------------------------------------ folders


def make_old(path: Path, kind: str) -> None:
    if kind == "folder":
        path.mkdir()
        (path / "old").write_text("old")
    elif kind == "file":
        path.write_text("old")
    elif kind == "link":
        target = path.with_name("target")
        target.mkdir()
        (target / "old").write_text("old")
        path.symlink_to(target)


def is_old(path: Path, kind: str) -> bool:
    if kind == "nothing":
        return not path.exists()
    return (path if kind == "file" else path / "old").read_text() == "old"


def visible(folder: Path) -> set[str]:
    return set(names(folder)) - {"target"}


def test_a_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "a"
    with whole_folder(path) as partial:
        (partial / "x").write_text("1")
        assert not path.exists()
    assert names(path) == ["x"]
    assert names(path.parent) == ["a"]


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_overwrite_takes_the_place_of_what_was(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    make_old(path, kind)
    with whole_folder(path, overwrite=True) as partial:
        (partial / "new").write_text("1")
        assert is_old(path, kind)
    assert names(path) == ["new"]
    assert visible(tmp_path) == {"a"}
    if kind == "link":  # what it pointed to isn't ours
        assert (tmp_path / "target" / "old").read_text() == "old"


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_without_overwrite_nothing_starts(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    make_old(path, kind)
    with pytest.raises(RunError, match="exists already"), whole_folder(path):
        pytest.fail("the block ran")
    assert is_old(path, kind)
    assert visible(tmp_path) == {"a"}


@pytest.mark.parametrize("kind", ["nothing", "folder", "file", "link"])
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), RuntimeError("no"), OSError("no")], ids=type
)
def test_a_failure_in_the_block_leaves_the_old_folder(
    tmp_path: Path, kind: str, error: BaseException
) -> None:
    path = tmp_path / "a"
    make_old(path, kind)
    expected = RunError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), whole_folder(path, overwrite=True) as partial:  # noqa: PT012
        (partial / "deep").mkdir()
        (partial / "deep" / "x").write_text("half")
        raise error
    assert is_old(path, kind)
    assert visible(tmp_path) == (set() if kind == "nothing" else {"a"})


class Renames:
    """Counts what gives a name, and fails before or after a given one."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, number: int, when: str, error: BaseException
    ) -> None:
        self.calls, self.number, self.when, self.error = 0, number, when, error
        for module, name in ((os, "rename"), (os, "link"), (shoal.files, "_rename")):
            monkeypatch.setattr(module, name, self.failing(getattr(module, name)))

    def failing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def rename(*arguments: Any) -> Any:
            self.calls += 1
            here = self.calls == self.number
            if here and self.when == "before":
                raise self.error
            found = real(*arguments)
            if here:
                raise self.error
            return found

        return rename


PLAIN = [False, True]  # whether the system lacks renames that take no name or change places


def without_flags(monkeypatch: pytest.MonkeyPatch, plain: bool) -> None:
    if plain:
        monkeypatch.setattr("shoal.files._renameat2", lambda: None)


@pytest.mark.parametrize("plain", PLAIN)
@pytest.mark.parametrize("kind", ["nothing", "folder", "file", "link"])
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "full")], ids=type)
def test_an_interrupt_at_any_rename_leaves_one_whole_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plain: bool,
    kind: str,
    number: int,
    when: str,
    error: BaseException,
) -> None:
    path = tmp_path / "a"
    make_old(path, kind)
    without_flags(monkeypatch, plain)
    Renames(monkeypatch, number, when, error)
    ended = False
    try:
        with whole_folder(path, overwrite=True) as partial:
            (partial / "new").write_text("1")
        ended = True
    except (KeyboardInterrupt, RunError):
        pass
    monkeypatch.undo()
    new = path.is_dir() and names(path) == ["new"]
    assert new or is_old(path, kind)
    assert not ended or new
    assert visible(tmp_path) <= {"a"}  # nothing hidden stays beside it


def test_if_even_the_way_back_fails_the_old_folder_comes_back_with_the_next_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    make_old(path, "folder")
    real = os.rename

    def rename(source: Any, target: Any) -> None:
        if Path(target) == path:
            full_disk()
        real(source, target)

    without_flags(monkeypatch, True)
    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(RunError, match="No space left"), whole_folder(path, overwrite=True):
        pass
    monkeypatch.undo()
    (kept,) = names(tmp_path)
    assert kept.startswith(".a.")
    assert (tmp_path / kept / "old").read_text() == "old"
    with pytest.raises(RunError, match="exists already"):
        claim(path)
    assert names(tmp_path) == ["a"]
    assert is_old(path, "folder")


# ------------------------------------------------------------------ two writers


@pytest.mark.parametrize("plain", PLAIN)
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_came_in_the_meantime_is_never_replaced_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, plain: bool
) -> None:
    without_flags(monkeypatch, plain)
    path = tmp_path / "a"
    with pytest.raises(RunError, match="exists already"), whole_folder(path) as partial:  # noqa: PT012
        (partial / "new").write_text("1")
        make_old(path, kind)  # by a program that knows nothing of locks
    assert is_old(path, kind)
    assert names(tmp_path) == ["a"]
    other = tmp_path / "b"
    with (  # noqa: PT012
        pytest.raises(RunError, match="exists already"),
        whole_file(other, overwrite=False) as temporary,
    ):
        temporary.write_text("new")
        make_old(other, kind)
    assert is_old(other, kind)
    assert names(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_second_of_two_writers_hears_of_the_first_at_once(
    tmp_path: Path, overwrite: bool
) -> None:
    path = tmp_path / "a"
    here = f"a: process {os.getpid()} on .* is writing it; needed a new name"
    with whole_folder(path, overwrite=overwrite) as mine:
        (mine / "mine").write_text("1")
        with pytest.raises(RunError, match=here):
            claim(path, overwrite=overwrite)
        with pytest.raises(RunError, match=here), whole_folder(path, overwrite=overwrite):
            pytest.fail("the block ran")
    assert names(path) == ["mine"]
    assert names(tmp_path) == ["a"]


def test_a_claim_is_held_from_before_the_work_until_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with claim(path) as held:
        assert names(tmp_path) == [".a.shoal.lock"]
        with whole_folder(held) as partial:
            (partial / "x").write_text("1")
        assert names(path) == ["x"]
        with pytest.raises(RunError, match="exists already"):
            claim(path)
        with pytest.raises(RunError, match="is writing it"):
            claim(path, overwrite=True)
    assert names(tmp_path) == ["a"]
    with claim(path, overwrite=True):
        pass


def test_a_claim_that_nobody_ends_goes_with_its_object(tmp_path: Path) -> None:
    held = claim(tmp_path / "a")
    del held
    assert names(tmp_path) == []


def test_a_folder_that_got_something_else_in_the_meantime_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    make_old(path, "folder")
    with claim(path, overwrite=True, names=["old"]) as held:
        (path / "thesis.tex").write_text("mine")
        with pytest.raises(RunError, match=r"holds more .*thesis.tex"), whole_folder(held):
            pass
    assert names(path) == ["old", "thesis.tex"]
    assert names(tmp_path) == ["a"]


def test_a_forks_end_does_not_end_its_parents_claim(tmp_path: Path) -> None:
    with claim(tmp_path / "a") as held:
        child = os.fork()
        if child == 0:
            held.release()
            os._exit(0)
        os.waitpid(child, 0)
        assert names(tmp_path) == [".a.shoal.lock"]
        with pytest.raises(RunError, match="is writing it"):
            claim(tmp_path / "a")


def test_where_there_are_no_locks_names_are_still_not_taken_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shoal.files.fcntl", None)
    path = tmp_path / "a"
    with pytest.raises(RunError, match="exists already"), whole_folder(path) as mine:  # noqa: PT012
        (mine / "mine").write_text("1")
        with whole_folder(path) as other:
            (other / "other").write_text("1")
    assert names(path) == ["other"]
    assert names(tmp_path) == ["a"]


# ------------------------------------------------------------------ what killed ones leave


def killed_while_writing(path: Path, overwrite: bool = False) -> None:
    child = os.fork()
    if child == 0:
        with whole_folder(path, overwrite=overwrite) as partial:
            (partial / "half").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.parametrize("name", ["a", "b", "a" * 250], ids=len)
def test_what_a_killed_process_left_is_gone_with_the_next_result_beside_it(
    tmp_path: Path, name: str
) -> None:
    killed_while_writing(tmp_path / name)
    assert sum(each.endswith(".partial") for each in names(tmp_path)) == 1
    assert sum(each.endswith(".lock") for each in names(tmp_path)) == 1
    write_bytes(tmp_path / "a", b"x")
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["a", "a" * 250], ids=len)
def test_an_old_folder_that_was_put_aside_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path, real = tmp_path / name, os.rename
    make_old(path, "folder")

    def killed(source: Any, target: Any) -> None:
        if Path(target) == path:
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)

    child = os.fork()
    if child == 0:
        without_flags(monkeypatch, True)
        monkeypatch.setattr(os, "rename", killed)
        with whole_folder(path, overwrite=True):
            pass
    os.waitpid(child, 0)
    assert not path.exists()
    if len(name) < 200:  # of a longer one only its own writer knows the name
        write_bytes(tmp_path / "b", b"x")
        assert is_old(path, "folder")
    with claim(path, overwrite=True):
        assert is_old(path, "folder")
    assert set(names(tmp_path)) - {"b"} == {name}


def test_what_a_living_process_writes_stays(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "b") as partial:
        (partial / "x").write_text("1")
        before = names(tmp_path)
        write_bytes(tmp_path / "a", b"x")
        assert names(tmp_path) == sorted([*before, "a"])
    assert names(tmp_path) == ["a", "b"]


def test_what_another_computer_writes_stays_for_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("shoal.files._host", lambda: "zzzz")
        killed_while_writing(tmp_path / "b")
    left = names(tmp_path)
    write_bytes(tmp_path / "a", b"x")
    assert names(tmp_path) == sorted([*left, "a"])
    for each in left:
        os.utime(tmp_path / each, (0, 0))
    write_bytes(tmp_path / "a", b"x")
    assert names(tmp_path) == ["a"]


def test_files_of_others_that_look_alike_stay(tmp_path: Path) -> None:
    theirs = [".a.lock", ".a.partial", ".a.1234.partial", ".shoal.lock", "a.shoal.lock", ".a.old"]
    for each in theirs:
        (tmp_path / each).write_text("theirs")
    write_bytes(tmp_path / "a", b"x")
    assert names(tmp_path) == sorted([*theirs, "a"])


# ------------------------------------------------------------------ asked before work


def test_a_free_name_gets_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "x" / "y" / "run"
    assert check_free(str(path)) == path
    assert path.parent.is_dir()
    assert not path.exists()


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_a_taken_name_is_refused_unless_told(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    make_old(path, kind)
    with pytest.raises(RunError, match=r"a: exists already; needed a new name, or overwrite=True"):
        check_free(path)
    assert check_free(path, overwrite=True) == path


def test_a_dangling_link_is_a_taken_name(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunError, match="exists already"):
        check_free(tmp_path / "a")


@pytest.mark.parametrize("path", [".", "..", "/", "a/.."])
def test_a_path_without_a_name_of_its_own_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="no name for a result"):
        check_free(path, overwrite=True)


def test_a_file_in_the_place_of_a_parent_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    for path in (tmp_path / "a" / "run", tmp_path / "a" / "b" / "run"):
        with pytest.raises(RunError, match=r"run: can't be written") as caught:
            check_free(path)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_parent_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        for path in (tmp_path / "run", tmp_path / "deep" / "run"):
            with pytest.raises(RunError, match="written"):
                check_free(path)
    finally:
        tmp_path.chmod(0o700)


def test_a_parent_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for any user but root
    with pytest.raises(RunError, match="its folder can't be written to"):
        check_free(tmp_path / "run")


def test_a_read_only_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mkdir(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(RunError, match="Read-only file system"):
        check_free(tmp_path / "x" / "run")


def test_only_a_folder_of_known_files_is_replaceable(tmp_path):
    run = tmp_path / "run"
    check_replaceable(run, ["a"])  # nothing there
    run.mkdir()
    check_replaceable(run, ["a"])
    (run / "a").write_text("")
    check_replaceable(run, ["a"])
    (run / "thesis.tex").write_text("")
    with pytest.raises(RunError, match=r"holds more than a run \(thesis\.tex\)"):
        check_replaceable(run, ["a"])
    with pytest.raises(RunError, match="is a file"):
        check_replaceable(run / "a", ["a"])
