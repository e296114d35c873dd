"""The servers that are compared: how each is started for one run, on one core, with the limits off
that would drop or close subscribers who are sent a burst.

Each listens on a free port of 127.0.0.1 and keeps nothing on disk.
"""

import contextlib
import os
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

# How long a server may take to listen, and to end.
READY_SECONDS = 20
STOP_SECONDS = 20

# The programs and modules that a server needs, and the Debian packages that they are in.
PACKAGES = {
    "redis": [("redis-server", "redis-server")],
    "nats": [("nats-server", "nats-server")],
    "mosquitto": [("mosquitto", "mosquitto")],
    "nchan": [("nginx", "nginx"), ("/usr/lib/nginx/modules/ngx_nchan_module.so", "libnginx-mod-nchan")],
    "watchtower-tcp": [],
    "watchtower-webrocket": [],
    "watchtower-sse": [],
}


@dataclass
class Server:
    port: int
    pid: int


@dataclass
class Peer:
    name: str
    # What `watchtower bench --protocol` calls it.
    protocol: str
    # What a reader of the tables is told.
    title: str
    # The command that listens on a port and may use a folder.
    command: Callable[[Path, Path, int], list]
    # What has a version, and the command that prints it.
    version: tuple

    @contextlib.contextmanager
    def run(self, program, folder, core):
        """A server on a core, until the end of the block."""
        port = free_port()
        with open(folder / "log", "w") as log:
            child = subprocess.Popen(
                [str(word) for word in self.command(program, folder, port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )
        try:
            wait_for(port, child, folder / "log")
            yield Server(port, child.pid)
        finally:
            child.terminate()
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port, child, log):
    limit = time.monotonic() + READY_SECONDS
    while True:
        if child.poll() is not None or time.monotonic() > limit:
            raise SystemExit(f"compare: a server did not get ready: {log.read_text().strip()[-500:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)


def watchtower(program, folder, port):
    return [
        program, "serve", "--listen", f"127.0.0.1:{port}",
        "--set", "limits.lag_bytes=67108864", "--set", "limits.max_connections_per_address=100000",
    ]


def redis(_program, _folder, port):
    return [
        "redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no",
        "--maxclients", "19000", "--client-output-buffer-limit", "pubsub 0 0 0",
    ]


def nats(_program, folder, port):
    configuration = folder / "nats.conf"
    configuration.write_text(
        f"listen: 127.0.0.1:{port}\nmax_connections: 19000\nmax_pending: 1073741824\nwrite_deadline: \"60s\"\n"
    )
    return ["nats-server", "-c", configuration]


def mosquitto(_program, folder, port):
    configuration = folder / "mosquitto.conf"
    configuration.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n"
        "max_queued_messages 0\nmax_queued_bytes 0\nmemory_limit 0\n"
    )
    return ["mosquitto", "-c", configuration]


def nchan(_program, folder, port):
    configuration = folder / "nginx.conf"
    folders = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in
                      ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    configuration.write_text(f"""
load_module modules/ngx_nchan_module.so;
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error;
worker_rlimit_nofile 20000;
events {{ worker_connections 19000; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_buffer_size 128k;
    nchan_max_reserved_memory 1024m;
    {folders}
    server {{
        listen 127.0.0.1:{port};
        location /pub {{
            nchan_publisher;
            nchan_channel_id $arg_id;
            nchan_message_buffer_length 128;
        }}
        location /sub {{
            nchan_subscriber websocket;
            nchan_channel_id $arg_id;
            nchan_subscriber_first_message newest;
        }}
    }}
}}
""")
    return ["nginx", "-c", configuration]


PEERS = [
    Peer("watchtower-tcp", "tcp", "Watchtower, packets", watchtower, ()),
    Peer("watchtower-webrocket", "webrocket", "Watchtower, WebRocket", watchtower, ()),
    Peer("watchtower-sse", "sse", "Watchtower, SSE", watchtower, ()),
    Peer("redis", "redis", "Redis", redis, ("Redis", ["redis-server", "--version"])),
    Peer("nats", "nats", "NATS", nats, ("NATS", ["nats-server", "--version"])),
    Peer("mosquitto", "mqtt", "Mosquitto", mosquitto, ("Mosquitto", ["mosquitto", "-h"])),
    Peer("nchan", "nchan", "nchan, WebSocket", nchan, ("nginx", ["nginx", "-v"])),
]
