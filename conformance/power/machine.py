"""A machine whose power can be cut: a Debian kernel in qemu, with a disk of its own.

Knows nothing of what runs in it but that it prints lines on the second serial port. The disk is
an ext4 in a file, opened with cache=none: what the guest has not synced is in the guest's memory
alone, and gone with the power.
"""

import gzip
import os
import re
import shutil
import subprocess
from pathlib import Path

# What the guest's kernel has as modules, with what these depend on.
MODULES = ["virtio_pci", "virtio_blk", "ext4", "crc32c_generic", "virtio_net"]
DISK_BYTES = 1 << 30


class Missing(Exception):
    """Something is not on this machine, and cannot be installed by this program."""


def packages(home):
    """The kernel, a shell for the guest and a library that does not sync, unpacked below home."""
    if shutil.which("qemu-system-x86_64") is None:
        raise Missing("qemu is needed: apt-get install qemu-system-x86")
    unpacked = home / "packages"
    if not (unpacked / "complete").exists():
        shutil.rmtree(unpacked, ignore_errors=True)
        unpacked.mkdir(parents=True)
        depends = output(["apt-cache", "depends", "linux-image-amd64"])
        kernel = re.search(r"Depends: (linux-image-\S+)", depends)
        if kernel is None:
            raise Missing("a Debian kernel is needed: apt-get update")
        output(["apt-get", "download", kernel[1], "busybox-static", "libeatmydata1"], cwd=unpacked)
        for package in unpacked.glob("*.deb"):
            output(["dpkg-deb", "-x", package, unpacked])
        (unpacked / "complete").touch()
    return unpacked


def output(command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


class Image:
    """What the guest starts with: a kernel, and a root in memory."""

    def __init__(self, home, programs, script, unsynced):
        self.home = home
        unpacked = packages(home)
        self.kernel = next(unpacked.glob("boot/vmlinuz-*"))
        files = {"bin/busybox": next(unpacked.glob("**/bin/busybox"))}
        modules = in_order(unpacked)
        files |= {f"modules/{path.name}": path for path in modules}
        for program in programs:
            stripped = home / program.name
            output(["strip", "-o", stripped, program])
            files[f"bin/{program.name}"] = stripped
            files |= libraries(stripped)
        if unsynced:
            files["lib/unsynced.so"] = next(unpacked.glob("**/libeatmydata.so.*.*"))
            files |= libraries(files["lib/unsynced.so"])
        init = INIT.format(
            modules=" ".join(path.name for path in modules),
            script=script,
            preload="export LD_PRELOAD=/lib/unsynced.so" if unsynced else ":",
        )
        self.root = home / "root.gz"
        with gzip.open(self.root, "wb", compresslevel=1) as out:
            write_archive(out, files, init.encode())


# What the guest does when it has started.
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc none /proc && mount -t sysfs none /sys && mount -t devtmpfs none /dev
for module in {modules}; do insmod /modules/$module; done
mount -t ext4 /dev/vda /disk || exec poweroff -f
ip link set lo up
ip link set eth0 up && ip address add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2
stty -F /dev/ttyS1 raw -echo
# Not to a terminal, which gets colours.
( {preload}; {script}; echo "wrong the guest's program ended" ) 2>&1 | cat >/dev/ttyS1
poweroff -f
"""


def in_order(unpacked):
    """The modules, each behind those that it depends on."""
    all_modules = {path.stem.replace("-", "_"): path for path in unpacked.glob("lib/modules/**/*.ko")}
    found = []

    def take(name):
        path = all_modules[name]
        depends = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
        for other in depends[1].decode().split(",") if depends else []:
            if other:
                take(other.replace("-", "_"))
        if path not in found:
            found.append(path)

    for name in MODULES:
        take(name)
    return found


def libraries(program):
    """The shared libraries of a program, by where they are looked for."""
    listed = output(["ldd", program])
    return {path.lstrip("/"): Path(path) for path in re.findall(r"(/\S+) \(0x", listed)}


def write_archive(out, files, init):
    """A root file system in cpio's format, as kernels take it."""
    entries = {"init": (0o100755, init)}
    for name in ["bin", "dev", "disk", "proc", "sys", "tmp"]:
        entries[name] = (0o040755, b"")
    for name, path in files.items():
        for parent in list(Path(name).parents)[:-1]:
            entries[str(parent)] = (0o040755, b"")
        entries[name] = (0o100755, path.read_bytes())
    entries = dict(sorted(entries.items())) | {"TRAILER!!!": (0, b"")}
    for number, (name, (mode, content)) in enumerate(entries.items()):
        name = name.encode() + b"\0"
        fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0]
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
        for part in [head, content]:
            out.write(part + bytes(-len(part) % 4))


def new_disk(home):
    disk = home / "disk.img"
    disk.unlink(missing_ok=True)
    with open(disk, "wb") as file:
        file.truncate(DISK_BYTES)
    output(["mkfs.ext4", "-q", "-F", disk])
    return disk


class Machine:
    """One that runs, until its power is cut."""

    def __init__(self, image, disk, forward=None):
        network = "user,id=net,restrict=on"
        if forward is not None:
            network += f",hostfwd=tcp:127.0.0.1:{forward}-:3033"
        command = [
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-smp", "2", "-m", "512",
            "-nodefaults", "-no-reboot", "-display", "none",
            "-kernel", image.kernel, "-initrd", image.root,
            "-append", "console=ttyS0 quiet panic=-1 random.trust_cpu=on",
            "-drive", f"file={disk},format=raw,if=virtio,cache=none",
            "-netdev", network, "-device", "virtio-net-pci,netdev=net,romfile=",
            "-serial", f"file:{image.home / 'console.log'}", "-serial", "stdio",
        ]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    def lines(self):
        """What it prints, line by line, until it has no power. A part of a line is none."""
        for line in self.process.stdout:
            if line.endswith(b"\n"):
                yield line.decode(errors="replace").strip()

    def cut(self):
        self.process.kill()
        self.process.wait()
