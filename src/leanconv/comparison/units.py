"""Numbers as people read them: 671 M, 4.2 MiB, 3.1 ms."""


def count(value: float) -> str:
    """Return a count with a decimal prefix and three digits, such as ``9.20 M`` or ``671 M``."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{_three_digits(value / size)} {prefix}"
    return f"{value:g}"


def memory(value: float) -> str:
    """Return bytes with a binary prefix, such as ``4.20 MiB``."""
    for size, prefix in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= 0.9995 * 1000 * size / 1024 or value >= size:
            return f"{_three_digits(value / size)} {prefix}"
    return f"{value:g} B"


def duration(seconds: float) -> str:
    """Return a time with a fitting unit, such as ``3.10 ms``, ``42.0 s`` or ``5 min 3 s``."""
    if seconds >= 60:
        minutes, rest = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
    for size, prefix in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= size:
            return f"{_three_digits(seconds / size)} {prefix}"
    return f"{seconds * 1e9:.0f} ns"


def percent(fraction: float, sd: float | None = None) -> str:
    """Return a fraction as per cent with its standard deviation, such as ``91.73 ± 0.12 %``."""
    spread = "" if sd is None else f" ± {100 * sd:.2f}"
    return f"{100 * fraction:.2f}{spread} %"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
