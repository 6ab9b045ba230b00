"""A gateway that speaks TLS, and the command line that trusts its certificate and no other."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import httpx2
import pytest
import trustme

from stoker.cli.finding import read_gateway
from stoker.pinning import tls_failure

from .conftest import Shell


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def write(folder: Path, certificate: trustme.LeafCert) -> None:
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    (folder / "key.pem").write_bytes(certificate.private_key_pem.bytes())


def test_the_command_line_talks_to_a_gateway_that_speaks_tls(shell: Shell, authority: trustme.CA) -> None:
    """Its certificate is for the name that others call it by."""
    write(shell.folder, authority.issue_cert("gpu-box.example"))
    shell.write(
        '[gateway]\nlisten = "127.0.0.1:0"\nallowed_hosts = ["gpu-box.example"]\n'
        'certfile = "cert.pem"\nkeyfile = "key.pem"\n'
    )
    started = shell.run("gateway", "start")
    assert started.code == 0, started.err
    running = read_gateway(shell.home)
    assert running is not None
    assert running.url.startswith("https://127.0.0.1:")
    assert shell.run("status", "--json").json["version"]
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with httpx2.Client(verify=trusting, trust_env=False) as client:
        named = {"sni_hostname": "gpu-box.example"}
        asked = client.get(f"{running.url}/health", headers={"Host": "gpu-box.example"}, extensions=named)
    assert asked.status_code == 200
    assert shell.run("key", "create", "--name", "x").code == 0
    [entry] = shell.run("audit", "--json").json
    assert (entry["who"], entry["address"]) == ("admin token", "127.0.0.1")


def test_certificates_on_the_command_line_stay_over_a_restart(shell: Shell, authority: trustme.CA) -> None:
    write(shell.folder, authority.issue_cert("localhost"))
    flags = ("--certfile", "cert.pem", "--keyfile", "key.pem")
    assert shell.run("gateway", "start", "--listen", "127.0.0.1:0", *flags).code == 0
    assert shell.run("gateway", "restart").code == 0
    running = read_gateway(shell.home)
    assert running is not None
    assert running.url.startswith("https://")
    assert shell.run("status").code == 0


def test_a_stranger_in_its_place_is_told_nothing(shell: Shell, authority: trustme.CA) -> None:
    write(shell.folder, authority.issue_cert("localhost"))
    flags = ("--certfile", "cert.pem", "--keyfile", "key.pem")
    assert shell.run("gateway", "start", "--listen", "127.0.0.1:0", *flags).code == 0
    about = json.loads(shell.home.gateway.read_text())
    other = shell.folder / "other"
    other.mkdir()
    write(other, authority.issue_cert("localhost"))
    shell.home.gateway.write_text(json.dumps({**about, "certfile": str(other / "cert.pem")}))
    refused = shell.run("status")
    shell.home.gateway.write_text(json.dumps(about))
    assert refused.code != 0
    assert "certificate" in refused.err.lower()


def test_what_is_wrong_with_a_certificate_is_said(shell: Shell) -> None:
    shell.write('[gateway]\nkeyfile = "key.pem"\n')
    assert "gateway.keyfile: is the key of a certificate" in shell.run("config", "check").err
    shell.write('[gateway]\nlisten = "127.0.0.1:0"\ncertfile = "nowhere.pem"\n')
    refused = shell.run("up")
    assert refused.code == 1
    assert f"{shell.folder}/nowhere.pem can't be used" in refused.err
    assert shell.run("up", "--keyfile", "key.pem").code == 2


def test_an_error_that_python_raises_itself_is_told_too() -> None:
    """It has no ``reason``, which only OpenSSL's have."""
    assert tls_failure(ssl.SSLError("no certificate")) is not None
