"""Which gateway a client means, and what it sends there to prove itself."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from stoker.client.errors import BadRequest
from stoker.client.finding import Address, find_gateway
from stoker.home import Home
from stoker.supervise import proctable


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "admin-token").write_text("the-token\n")
    return Home(tmp_path)


def runs(home: Home, url: str, pid: int | None = None, **more: object) -> None:
    """A gateway of this home runs, or did."""
    entry = proctable.read_entry(os.getpid())
    assert entry is not None
    about = {"pid": pid or os.getpid(), "process_start": entry.started, "url": url, **more}
    home.gateway.write_text(json.dumps(about))


def find(home: Home, url: str | None = None, key: str | None = None, **environ: str) -> Address:
    return find_gateway(url, key, {"STOKER_HOME": str(home.path), **environ})


def test_the_address_that_is_given_comes_first(home: Home) -> None:
    runs(home, "http://127.0.0.1:7000")
    assert find(home, "http://a:1/v1/", STOKER_URL="http://b:2").url == "http://a:1"
    assert find(home, STOKER_URL="http://b:2/v1").url == "http://b:2"
    assert find(home).url == "http://127.0.0.1:7000"
    home.gateway.unlink()
    assert find(home).url == "http://127.0.0.1:8000"


def test_a_gateway_that_is_dead_is_none(home: Home) -> None:
    runs(home, "http://127.0.0.1:7000", process_start=1)
    assert find(home).url == "http://127.0.0.1:8000"
    runs(home, "http://127.0.0.1:7000", pid=2**22 + 1)
    assert find(home).url == "http://127.0.0.1:8000"
    for text in ("", "[]", '{"pid": 1}', '{"pid": 0, "process_start": null, "url": "http://x"}'):
        home.gateway.write_text(text)
        assert find(home).url == "http://127.0.0.1:8000"


def test_the_admin_token_goes_to_this_machine_only_and_to_whom_somebody_named(home: Home) -> None:
    for url in ("http://127.0.0.1:9", "http://localhost:9/v1", "http://[::1]:9"):
        assert (find(home, url).key, find(home, url).admin) == ("the-token", "the-token")
    for url in ("http://192.0.2.1:9", "https://example.org", "http://127.0.0.1.example.org"):
        assert (find(home, url).key, find(home, url).admin) == (None, None)
    assert find(home).admin is None  # whoever may listen at the default address


def test_a_gateway_of_this_home_gets_the_token_wherever_it_listens(home: Home) -> None:
    runs(home, "https://192.0.2.1:9", certfile="/cert.pem")
    for address in (find(home), find(home, "https://192.0.2.1:9/v1")):
        assert (address.admin, address.local, address.certfile) == ("the-token", True, "/cert.pem")
    assert find(home, "https://192.0.2.2:9").certfile is None


def test_a_key_is_for_models_and_manages_where_there_is_no_token(home: Home) -> None:
    runs(home, "http://127.0.0.1:7000")
    ours = find(home, "http://localhost:7000", "key")
    assert (ours.key, ours.admin) == ("key", "the-token")
    theirs = find(home, "http://127.0.0.1:7001", STOKER_API_KEY="key")
    assert (theirs.key, theirs.admin) == ("key", "key")
    assert find(home, "http://127.0.0.1:7001", "given", STOKER_API_KEY="key").key == "given"


def test_secrets_are_not_shown(home: Home) -> None:
    assert "the-token" not in repr(find(home, "http://localhost:1"))


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://x:0", "http://x:99999", "//x"])
def test_what_is_no_address(home: Home, url: str) -> None:
    with pytest.raises(BadRequest, match="not a URL"):
        find(home, url)
