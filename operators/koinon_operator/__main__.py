"""`python -m koinon_operator`: serves the hospitals that the environment names (see `settings`), until SIGTERM.

`… declare FILE` makes the Site what FILE says, `… clean` removes all that the operator made: the chart's jobs.
"""

import logging
import os
import signal
import sys

from koinon.domain.errors import KoinonError
from koinon_operator import declare, settings
from koinon_operator.clean import clean
from koinon_operator.runtime import Operator

_USAGE = "usage: python -m koinon_operator [declare FILE | clean]"


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["declare"]:
        return declare.main(arguments[1:])
    if arguments not in ([], ["clean"]):
        print(_USAGE, file=sys.stderr)
        return 2
    try:
        found = settings.read(os.environ)
        logging.basicConfig(level=found.log_level, format="%(asctime)s %(levelname)s %(message)s")
        for name in ("kopf", "asyncio", "urllib3", "httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.ERROR)
        if arguments:
            clean(found)
            return 0
        operator = Operator(found)
    except KoinonError as error:
        print(f"koinon_operator: {error}", file=sys.stderr)
        return error.exit_code
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: operator.stop())
    return operator.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
