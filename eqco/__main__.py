"""``python -m eqco``: the command line."""

import sys

from eqco import forkserver

if __name__ == "__main__":
    code = forkserver.call(sys.argv[1:])
    if code is None:
        from eqco.cli import main

        main()
    sys.exit(code)
