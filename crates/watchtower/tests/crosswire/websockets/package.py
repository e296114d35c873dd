"""Opens WebSockets with the package `websockets` as lines of JSON on standard input say, and tells
in lines on standard output what comes on them. Ends with its input.

    {"socket": 1, "do": "open", "url": "ws://…"}      with "origin", "protocols" and "certificate"
                                                      if need be
    {"socket": 1, "do": "text", "text": "…"}
    {"socket": 1, "do": "binary", "base64": "…"}
    {"socket": 1, "do": "close"}

    {"socket": 1, "is": "open"}
    {"socket": 1, "is": "text", "text": "…"}
    {"socket": 1, "is": "binary", "base64": "…"}
    {"socket": 1, "is": "closed", "code": 1000, "reason": "…"}   1006 where it never opened
"""

import asyncio
import base64
import json
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus


def tell(socket, what, **more):
    print(json.dumps({"socket": socket, "is": what, **more}), flush=True)


async def obey(websocket, commands):
    while command := await commands.get():
        match command["do"]:
            case "text":
                await websocket.send(command["text"])
            case "binary":
                await websocket.send(base64.b64decode(command["base64"]))
            case "close":
                await websocket.close()


async def follow(socket, options, commands):
    is_secure = options["url"].startswith("wss")
    context = ssl.create_default_context(cadata=options["certificate"]) if is_secure else None
    origin, protocols = options.get("origin"), options.get("protocols")
    try:
        websocket = await connect(
            options["url"], origin=origin, subprotocols=protocols, ssl=context, proxy=None, max_size=None
        )
    except InvalidStatus as refused:
        tell(socket, "closed", code=1006, reason=str(refused.response.status_code))
        return
    tell(socket, "open")
    obeying = asyncio.create_task(obey(websocket, commands))
    try:
        async for message in websocket:
            if isinstance(message, str):
                tell(socket, "text", text=message)
            else:
                tell(socket, "binary", base64=base64.b64encode(message).decode())
    except ConnectionClosed:
        pass
    obeying.cancel()
    tell(socket, "closed", code=websocket.close_code, reason=websocket.close_reason)


async def main():
    sockets = {}
    following = set()
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        socket = command["socket"]
        if command["do"] == "open":
            sockets[socket] = asyncio.Queue()
            following.add(asyncio.create_task(follow(socket, command, sockets[socket])))
        else:
            sockets[socket].put_nowait(command)


asyncio.run(main())
