"""Power cuts of the store alone: the guest runs its example power_cut."""

import threading

from found import Found
from machine import Image, Machine, output

# How long the guest may take to start, and how long it may write at most before the power is cut.
START_SECONDS = 300
WRITE_SECONDS = 4


def image(root, home, unsynced):
    output(["cargo", "build", "--locked", "-p", "watchtower-store", "--example", "power_cut"], cwd=root)
    program = root / "target/debug/examples/power_cut"
    return Image(home, [program], "power_cut /disk/store", unsynced)


def run(image, disk, cuts, random):
    """Cuts the power so often, and starts it once more to see what is there."""
    found, last = Found(), {}
    for cut in range(cuts + 1):
        # Some are cut while the store is opened, or a moment later.
        seconds = 0 if cut == cuts else random.choice([0.3, WRITE_SECONDS, WRITE_SECONDS]) * random.random()
        kept, wrong, acknowledged = run_once(image, disk, seconds)
        lost = 0
        for channel, (epoch, offset) in last.items():
            kept_epoch, kept_offset = kept.get(channel, (epoch, 0))
            if kept_epoch != epoch:
                wrong.append(f"channel {channel} has another epoch")
            lost += max(0, offset - kept_offset)
        last = {}
        for line in acknowledged:
            channel, position = line.split(" ")
            last[channel] = parse(position)
        # What was found to be there counts as much as what was acknowledged.
        last = kept | last
        found.cuts = cut
        found.add(len(acknowledged), lost, wrong)
    return found


def run_once(image, disk, seconds):
    """Starts the machine, lets it write for so long, and cuts its power. Returns what it said: what
    is kept, what is wrong, and what it acknowledged."""
    machine = Machine(image, disk)
    cut = threading.Timer(START_SECONDS, machine.cut)
    cut.start()
    kept, wrong, acknowledged, begun = {}, [], [], False
    for line in machine.lines():
        word, _, rest = line.partition(" ")
        if word == "begun":
            begun = True
            cut.cancel()
            cut = threading.Timer(seconds, machine.cut)
            cut.start()
        elif word == "kept":
            channel, position = rest.split(" ")
            kept[channel] = parse(position)
        elif word == "acknowledged":
            acknowledged.append(rest)
        else:
            wrong.append(line)
    cut.cancel()
    machine.cut()
    if not begun:
        wrong.append("the guest did not begin: see target/power-cut/console.log")
    return kept, wrong, acknowledged


def parse(position):
    epoch, offset = position.split(":")
    return epoch, int(offset)
