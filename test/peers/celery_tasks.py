"""Celery with Redis: tasks whose entries are the same as those of longrun's (test/functions.ts), published by Redis to
celery_bridge.cjs. As a program it is the web server which takes the calls."""

import json
import os
import socket
import time

import redis
from aiohttp import web
from celery import Celery

app = Celery('celery_tasks', broker=f'redis+socket://{os.environ["REDIS"]}')
app.conf.task_ignore_result = True
app.conf.worker_prefetch_multiplier = 1  # what its guide advises for long tasks
client = redis.Redis(unix_socket_path=os.environ['REDIS'])


@app.task(name='stream')
def stream(run, count):
    for first in range(0, count, 1000):
        steps = range(first, min(count, first + 1000))
        publish(run, [{'type': 'msg', 'data': {'step': step, 'text': 'about 80 bytes'}} for step in steps])
    publish(run, [{'type': 'done'}])


@app.task(name='burn')
def burn(run, ms):
    end = now() + 1000 * ms
    while now() < end:
        pass
    publish(run, [{'type': 'done'}])


@app.task(name='rate')
def rate(run, count, per_second):
    began = now()
    step = 0
    while step < count:
        due = min(count, int((now() - began) / 1e6 * per_second) + 1)
        publish(run, [{'type': 'msg', 'data': {'step': i, 'at': now()}} for i in range(step, due)])
        step = due
        time.sleep(0.001)
    publish(run, [{'type': 'done'}])


def publish(run, entries):
    """In one pipeline, as waiting for the answer to each would be slower."""
    with client.pipeline(transaction=False) as pipeline:
        for entry in entries:
            line = json.dumps({'time': round(time.time() * 1000), **entry}, separators=(',', ':'))
            pipeline.publish(f'run:{run}', line)
        pipeline.execute()


def now():
    return time.monotonic_ns() // 1000  # the clock of Node's process.hrtime


async def answer(request):
    call = await request.json()
    app.send_task(call['method'], [call['id'], *call['args']])
    return web.json_response({'id': call['id']}, status=202)


if __name__ == '__main__':
    server = web.Application()
    server.router.add_post('/tasks', answer)
    free = socket.create_server(('127.0.0.1', 0))
    print(f'http://127.0.0.1:{free.getsockname()[1]}', flush=True)
    web.run_app(server, sock=free, access_log=None, print=None)
