"""`python3 AGENT dial`: standard input and output, byte for byte, to and from the agent's socket. For logins
that may not open it themselves.

Shell start files and banners may print before; so the first thing written is a line with the caller's nonce, and what follows it is raw.
Imports next to nothing, as it is started for every connection.
"""

import _thread
import os
import select
import socket
import sys

READ_BYTES = 64 * 1024
EXIT_USAGE, EXIT_UNREACHABLE = 2, 69


def main(arguments: list[str], default_socket: str) -> int:
    """Arguments: [--socket PATH] [--nonce WORD]. Returns an exit code: 0, 2 (usage) or 69 (no agent answers there; stderr says why).

    A forced command in authorized_keys has fixed arguments: the nonce then stands in SSH_ORIGINAL_COMMAND, as the caller's last word.
    """
    options = {"--socket": default_socket, "--nonce": os.environ.get("SSH_ORIGINAL_COMMAND", "").rpartition(" ")[2]}
    words = list(arguments)
    while words:
        name = words.pop(0)
        if name not in options or not words:
            return _fail(EXIT_USAGE, "usage: dial [--socket PATH] [--nonce WORD]")
        options[name] = words.pop(0)
    nonce = options["--nonce"]
    if len(nonce) > 64 or not nonce.replace("-", "").isalnum() or not nonce.isascii():
        return _fail(EXIT_USAGE, "a nonce is up to 64 letters, digits and dashes")
    agent = socket.socket(socket.AF_UNIX)
    try:
        agent.connect(options["--socket"])
    except OSError as error:
        return _fail(EXIT_UNREACHABLE, f"no agent answers at {options['--socket']}: {error.strerror}")
    _write_all(1, f"\nsshoal-dial {nonce}\n".encode())
    _connect(agent)
    return 0


def _connect(agent: socket.socket) -> None:
    """Copies both ways. An end on one side is passed on to the other; done when both directions of the socket are closed."""
    _thread.start_new_thread(_from_input, (agent,))
    try:
        while True:
            data = agent.recv(READ_BYTES)
            if not data:
                break
            _write_all(1, data)
        os.close(1)
        ended = select.poll()
        ended.register(agent, 0)  # hang-up only: it comes when the input has ended too, or the agent closed altogether
        ended.poll()
    except OSError:
        return  # either side broke off


def _from_input(agent: socket.socket) -> None:
    try:
        while True:
            data = os.read(0, READ_BYTES)
            if not data:
                break
            agent.sendall(data)
    except OSError:
        pass
    try:
        agent.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _fail(code: int, message: str) -> int:
    sys.stderr.write(f"sshoal-dial: {message}\n")
    return code
