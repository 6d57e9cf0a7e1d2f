"""What all tasks share: where the servers are, and lines of what was found, which two servers must agree on."""

import os
import sys

HOST = "127.0.0.1"
PORT = int(os.environ["RESP_PORT"])
MEMCACHED_PORT = int(os.environ["MEMCACHED_PORT"])
URL = f"redis://{HOST}:{PORT}"


def found(name, value):
    """Adds a line to the transcript."""
    print(f"{name}: {value!r}", flush=True)


def run(*tasks):
    """Runs the tasks that the command line names, or all of them."""
    wanted = sys.argv[1:]
    for task in tasks:
        if not wanted or task.__name__ in wanted:
            print(f"-- {task.__name__}", flush=True)
            task()
