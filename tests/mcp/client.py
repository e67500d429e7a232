"""Drives the tools of codexd with the Python SDK of the Model Context Protocol.

    client.py stdio COMMAND ARGUMENT…     client.py http URL

Prints "ok" at the end. The daemon uses an offline model that follows markers in the prompt.
"""

import asyncio
import contextlib
import sys

import mcp.types as types
from mcp import ClientSession, StdioServerParameters
from mcp.client import streamable_http
from mcp.client.stdio import stdio_client


def report(result):
    """The structured content of a result."""
    return getattr(result, "structured_content", None) or result.structuredContent


async def drive(read, write):
    forms = []

    async def fill_in(_context, form):
        forms.append(form.message)
        return types.ElicitResult(action="accept", content={"decision": "accept"})

    shown = []

    async def show(progress, _total, message):
        shown.append((progress, message))

    async with ClientSession(read, write, elicitation_callback=fill_in) as session:
        await session.initialize()
        names = [tool.name for tool in (await session.list_tools()).tools]
        assert names[:2] == ["codex", "codex-reply"], names
        arguments = {"prompt": "mock:shell=[true] mock:text=[approved]", "approval-policy": "untrusted"}
        first = await session.call_tool("codex", arguments, progress_callback=show)
        assert report(first)["content"] == "approved", first
        assert len(forms) == 1 and "true" in forms[0], forms
        assert any("approved" in message for _, message in shown), shown
        thread = report(first)["threadId"]
        started = await session.call_tool("codex-start", {"prompt": "mock:deltas=30 mock:delay=100", "threadId": thread})
        assert report(started)["status"] == "running", started
        # A client that ends calls early: the turn goes on.
        while True:
            waited = await session.call_tool("codex-wait", {"threadId": thread, "timeoutSeconds": 1})
            if report(waited)["status"] != "running":
                break
        assert report(waited)["status"] == "completed", waited
        failed = await session.call_tool("codex-reply", {"prompt": "mock:fail=400", "threadId": thread})
        assert report(failed)["status"] == "failed", failed


async def main():
    async with contextlib.AsyncExitStack() as stack:
        if sys.argv[1] == "stdio":
            server = StdioServerParameters(command=sys.argv[2], args=sys.argv[3:])
            streams = await stack.enter_async_context(stdio_client(server))
        else:
            connect = getattr(streamable_http, "streamable_http_client", None) or streamable_http.streamablehttp_client
            streams = await stack.enter_async_context(connect(sys.argv[2]))
        await drive(streams[0], streams[1])
    print("ok")


asyncio.run(main())
