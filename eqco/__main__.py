"""``python -m eqco``: the command line."""

import os
import sys

from eqco import forkclient

if __name__ == "__main__":
    address = os.environ.get(forkclient.VARIABLE)
    code = forkclient.call(sys.argv[1:], address) if address else None
    if code is None:
        from eqco.commands.cli import main

        main()
    sys.exit(code)
