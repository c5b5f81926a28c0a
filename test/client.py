"""A client of longrun in another language: it knows the contract, and nothing else.

    python3 client.py start METHOD ARGS     starts a run, and prints its id
    python3 client.py follow ID [POSITION]  prints its entries, from a position on, until it has ended
    python3 client.py cancel ID
"""
import json, os, sys, uuid
import zmq  # Debian: apt install python3-zmq

RUNS = os.path.abspath(os.environ.get('RUNS', 'runs'))
context = zmq.Context()
context.linger = 0


def call(method, args, id='call'):
    """Asks the workers server; its refusals, and silence of 10 s, are exceptions."""
    with context.socket(zmq.REQ) as socket:  # a fresh one: a REQ that has timed out cannot be used again
        socket.rcvtimeo = 10_000
        socket.connect(os.environ.get('REP_ADDR', f'ipc://{RUNS}/rep.sock'))
        socket.send_multipart([method.encode(), b'', id.encode(), json.dumps(args).encode()])
        tag, payload = socket.recv_multipart()
    if tag in (b'__ERROR__', b'__BUSY__'):
        raise RuntimeError(payload.decode())
    return payload


def follow(id, next=0):
    """Yields the lines of a run's log from position `next` on, each once, whatever is lost on the way."""
    with context.socket(zmq.SUB) as chunks:
        chunks.subscribe(id)
        chunks.connect(os.environ.get('XPUB_ADDR', f'ipc://{RUNS}/xpub.sock'))
        patience = 0  # ms; at first, what is there already is read
        while True:
            if chunks.poll(patience):
                topic, position, lines = chunks.recv_multipart()
                if topic.decode() != id: continue  # ZeroMQ compares only the beginning
            else:  # quiet: was the last message lost?
                position, lines = json.loads(call('stat', [[id]])).get(id, {'size': 0})['size'], b''
            patience, position = 2000, int(position)
            end = position + len(lines)
            while next < end:  # the one rule: a chunk beyond `next` means that something was missed
                fresh = lines[next - position:] if position <= next else call('read', [id, next])
                if not fresh: break  # a torn line, which was cut off
                next += len(fresh)
                for line in fresh.decode().split('\n')[:-1]:
                    yield line
                    if json.loads(line)['type'] == 'done': return


if __name__ == '__main__':
    verb, *rest = sys.argv[1:]
    if verb == 'start':
        id = str(uuid.uuid4())
        call(rest[0], json.loads(rest[1]), id)
        print(id)
    elif verb == 'follow':
        for line in follow(rest[0], int(*rest[1:])):
            print(line, flush=True)
    elif verb == 'cancel':
        call('cancel', rest)
