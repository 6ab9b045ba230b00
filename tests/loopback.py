"""Requests to what runs on this machine, without TLS and by no proxy: as ``httpx2`` has them, for less.

``httpx2.get`` reads every certificate authority there is into a TLS context of its own, each time. That costs 20 ms,
and a test that polls would keep a CPU busy with it.
"""

from __future__ import annotations

import ssl
from functools import partial

import httpx2

NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody."""

get = partial(httpx2.get, verify=NOBODY, trust_env=False)
post = partial(httpx2.post, verify=NOBODY, trust_env=False)
delete = partial(httpx2.delete, verify=NOBODY, trust_env=False)
request = partial(httpx2.request, verify=NOBODY, trust_env=False)
stream = partial(httpx2.stream, verify=NOBODY, trust_env=False)
