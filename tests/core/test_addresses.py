"""Where engines may be: what is theirs by default, what has to be named, and what has to be named by itself."""

from __future__ import annotations

import pytest

from stoker.core.addresses import NEVER_ALLOWED, HostRules
from stoker.settings import PRIVATE_NETWORKS

USUAL = HostRules.of(PRIVATE_NETWORKS)
NEVER = [
    "0.0.0.0",
    "169.254.169.254",
    "169.254.1.1",
    "224.0.0.1",
    "255.255.255.255",
    "100.100.100.200",
    "168.63.129.16",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "ff02::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "::ffff:169.254.169.254",
    "::ffff:a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "64:ff9b::a9fe:a9fe",
]
OURS = ["127.0.0.1", "127.9.9.9", "::1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "fd12:3456::1", "::ffff:10.0.0.1"]
STRANGERS = ["8.8.8.8", "172.32.0.1", "2606:4700::1111", "100.64.0.1", "64:ff9b::808:808", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", OURS)
def test_this_machine_and_private_networks_are_where_engines_are(address: str) -> None:
    assert USUAL.complaint("gpu-7", [address]) is None
    assert not USUAL.bars(address)


@pytest.mark.parametrize("address", STRANGERS)
def test_the_rest_of_the_world_has_to_be_named(address: str) -> None:
    assert "register_hosts does not allow it" in str(USUAL.complaint("gpu-7", [address]))
    assert not USUAL.bars(address), "whoever writes it into stoker.toml may"
    named = HostRules.of(["8.8.8.8", "172.32.0.0/16", "2606::/16", "100.64.0.1", "64:ff9b::/96"])
    assert named.complaint("gpu-7", [address]) is None
    assert HostRules.of(["GPU-7."]).complaint("gpu-7", [address]) is None


@pytest.mark.parametrize("address", NEVER)
def test_what_is_never_an_engines_is_refused_whoever_names_its_host(address: str) -> None:
    for rules in (USUAL, HostRules.of(["gpu-7", "0.0.0.0/0", "::/0"]), HostRules.of([])):
        complaint = str(rules.complaint("gpu-7", [address]))
        assert complaint.startswith(f"no engine can be at gpu-7, which is {address}: ")
        assert f"add {address} itself to register_hosts" in complaint
        assert rules.bars(address)
    assert NEVER_ALLOWED(address)


def test_a_link_local_engine_has_to_be_named_by_its_own_address() -> None:
    rules = HostRules.of(["169.254.7.7", "fe80::/64", "[fd00:ec2::1]"])
    for address in ("169.254.7.7", "fe80::1", "fd00:ec2::1"):
        assert rules.complaint("gpu-7", [address]) is None
        assert not rules.bars(address)
    for address in ("169.254.169.254", "fd00:ec2::254"):
        assert rules.bars(address)


def test_one_wrong_address_among_several_is_enough() -> None:
    assert "10.0.0.1 is" not in str(USUAL.complaint("gpu-7", ["10.0.0.1", "169.254.169.254"]))
    assert USUAL.complaint("gpu-7", ["10.0.0.1", "169.254.169.254"]) is not None


def test_a_name_that_means_nothing_is_taken_only_if_it_is_trusted() -> None:
    assert "nowhere: that name has no address" in str(USUAL.complaint("nowhere", []))
    assert HostRules.of(["nowhere"]).complaint("nowhere", []) is None


def test_an_empty_list_lets_nothing_be_registered() -> None:
    assert HostRules.of([]).complaint("127.0.0.1", ["127.0.0.1"]) is not None
