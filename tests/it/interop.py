"""Follows one task with a WebSocket client that is not ours: interop.py ADDRESS TASK_ID

Prints a line for each step, and ends with the task. The rules are those of the contract: subscribe first, take what is
above what is known, and answer nothing but what is asked.
"""
import asyncio
import json
import sys

import websockets


async def follow(address, task_id):
    known = (-1, -1)
    async with websockets.connect(f"ws://{address}/api/v1/ws", subprotocols=["taskhub.v1"]) as socket:
        assert socket.subprotocol == "taskhub.v1"
        hello = json.loads(await socket.recv())
        assert hello["type"] == "hello" and hello["rev"] >= 0, hello
        await socket.send(json.dumps({"op": "subscribe", "id": 1, "sub": "one", "filter": {"task_id": [task_id]}}))
        async for message in socket:
            for line in message.split("\n"):
                said = json.loads(line)
                kind = said["type"]
                if kind == "snapshot":
                    tasks = said["tasks"]
                elif kind == "task":
                    tasks = [said["task"]]
                elif kind == "progress":
                    if (said["rev"], said["tick"]) > known:
                        known = (said["rev"], said["tick"])
                        print("progress", said["progress"]["percentage"], flush=True)
                    continue
                else:
                    print(kind, flush=True)
                    continue
                for task in tasks:
                    assert task["task_id"] == task_id
                    if (task["rev"], task["tick"]) <= known:
                        continue
                    known = (task["rev"], task["tick"])
                    print(task["status"], flush=True)
                    if "finished_at" in task:
                        print(json.dumps(task["result"]), flush=True)
                        return


asyncio.run(asyncio.wait_for(follow(*sys.argv[1:]), 20))
