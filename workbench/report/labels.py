"""Numbers as people read them, the same on the terminal and in reports."""


def percent_label(fraction: float) -> str:
    """`0.9642` as `96.4 %`."""
    return f"{100 * fraction:.1f} %"


def bytes_label(count: float) -> str:
    """Bytes in decimal units with at most three digits: `12.3 kB`."""
    units = ("B", "kB", "MB", "GB", "TB")
    # 999.5 and not 1000: from there on three digits would round up to 1e+03.
    rank = next((rank for rank in range(len(units)) if count < 999.5 * 1000**rank), len(units) - 1)
    return f"{count / 1000**rank:.3g} {units[rank]}"


def duration_label(seconds: float) -> str:
    """`43 s`, `1 min 43 s`, `2 h 05 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
