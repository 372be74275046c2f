"""Plots as SVG: a few lines over time, one panel below the other."""

WIDTH, HEIGHT, LEFT, TOP = 900, 190, 60, 34
COLORS = ("#1f77b4", "#d95f02", "#2ca02c")


def steps(limit):
    """Round numbers up to a limit, about four of them."""
    unit = 10 ** (len(str(int(max(limit, 1)))) - 1)
    unit = next(size for size in (unit / 5, unit / 2, unit, unit * 2, unit * 5) if limit / size <= 5)
    return [index * unit for index in range(int(limit / unit) + 1)]


def panel(top, title, times, lines):
    """One panel; `lines` has values by name."""
    end = max(times) or 1
    limit = max([1, *(value for values in lines.values() for value in values)]) * 1.05

    def x(value):
        return LEFT + value / end * (WIDTH - LEFT - 20)

    def y(value):
        return top + HEIGHT - value / limit * (HEIGHT - TOP)

    found = [f'<text x="{LEFT}" y="{top + 14}" font-weight="bold">{title}</text>']
    for value in steps(limit):
        found.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>')
        found.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in steps(end):
        found.append(f'<text x="{x(value):.1f}" y="{top + HEIGHT + 15}" text-anchor="middle">{value:g} s</text>')
    for index, (name, values) in enumerate(lines.items()):
        points = " ".join(f"{x(time):.1f},{y(value):.1f}" for time, value in zip(times, values))
        found.append(f'<polyline fill="none" stroke="{COLORS[index]}" stroke-width="1.8" points="{points}"/>')
        at = WIDTH - 20 - 130 * (len(lines) - index - 1)
        found.append(f'<text x="{at}" y="{top + 14}" text-anchor="end" fill="{COLORS[index]}">{name}</text>')
    return found


def article(rows, way):
    """Replicas, records that wait, and the age of the oldest, over the time of the article's events."""
    times = [row["seconds"] for row in rows]

    def column(name):
        return [row[name] for row in rows]

    panels = [
        (f"Replicas. {way}", {"asked for": column("wanted"), "ready": column("ready")}),
        ("Events", {"waiting": column("lag_records"), "answered": column("done")}),
        ("Age of the oldest event in flight, in seconds", {"age": column("lag_seconds")}),
    ]
    height = len(panels) * (HEIGHT + 36) + 10
    font = 'font-family="sans-serif" font-size="12"'
    found = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {font}>']
    found.append(f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>')
    for index, (title, lines) in enumerate(panels):
        found += panel(10 + index * (HEIGHT + 36), title, times, lines)
    return "\n".join([*found, "</svg>", ""])
