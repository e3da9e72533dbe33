"""The server's life: listening, serving, and ending in good order."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from hsd_cli.serve.connection import PunctualConnection
from hsd_cli.serve.worker import Worker

MOST_CONNECTIONS = 1000  # beyond it the answer is 503; far below what a process may have open
IDLE_SECONDS = 30  # until a connection that asks for nothing is closed


def serve(app: FastAPI, listening: socket.socket, worker: Worker, grace: float, on_ready: Callable[[], None]) -> int:
    """Until the process is told to end: then nothing new begins, and what runs has ``grace`` seconds.

    A second Ctrl-C does not wait. Returns the number of requests that were cut off.
    """
    config = uvicorn.Config(
        app,
        http=PunctualConnection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=grace,  # type: ignore[arg-type]
    )
    server = uvicorn.Server(config)
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, server.handle_exit)
    listening.listen()

    async def life() -> int:
        on_ready()
        try:
            await server.serve([listening])
            return len(server.server_state.tasks)
        finally:
            worker.stop()

    return asyncio.run(life())
