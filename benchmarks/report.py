"""Turns what was measured into a section of docs/performance.md, plots beside it, and the figures
as JSON.

The section stands between two comments, and only what is between them is replaced.
"""

import json
import math
import platform
import re
import statistics
import subprocess
from pathlib import Path

BEGIN = "<!-- What follows is written by benchmarks/compare. -->"
END = "<!-- That was written by benchmarks/compare. -->"

COLORS = ["#1f77b4", "#17becf", "#2ca02c", "#d62728", "#ff7f0e", "#9467bd", "#8c564b"]


class Figures:
    """What was measured of each server at each work: the median of its turns."""

    def __init__(self, results):
        self.reports = {}
        for result in results:
            self.reports.setdefault((result["peer"], tuple(result["work"])), []).append(result["report"])
        self.works = sorted({work for _, work in self.reports})

    def of(self, peer, work, figure):
        reports = [r for r in self.reports.get((peer.name, work), []) if "error" not in r]
        numbers = [number for number in map(figure, reports) if number is not None]
        return statistics.median(numbers) if numbers else None

    def errors(self):
        return sorted({
            f"{peer}, {work[0]:,} subscribers, {work[1]:,} bytes, {work[2]} in flight: {report['error']}"
            for (peer, work), reports in self.reports.items()
            for report in reports
            if "error" in report
        })


def ratio(report):
    return report["floor"]["ratio"]


def cpu(report):
    return report["server"]["cpu_ns_per_delivery"]


def bare_cpu(report):
    return report["floor"]["cpu_ns_per_delivery"]


def memory(report):
    return report["server"]["idle_bytes_per_connection"]


def latency(quantile):
    return lambda report: report["latency"][f"{quantile}_ns"]


def time(nanoseconds):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3g} {unit}"
    return f"{nanoseconds:.0f} ns"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def cell(figures, peer, work):
    """The ratio, and below it p50 and p99."""
    numbers = [figures.of(peer, work, figure) for figure in (ratio, latency("p50"), latency("p99"))]
    if None in numbers:
        return "–"
    return f"{numbers[0]:.2f} ({time(numbers[1])}, {time(numbers[2])})"


def count(number, noun):
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def pace(window):
    return "one at a time" if window == 1 else f"{window} in flight"


def ratio_tables(figures, peers):
    """For each length of messages and each pace, by the number of subscribers."""
    for size in sorted({size for _, size, _ in figures.works}):
        for window in sorted({window for _, _, window in figures.works}):
            works = [work for work in figures.works if work[1:] == (size, window)]
            if not works:
                continue
            yield f"Messages of {size:,} bytes, {pace(window)}:\n"
            head = ["", *(count(work[0], "subscriber") for work in works)]
            yield table(head, ([peer.title, *(cell(figures, peer, work) for work in works)] for peer in peers))


def memory_table(figures, peers):
    """Where most are connected, with small messages: what is left from a burst is in it otherwise."""
    work = max(figures.works, key=lambda work: (work[0], -work[1], -work[2]))
    rows = []
    for peer in peers:
        idle = figures.of(peer, work, memory)
        rows.append([peer.title, "–" if idle is None else f"{idle:,.0f}"])
    return table(["", f"bytes, of {count(work[0], 'connection')}"], rows)


def plot(path, title, lines):
    """CPU a delivery by subscribers, on two scales that grow by factors."""
    width, height, left, right, top, bottom = 900, 440, 80, 210, 40, 50
    points = [point for _, line in lines for point in line]
    if not points:
        return False
    low = [math.log10(min(point[axis] for point in points)) - 0.1 for axis in (0, 1)]
    high = [math.log10(max(point[axis] for point in points)) + 0.1 for axis in (0, 1)]

    def x(value):
        return left + (math.log10(value) - low[0]) / (high[0] - low[0]) * (width - left - right)

    def y(value):
        return height - bottom - (math.log10(value) - low[1]) / (high[1] - low[1]) * (height - top - bottom)

    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
           f'font-size="13">', f'<rect width="{width}" height="{height}" fill="white"/>',
           f'<text x="{left}" y="24" font-size="16">{title}</text>',
           f'<text x="{(left + width - right) / 2}" y="{height - 10}" text-anchor="middle">subscribers</text>',
           f'<text transform="translate(20 {height / 2}) rotate(-90)" text-anchor="middle">'
           'ns of CPU a delivery</text>']
    for value in sorted({point[0] for point in points}):
        svg.append(f'<line x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{top}" y2="{height - bottom}" '
                   f'stroke="#ddd"/><text x="{x(value):.1f}" y="{height - bottom + 18}" '
                   f'text-anchor="middle">{value:,}</text>')
    steps = [factor * 10 ** power for power in range(0, 9) for factor in (1, 2, 5)]
    for value in (step for step in steps if low[1] <= math.log10(step) <= high[1]):
        svg.append(f'<line x1="{left}" x2="{width - right}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
                   f'stroke="#ddd"/><text x="{left - 8}" y="{y(value) + 4:.1f}" '
                   f'text-anchor="end">{value:,}</text>')
    for index, (name, line) in enumerate(lines):
        color = "#7f7f7f" if name == "bare loop" else COLORS[index % len(COLORS)]
        path_of = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line)
        svg.append(f'<polyline points="{path_of}" fill="none" stroke="{color}" stroke-width="2"/>')
        svg += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3.5" fill="{color}"/>' for a, b in line]
        label = top + 20 * index
        svg.append(f'<rect x="{width - right + 16}" y="{label}" width="12" height="12" fill="{color}"/>'
                   f'<text x="{width - right + 34}" y="{label + 11}">{name}</text>')
    path.write_text("\n".join([*svg, "</svg>"]) + "\n")
    return True


def plots(folder, figures, peers):
    """One a pace, of the messages that are nearest to 128 bytes; the Markdown that shows them."""
    size = min((size for _, size, _ in figures.works), key=lambda size: abs(size - 128))
    for window in sorted({window for _, _, window in figures.works}):
        works = [work for work in figures.works if work[1:] == (size, window)]
        lines = []
        for peer in peers:
            line = [(work[0], figures.of(peer, work, cpu)) for work in works]
            lines.append((peer.title, [point for point in line if point[1]]))
        # Each server had one beside it; what they write differs by some bytes.
        bare = [(work[0], [figures.of(peer, work, bare_cpu) for peer in peers]) for work in works]
        bare = [(subscribers, [cost for cost in costs if cost]) for subscribers, costs in bare]
        lines.append(("bare loop", [(at, statistics.median(costs)) for at, costs in bare if costs]))
        lines = [(name, line) for name, line in lines if line]
        name = f"comparison-{window}.svg"
        title = f"Messages of {size:,} bytes, {pace(window)}"
        if plot(folder / name, title, lines):
            yield f"![CPU a delivery by subscribers: {title.lower()}]({name})\n"


def version(peer):
    """The first number with dots in it that the server prints."""
    name, command = peer.version
    ended = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"\d+(\.\d+)+", ended.stdout + ended.stderr)
    return f"{name} {found.group() if found else 'of an unknown version'}"


def machine():
    model = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{model.group(1) if model else platform.machine()}, Linux {'.'.join(platform.release().split('.')[:2])}"


def section(folder, results, peers):
    figures = Figures(results)
    versions = ", ".join(version(peer) for peer in peers if peer.version)
    yield (f"Measured on {machine()}{', with ' + versions if versions else ''}. Each server has one core, in "
           "turns, and the load another; a figure is the median of the turns. Each cell is the CPU time of a "
           "delivery over that of the bare loop, which writes the same bytes in the same run, and behind it "
           "the latency, p50 and p99. A dash is work that a server did not finish, or that would put more "
           "than 600 MB on its way at once.\n")
    yield from plots(folder, figures, peers)
    yield from ratio_tables(figures, peers)
    yield "Resident memory of the server for an idle connection that is subscribed:\n"
    yield memory_table(figures, peers)
    errors = figures.errors()
    if errors:
        yield "What was not finished:\n"
        yield "\n".join(f"- {error}" for error in errors) + "\n"


def write_report(folder, results, peers):
    """Writes into `performance.md` of the folder, made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = ",\n".join(json.dumps(run) for run in compact(results))
    (folder / "comparison.json").write_text(f"[\n{runs}\n]\n")
    text = "\n".join([BEGIN, "", *section(folder, results, peers), END])
    page = folder / "performance.md"
    before = page.read_text() if page.exists() else f"{BEGIN}\n{END}\n"
    start, end = before.find(BEGIN), before.find(END)
    if start < 0 or end < start:
        raise SystemExit(f"compare: {page} lacks the comments that the section stands between")
    page.write_text(before[:start] + text + before[end + len(END):])


def compact(results):
    """Without the distributions and the rounds, which are most of it."""
    def smaller(report):
        if "error" in report:
            return report
        kept = {key: value for key, value in report.items() if key != "rounds"}
        for part in (kept, kept["floor"]):
            part["latency"] = {key: value for key, value in part["latency"].items() if key != "curve"}
        return kept

    return [dict(result, report=smaller(json.loads(json.dumps(result["report"])))) for result in results]
