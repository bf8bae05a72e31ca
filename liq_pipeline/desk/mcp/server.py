"""The table of tools on the protocol's official SDK.

Belongs here: what the SDK is told, and what becomes of a call. Does not: tools (tools.py), transports (ways.py).

Importing it takes the SDK, half a second and 35 MB: only who speaks the protocol imports it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import mcp_types as types
import msgspec
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server

from liq_pipeline.desk.api.answering import problem
from liq_pipeline.desk.mcp import tools
from liq_pipeline.desk.mcp.about import program
from liq_pipeline.desk.read.database import Reader
from liq_pipeline.errors import LiqError

INSTRUCTIONS: Final = (
    "Early warning of crypto liquidation cascades, read only. Every answer names its world: where is_real is false, it"
    " is an invented or played market and says nothing about the real one; say so. Repeat the warnings, and how old an"
    " answer is. null is unknown, never zero: unknown risk is not low risk. Units stand in the names of fields."
    " Measurements with known errors, not financial advice: how_good tells the errors."
)
_log = logging.getLogger(__name__)


def make(reader: Reader) -> Server[Any]:
    """A server that answers from the reader's database."""

    async def list_tools(
        context: ServerRequestContext[Any], asked: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[_described(tool) for tool in tools.TOOLS])

    async def call_tool(context: ServerRequestContext[Any], asked: types.CallToolRequestParams) -> types.CallToolResult:
        try:
            tool = tools.find(asked.name)
            if tool is None:
                names = ", ".join(one.name for one in tools.TOOLS)
                return _refused(f"There is no tool of that name; there are {names}.")
            arguments = tools.read_arguments(tool, asked.arguments or {})
            loop = asyncio.get_running_loop()
            told = await loop.run_in_executor(reader.threads, reader.run, _answer, tool, arguments)
        except Exception as error:
            if not isinstance(error, LiqError):
                _log.exception("a tool failed: %s", asked.name)
            return _refused(problem(error).message)
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=told.decode())], structured_content=msgspec.json.decode(told)
        )

    name, _, number = program().partition(" ")
    return Server(
        name,
        version=number,
        title="liq_pipeline: early warning of liquidation cascades",
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _answer(conn: Any, tool: tools.Tool, arguments: Any) -> bytes:
    return tools.answer(tool, conn, arguments)


def _described(tool: tools.Tool) -> types.Tool:
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tools.input_schema(tool),
        output_schema=tools.output_schema(tool),
        annotations=types.ToolAnnotations(
            read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
        ),
    )


def _refused(message: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=message)], is_error=True)
