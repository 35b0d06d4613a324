"""Runs on a lab host: the same pods by raw libpod calls, in parallel, until each answers on its port. Prints when it began and ended.

The limit that Podman itself sets on this machine: no SSH, no agent, no decisions. Argument: how many pods.
"""

import concurrent.futures
import http.client
import json
import socket
import sys
import time

SOCKET = "/run/sshoal/podman.sock"
PARALLEL = 4  # more is slower on these machines


class _Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(SOCKET)


def call(method, path, body=None):
    connection = _Unix("podman", timeout=120)
    connection.request(
        method,
        "/v4.0.0/libpod" + path,
        json.dumps(body) if body is not None else None,
        {"Content-Type": "application/json"},
    )
    answer = connection.getresponse()
    data = answer.read()
    if answer.status >= 400:
        raise RuntimeError(f"{method} {path}: {answer.status} {data[:300]}")
    return json.loads(data) if data.strip() else {}


def one(number):
    name = f"limit-{number}"
    pod = call("POST", "/pods/create", {"name": name, "Networks": {"sshoal": {}}})["Id"]
    body = {
        "name": name + "-app",
        "image": "localhost/sshoal-test:v1",
        "pod": pod,
        "stop_timeout": 0,
        "log_configuration": {"driver": "none"},
    }
    container = call("POST", "/containers/create", body)["Id"]
    call("POST", f"/pods/{pod}/start")
    infra = call("GET", f"/pods/{pod}/json")["InfraContainerID"]
    address = call("GET", f"/containers/{infra}/json")["NetworkSettings"]["Networks"]["sshoal"]["IPAddress"]
    while True:
        try:
            socket.create_connection((address, 8080), 1).close()
            return container
        except OSError:
            time.sleep(0.005)


def main():
    began = time.time()
    with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(one, range(int(sys.argv[1]))))
    print(began, time.time())
    for pod in call("GET", "/pods/json"):
        if pod["Name"].startswith("limit-"):
            call("DELETE", f"/pods/{pod['Id']}?force=true")


main()
