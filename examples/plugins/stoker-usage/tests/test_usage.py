from __future__ import annotations

import httpx2
import pytest

from stoker.errors import StokerError
from stoker.model import RequestRecord
from stoker.testing.records import request_record
from stoker_usage import Usage, show


def record(model: str, prompt_tokens: int | None, completion_tokens: int | None) -> RequestRecord:
    return request_record(model=model, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)


def test_the_plugin_provides_an_observer_a_page_and_a_command() -> None:
    (pages,) = Usage().stoker_register_routes()
    (command,) = Usage().stoker_register_commands()
    assert pages.name == "usage"
    assert command.name == ("usage",)


async def test_the_page_adds_up_what_each_model_read_and_wrote() -> None:
    usage = Usage()
    for each in (record("qwen", 10, 5), record("qwen", 1, None), record("minilm", 7, None), record("", None, None)):
        usage.stoker_request_finished(each)
    assert await usage.page() == {"qwen": 16, "minilm": 7}


def test_a_gateway_that_runs_without_the_plugin_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was an error of the HTTP library, with a link to what 404 means."""
    monkeypatch.setattr(httpx2, "get", lambda _url: httpx2.Response(404))
    with pytest.raises(StokerError, match=r"/usage answers 404; does the gateway run with this plugin\?$"):
        show()
