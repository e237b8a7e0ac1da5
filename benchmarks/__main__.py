"""Run a program of this package, from the repository's root: python -m benchmarks PROGRAM ..."""

import sys
from ast import get_docstring, parse
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent


def programs() -> dict[str, str]:
    """The first line of each program's docstring, by its name."""
    sources = {path.stem: parse(path.read_text()) for path in sorted(HERE.glob("[a-z]*.py"))}
    return {
        name: (get_docstring(source) or "").partition("\n")[0]
        for name, source in sources.items()
        if any(getattr(node, "name", "") == "main" for node in source.body)
    }


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in programs():
        lines = [f"  {program:16} {line}" for program, line in programs().items()]
        sys.exit("\n".join(["usage: python -m benchmarks PROGRAM [--help]", "", *lines]))
    sys.argv = [f"python -m benchmarks {name}", *sys.argv[2:]]
    import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
