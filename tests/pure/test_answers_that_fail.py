"""Answers whose connection fails before they begin."""

from typing import Any

import pytest

from nacre.base.context import Context
from nacre.base.errors import Unauthenticated
from nacre.base.serving.gate import PUBLIC
from nacre.base.web import App, Reply, Request, Route, Service


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_body_is_closed_though_its_answer_does_not_begin(method: str) -> None:
    """It may have a file open, and a piece of it in memory."""
    class Open:
        closed = 0

        def __aiter__(self) -> "Open":
            return self

        async def aclose(self) -> None:
            self.closed += 1

    body = Open()

    async def some(_: Request) -> Reply:
        return Reply(body, content_type="application/octet-stream")

    async def nobody(_: str) -> Context:
        raise Unauthenticated

    async def gone(_: dict[str, Any]) -> None:
        raise ConnectionResetError

    async def nothing() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    app = App([Service("s", "/s", [Route("GET", "/some", some, PUBLIC)],
                       lambda error, status, _: Reply(None, status))], nobody, lambda *_: True)
    scope = {"type": "http", "method": method, "path": "/s/some", "query_string": b"", "headers": []}
    with pytest.raises(ConnectionResetError):
        await app(scope, nothing, gone)
    assert body.closed == 1
