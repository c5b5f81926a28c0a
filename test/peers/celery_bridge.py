"""The way from Celery to the page: aiohttp takes the calls, websockets sends what the tasks publish to those who follow."""

import asyncio
import json
import os
from collections import defaultdict

import redis.asyncio
import websockets
from aiohttp import web

from celery_tasks import app

followers = defaultdict(set)  # by run


async def start(request):
    call = await request.json()
    app.send_task(call['method'], [call['id'], *call['args']])
    return web.json_response({'id': call['id']}, status=202)


async def follow(socket):
    runs = []
    try:
        async for text in socket:
            run = json.loads(text).get('start')
            if run:
                followers[run].add(socket)
                runs.append(run)
    finally:
        for run in runs:
            followers[run].discard(socket)


async def forward():
    async with redis.asyncio.Redis(unix_socket_path=os.environ['REDIS'], decode_responses=True).pubsub() as pubsub:
        await pubsub.psubscribe('run:*')
        async for message in pubsub.listen():
            if message['type'] == 'pmessage':
                run = message['channel'].removeprefix('run:')
                websockets.broadcast(followers[run], f'{{"id":"{run}","entries":[{message["data"]}]}}')


async def main():
    calls = web.Application()
    calls.router.add_post('/tasks', start)
    runner = web.AppRunner(calls)
    await runner.setup()
    await web.TCPSite(runner, '127.0.0.1', 0).start()
    sockets = await websockets.serve(follow, '127.0.0.1', 0, compression=None, backlog=4096)
    ports = [runner.addresses[0][1], sockets.sockets[0].getsockname()[1]]
    print(*(f'http://127.0.0.1:{port}' for port in ports), flush=True)
    await forward()


asyncio.run(main())
