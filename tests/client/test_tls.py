"""A gateway with a certificate of an authority that only its users know, seen from another machine's home."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trustme

from stoker import UnifiedInferenceClient
from stoker.client import GatewayUnreachable
from stoker.home import Home
from stoker.testing.engines import fake_engine_env
from tests.e2e.running import until
from tests.faults.fleet import engine

from .conftest import Create, close_while_another_thread_asks


@attrs.frozen
class Secured:
    """The gateway, and how to reach it."""

    url: str
    token: str
    ca: Path


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "cert.pem")
    gateway = '[gateway]\nlisten = "127.0.0.1:0"\ncertfile = "cert.pem"\nkeyfile = "cert.pem"\n'
    (folder / "stoker.toml").write_text(gateway + engine() + engine("--kind", "embedding", model="v", kind="embedding"))
    home = Home(folder / "home")

    def stoker(*words: str) -> str:
        env = {**os.environ, **fake_engine_env(), "STOKER_HOME": str(home.path), "NO_COLOR": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "stoker", *words], env=env, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    started = stoker("gateway", "start", "-c", str(folder / "stoker.toml"))
    try:
        until(lambda: stoker("engine", "list").count("READY") == 2, "both are READY")
        url = re.search(r"https://127\.0\.0\.1:\d+", home.gateway.read_text())
        assert url is not None, started
        yield Secured(url[0], home.admin_token.read_text().strip(), folder / "ca.pem")
    finally:
        stoker("gateway", "stop")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home that knows nothing of the gateway."""
    monkeypatch.setenv("STOKER_HOME", str(tmp_path))


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("form", [str, Path, lambda file: ssl.create_default_context(cafile=file)])
def test_who_knows_the_authority_is_served(secured: Secured, create: Create, form: Any, direct: bool) -> None:
    settings = {"api_key": secured.token, "verify": form(secured.ca), "direct": direct}
    for url in (secured.url, secured.url.replace("127.0.0.1", "localhost")):
        with create(url, **settings) as client:
            assert client.chat("one two", max_tokens=2) == "one two"
            assert list(client.chat("one two", max_tokens=2, stream=True)) == ["one", " two"]
            assert len(client.embed(["text"] * 100)) == 100
            assert len(client.engines()) == 2


def test_who_does_not_know_it_sends_nothing(secured: Secured, create: Create, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    for settings in ({}, {"verify": tmp_path / "other.pem"}):
        with (
            create(secured.url, api_key=secured.token, default_model="fake", **settings) as client,
            pytest.raises(GatewayUnreachable, match="it can't prove who it is"),
        ):
            client.chat("hi")


@pytest.mark.parametrize(
    ("verify", "wrong"),
    [(False, "make a context"), (b"ca.pem", "must be a file"), ("/no/such/ca.pem", "'/no/such/ca.pem' can't be used")],
    ids=str,
)
def test_what_nobody_can_be_verified_by(create: Create, verify: Any, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        create("https://127.0.0.1:9", verify=verify).__enter__()


def test_a_file_that_holds_no_certificate(create: Create, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing of the sort")
    with pytest.raises(ValueError, match=r"the certificates in .* can't be used"):
        create("https://127.0.0.1:9", verify=tmp_path / "ca.pem").__enter__()


def test_a_client_that_is_closed_ends_what_another_thread_waits_for(secured: Secured) -> None:
    client = UnifiedInferenceClient.create(
        secured.url, api_key=secured.token, verify=secured.ca, default_model="fake", timeout=60
    )
    close_while_another_thread_asks(client, {"base_url": client.engine("fake").base_url})
