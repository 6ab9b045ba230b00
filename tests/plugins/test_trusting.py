"""Plugins that nobody named are imported only from where nobody else can put anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.plugins import untrusted


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder that is ours alone, below which the plugins are."""
    (tmp_path / "home" / "stoker-plugins" / "pk").mkdir(parents=True)
    for folder in (tmp_path / "home", *(tmp_path / "home").rglob("*")):
        folder.chmod(0o755)
    return tmp_path / "home"


@pytest.fixture
def place(home: Path) -> Path:
    return home / "stoker-plugins"


def write(file: Path, mode: int = 0o644) -> Path:
    file.touch()
    file.chmod(mode)
    return file


def doubt(place: Path) -> str:
    return untrusted(place, place.stat().st_uid)


def test_what_is_ours_alone_is_trusted(place: Path) -> None:
    write(place / "mine.py")
    write(place / "pk" / "__init__.py")
    assert not doubt(place)


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_a_folder_that_others_can_write_to_is_not(place: Path, mode: int) -> None:
    place.chmod(mode)
    assert doubt(place) == f"others can write to {place}"


@pytest.mark.parametrize("name", ["mine.py", "pk/__init__.py", "pk/deep/er.py", "pk/__pycache__/x.pyc"])
def test_a_file_in_it_that_others_can_write_to_is_named_however_deep_it_lies(place: Path, name: str) -> None:
    """Only what lay in the folder itself was looked at; a package could be anybody's."""
    (place / name).parent.mkdir(exist_ok=True)
    file = write(place / name, 0o666)
    assert doubt(place) == f"others can write to {file}"


def test_a_folder_is_not_trusted_below_one_in_which_others_can_rename_it(home: Path, place: Path) -> None:
    """The folders above were not looked at, and whoever can write there can put another folder in its place."""
    home.chmod(0o777)
    assert doubt(place) == f"others can write to {home}"
    home.chmod(0o1777)  # as /tmp is
    assert not doubt(place)


def test_what_belongs_to_somebody_else_is_not_trusted(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    us = place.stat().st_uid
    if us == 0:
        assert not untrusted(place, 4711), "root's is everybody's"
    else:
        assert "belongs to another user" in untrusted(place, us + 1)


def test_what_is_hidden_does_not_matter(place: Path) -> None:
    """The lock of an editor, which is a link that leads to nothing, ended everything."""
    (place / ".#mine.py").symlink_to("somebody@somewhere.1234")
    write(place / ".hidden", 0o666)
    assert not doubt(place)


def test_a_link_is_as_good_as_what_it_leads_to_and_the_way_there(home: Path, place: Path) -> None:
    elsewhere = home / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    file = write(elsewhere / "mine.py")
    (place / "mine.py").symlink_to(file)
    assert not doubt(place)
    file.chmod(0o666)
    assert doubt(place) == f"others can write to {file}"
    file.chmod(0o644)
    elsewhere.chmod(0o777)
    assert doubt(place) == f"others can write to {elsewhere}"


def test_the_folder_itself_may_be_a_link(home: Path, place: Path) -> None:
    (home / "link").symlink_to(place)
    assert not doubt(home / "link")
    file = write(place / "pk" / "__init__.py", 0o666)
    assert doubt(home / "link") == f"others can write to {file}"


def test_a_link_to_nothing_is_trusted_unless_others_can_make_it_lead_somewhere(home: Path, place: Path) -> None:
    (home / "shared").mkdir()
    (place / "mine.py").symlink_to(home / "shared" / "gone.py")
    assert not doubt(place)
    (home / "shared").chmod(0o1777)
    assert doubt(place) == f"others can put something at {home / 'shared' / 'gone.py'}"


def test_links_in_a_circle_are_named(place: Path) -> None:
    (place / "mine.py").symlink_to(place / "mine.py")
    assert doubt(place).startswith(f"{place / 'mine.py'} can't be looked at")
    (place / "mine.py").unlink()
    (place / "pk" / "up").symlink_to(place)
    assert not doubt(place)
