"""Whether the door is open, by what can be known of the keys at the start."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest
import trio

from stoker.core.keys import KeyOrder
from stoker.doors import check_address, open_desk
from stoker.errors import StokerError
from stoker.home import Home
from stoker.settings import GatewaySettings
from stoker.store.database import Database, open_database
from stoker.store.keys import creation
from stoker.store.schema import MIGRATIONS
from stoker.web.token import AdminToken

TOKEN = AdminToken("the-token-of-the-tests")
LOCAL = GatewaySettings()
FAR = GatewaySettings(listen="0.0.0.0:8000")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def make_key(home: Home) -> None:
    with closing(open_database(home.state, MIGRATIONS)) as database:
        database.do(creation(KeyOrder(name="x"), 0.0))


async def is_closed(settings: GatewaySettings, home: Home, database: Database | None) -> bool:
    desk = await open_desk(settings, home, database, TOKEN, trio.current_time)
    return desk.ring.closed


async def test_without_keys_only_what_is_far_or_says_so_is_closed(home: Home) -> None:
    with closing(open_database(home.state, MIGRATIONS)) as database:
        assert not await is_closed(LOCAL, home, database)
        assert await is_closed(FAR, home, database)
        assert await is_closed(GatewaySettings(require_keys=True), home, database)


async def test_a_key_closes_it_also_where_the_file_can_only_be_read(home: Home) -> None:
    make_key(home)
    with closing(open_database(home.state, MIGRATIONS)) as database:
        assert await is_closed(LOCAL, home, database)
    assert await is_closed(LOCAL, home, None)


async def test_a_file_that_could_not_be_made_has_no_keys(home: Home) -> None:
    assert not await is_closed(LOCAL, home, None)
    home.state.touch()
    assert not await is_closed(LOCAL, home, None)


async def test_keys_that_can_not_be_read_close_it(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    home.state.write_bytes(os.urandom(4096))
    assert await is_closed(LOCAL, home, None)
    assert "only the admin token opens anything" in caplog.text


async def test_keys_in_plain_sight_are_a_warning(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    await is_closed(LOCAL, home, None)
    assert not caplog.text
    await is_closed(FAR, home, None)
    assert "speaks no TLS" in caplog.text


def test_a_far_address_needs_a_key_that_is_there(home: Home) -> None:
    check_address(LOCAL, home)
    for _ in range(2):
        with pytest.raises(StokerError, match="stoker key create"):
            check_address(FAR, home)
        home.state.write_bytes(os.urandom(4096))  # nor one that can't be read
    home.state.unlink()
    make_key(home)
    check_address(FAR, home)
