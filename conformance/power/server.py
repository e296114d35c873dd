"""Power cuts of the server: it runs in the guest, and publishers outside it over HTTP.

Each publisher has a sender and a channel of its own, and keeps both from one start of the machine
to the next: a sender that is not known any more is as wrong as a message that is gone.
"""

import http.client
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

from found import Found
from machine import Image, Machine, output

SECRET = "b7e1-52c0-9d44"
PUBLISHERS = 16
START_SECONDS = 300
PUBLISH_SECONDS = 6
# Everything is kept, so that all of it can be looked for.
CHANNELS = '[{pattern="*",durable=true,history_ttl="30d"}]'


def image(root, home, unsynced):
    output(["cargo", "build", "--locked", "-p", "watchtower"], cwd=root)
    script = (
        f"RUST_LOG=error watchtower serve --listen 0.0.0.0:3033 --secret {SECRET} --data-dir /disk/data"
        f" --set 'channels={CHANNELS}' --set limits.max_requests_per_second_per_address=1000000"
    )
    return Image(home, [root / "target/debug/watchtower"], script, unsynced)


class Refused(Exception):
    """The server refuses something that it must not refuse."""


class Publisher:
    """A sender, its channel, and what was acknowledged of it."""

    def __init__(self, number):
        self.channel = f"channel/{number}"
        self.sender = None
        self.epoch = None
        self.acknowledged = {}

    def ask(self, method, target, body=None):
        self.connection.request(method, target, body and json.dumps(body))
        response = self.connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            raise Refused(f"{target.split('?')[0]}: {response.status} {answer}")
        return answer

    def look(self, port):
        """Reads the whole channel. Returns how many messages are lost, and what is wrong."""
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        if self.sender is None:
            return 0, []
        kept, since, wrong = {}, "", []
        try:
            while True:
                page = self.ask("GET", f"/channels/{self.path()}/history?sender={self.sender}&limit=500{since}")
                for message in page["messages"]:
                    kept[message["offset"]] = message["message"]
                if len(page["messages"]) == 0:
                    break
                since = f"&since={page['epoch']}:{page['messages'][-1]['offset']}"
            if self.acknowledged and page["epoch"] != self.epoch:
                wrong.append(f"{self.channel} has another epoch")
        except (Refused, OSError, http.client.HTTPException) as error:
            wrong.append(str(error))
        if sorted(kept) != list(range(1, len(kept) + 1)):
            wrong.append(f"{self.channel} has a gap")
        lost = sum(kept.get(offset) != text for offset, text in self.acknowledged.items())
        # What is there now must stay.
        self.acknowledged |= kept
        return lost, wrong

    def path(self):
        return self.channel.replace("/", "%2F")

    def publish(self):
        """Publishes until there is no power; how many were acknowledged, and what is wrong."""
        before = len(self.acknowledged)
        try:
            if self.sender is None:
                self.sender = self.ask("POST", "/register", {"secret_key": SECRET})["id"]
                self.ask("POST", "/channels/join", {"sender": self.sender, "channels": [self.channel]})
            while True:
                text = f"{self.channel} {len(self.acknowledged)}"
                message = {"sender": self.sender, "channels": [self.channel], "message": text}
                position = self.ask("POST", "/broadcast", message)["messages"][0]
                if position["offset"] in self.acknowledged:
                    raise Refused(f"offset {position['offset']} of {self.channel} was given twice")
                self.epoch = position["epoch"]
                self.acknowledged[position["offset"]] = text
        except Refused as error:
            return len(self.acknowledged) - before, [str(error)]
        except (OSError, http.client.HTTPException, ValueError):
            # No power, and maybe half an answer.
            return len(self.acknowledged) - before, []


def run(image, disk, cuts, random):
    """Cuts the power so often, and starts it once more to see what is there."""
    found = Found()
    publishers = [Publisher(number) for number in range(PUBLISHERS)]
    for cut in range(cuts + 1):
        seconds = 0 if cut == cuts else random.choice([0.5, PUBLISH_SECONDS, PUBLISH_SECONDS]) * random.random()
        found.cuts = cut
        found.add(*run_once(image, disk, publishers, seconds))
    return found


def run_once(image, disk, publishers, seconds):
    port = free_port()
    machine = Machine(image, disk, forward=port)
    patience = threading.Timer(START_SECONDS, machine.cut)
    patience.start()
    wrong = []
    is_ready = wait_until_ready(machine, wrong)
    patience.cancel()
    if not is_ready:
        machine.cut()
        lost = sum(len(publisher.acknowledged) for publisher in publishers)
        return 0, lost, wrong + ["the server did not start: see target/power-cut/console.log"]
    # What it says from now on is told once it is over.
    said = threading.Thread(target=lambda: wrong.extend(line for line in machine.lines() if is_wrong(line)))
    said.start()
    with ThreadPoolExecutor(len(publishers)) as threads:
        looked = list(threads.map(lambda publisher: publisher.look(port), publishers))
        cut = threading.Timer(seconds, machine.cut)
        cut.start()
        published = list(threads.map(Publisher.publish, publishers)) if seconds else []
        cut.join()
    machine.cut()
    said.join()
    for _, more in looked + published:
        wrong.extend(more)
    return sum(count for count, _ in published), sum(lost for lost, _ in looked), wrong


def wait_until_ready(machine, wrong):
    for line in machine.lines():
        if line == "ready":
            return True
        if is_wrong(line):
            wrong.append(line)
    return False


def is_wrong(line):
    return not line.startswith("listening ") and line != "ready"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
