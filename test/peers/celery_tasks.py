"""Celery's tasks, which publish their entries by Redis: the same entries as longrun's (test/functions.ts)."""

import json
import os
import time

import redis
from celery import Celery

app = Celery('celery_tasks', broker=f'redis+socket://{os.environ["REDIS"]}')
app.conf.task_ignore_result = True
app.conf.worker_prefetch_multiplier = 1  # what its guide advises for long tasks
client = redis.Redis(unix_socket_path=os.environ['REDIS'])


def publish(run, entries):
    """In one pipeline, as waiting for the answer to each would be slower."""
    with client.pipeline(transaction=False) as pipeline:
        for entry in entries:
            pipeline.publish(f'run:{run}', json.dumps({'time': round(time.time() * 1000), **entry}, separators=(',', ':')))
        pipeline.execute()


@app.task(name='stream')
def stream(run, count):
    for first in range(0, count, 1000):
        steps = range(first, min(count, first + 1000))
        publish(run, [{'type': 'msg', 'data': {'step': step, 'text': 'about 80 bytes'}} for step in steps])
    publish(run, [{'type': 'done'}])


@app.task(name='rate')
def rate(run, count, per_second):
    def now():
        return time.monotonic_ns() // 1000  # the clock of Node's process.hrtime
    began = now()
    step = 0
    while step < count:
        due = min(count, -int((began - now()) / 1e6 * per_second // 1))
        publish(run, [{'type': 'msg', 'data': {'step': i, 'at': now()}} for i in range(step, due)])
        step = due
        time.sleep(0.001)
    publish(run, [{'type': 'done'}])
