"""Keys in the state file: kept as digests, revoked for good, and there for whoever looks without opening it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from stoker.core.keys import KeyOrder, Scope, digest_of, key_id_in
from stoker.errors import NotFoundError
from stoker.store.database import Database, StoreError, open_database
from stoker.store.keys import creation, listing, peek, revocation
from stoker.store.schema import MIGRATIONS

ALL = KeyOrder(
    name="batch",
    scopes=frozenset({Scope.INFERENCE, Scope.ADMIN}),
    models=("m", "org/n"),
    requests_per_minute=60,
    concurrent_requests=4,
    expires_in_seconds=10.0,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite3"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    with closing(open_database(path, MIGRATIONS)) as opened:
        yield opened


def test_a_key_comes_back_as_it_was_made(database: Database) -> None:
    first, text = database.do(creation(KeyOrder(name="alice"), 100.0))
    second, other = database.do(creation(ALL, 101.0))
    assert database.do(listing) == (first, second)
    assert key_id_in(text) == first.key_id
    assert text != other
    assert first.digest == digest_of(text)
    assert second.expires_at == 111.0


def test_its_text_is_nowhere_in_the_files(path: Path, database: Database) -> None:
    _, text = database.do(creation(ALL, 100.0))
    secret = text.rpartition("-")[2].encode() or text.encode()
    for file in path.parent.iterdir():
        assert secret[-20:] not in file.read_bytes()


def test_a_revoked_key_stays_in_the_listing_with_its_time(database: Database) -> None:
    key, _ = database.do(creation(ALL, 100.0))
    assert database.do(revocation(key.key_id, 200.0)).revoked_at == 200.0
    assert database.do(revocation(key.key_id, 300.0)).revoked_at == 200.0
    [listed] = database.do(listing)
    assert not listed.is_active(105.0)


def test_a_key_that_is_not_there_can_not_be_revoked(database: Database) -> None:
    with pytest.raises(NotFoundError, match="no key 'x'"):
        database.do(revocation("x", 200.0))


def test_whoever_only_looks_leaves_the_file_alone(path: Path, database: Database) -> None:
    key, _ = database.do(creation(ALL, 100.0))
    assert peek(path) == (key,)
    database.close()
    before = path.read_bytes()
    assert peek(path) == (key,)
    assert path.read_bytes() == before


def test_where_there_is_no_file_there_are_no_keys_and_still_no_file(path: Path) -> None:
    assert peek(path) == ()
    assert not path.exists()
    path.touch()
    assert peek(path) == ()


def test_a_file_that_can_not_be_read_is_said_to_be_so(path: Path) -> None:
    path.write_bytes(os.urandom(4096))
    with pytest.raises(StoreError):
        peek(path)
