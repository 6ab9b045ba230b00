"""The admin token and the file it stands in."""

import os
from pathlib import Path

import pytest

from stoker.errors import StokerError
from stoker.web.token import AdminToken, load_or_make_token

TOKEN = AdminToken("0123456789abcdef")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "stoker" / "admin-token"


def test_the_first_start_makes_a_token_that_only_its_owner_can_read(path: Path) -> None:
    token = load_or_make_token(path)
    assert len(token.secret) >= 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_strange_umask_does_not_matter(tmp_path: Path) -> None:
    before = os.umask(0o777)
    try:
        load_or_make_token(tmp_path / "admin-token")
    finally:
        os.umask(before)
    assert (tmp_path / "admin-token").stat().st_mode & 0o777 == 0o600


def test_later_starts_read_the_same_token(path: Path) -> None:
    assert load_or_make_token(path) == load_or_make_token(path)


def test_two_homes_have_two_tokens(tmp_path: Path) -> None:
    assert load_or_make_token(tmp_path / "a" / "t") != load_or_make_token(tmp_path / "b" / "t")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o777])
def test_a_token_that_others_can_read_is_refused_with_the_remedy(path: Path, mode: int) -> None:
    token = load_or_make_token(path)
    path.chmod(mode)
    with pytest.raises(StokerError, match=f"mode {mode:04o}.*chmod 600 {path}"):
        load_or_make_token(path)
    path.chmod(0o600)
    assert load_or_make_token(path) == token


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"short", b"two words, and long enough", b"\xff" * 40, b"a" * 20 + b"\0"]
)
def test_a_damaged_token_is_refused_and_left_as_it_is(path: Path, content: bytes) -> None:
    load_or_make_token(path)
    path.write_bytes(content)
    with pytest.raises(StokerError, match="delete the file"):
        load_or_make_token(path)
    assert path.read_bytes() == content


def test_a_link_or_a_pipe_is_no_token(tmp_path: Path) -> None:
    load_or_make_token(tmp_path / "token")
    (tmp_path / "link").symlink_to("token")
    with pytest.raises(StokerError, match="link"):
        load_or_make_token(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(StokerError, match="not an ordinary file"):
        load_or_make_token(tmp_path / "pipe")


def test_a_home_that_can_not_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StokerError, match=r"file/admin-token can't be used.*STOKER_HOME"):
        load_or_make_token(tmp_path / "file" / "admin-token")


def test_the_token_is_accepted() -> None:
    assert TOKEN.accepts("0123456789abcdef")


@pytest.mark.parametrize(
    "given",
    ["", "0123456789abcdeF", "0123456789abcdef0", "0123456789abcde", " 0123456789abcdef", "\xe9\xff\u20ac\udcff"],
)
def test_nothing_else_is(given: str) -> None:
    assert not TOKEN.accepts(given)


def test_the_token_does_not_show_itself() -> None:
    assert TOKEN.secret not in repr(TOKEN)
