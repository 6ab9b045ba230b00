from __future__ import annotations

from stoker.model import RequestRecord
from stoker_usage import Usage


def record(model: str, prompt_tokens: int | None, completion_tokens: int | None) -> RequestRecord:
    return RequestRecord(
        request_id="1",
        path="/v1/chat/completions",
        asked=model,
        model=model,
        engine_id=f"{model}-1",
        status=200,
        stream=False,
        began_at=0.0,
        duration_seconds=0.1,
        waited_seconds=0.0,
        first_byte_seconds=0.1,
        attempts=1,
        received_bytes=0,
        sent_bytes=0,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
    )


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
