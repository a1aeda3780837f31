"""Builds images and imports them into the node.   python -m tests.cluster.oci [--build-only] [TARGET...]"""

import argparse
import time

from tests.cluster.oci import builder, node

parser = argparse.ArgumentParser(prog="tests.cluster.oci", description=__doc__)
parser.add_argument("--build-only", action="store_true", help="import nothing")
parser.add_argument(
    "targets", nargs="*", metavar="TARGET", help=f"of {', '.join(builder.TARGETS)}; all if none is named"
)
options = parser.parse_args()

for target in options.targets or builder.TARGETS:
    start = time.monotonic()
    built = builder.build(target)
    middle = time.monotonic()
    loaded = not options.build_only and node.load(builder.name(target))
    end = time.monotonic()
    size = builder.layout().image(builder.name(target)).size / 1e6
    done = f"{'built' if built else 'unchanged'} {middle - start:.1f} s"
    if not options.build_only:
        done += f", {'imported' if loaded else 'in the node'} {end - middle:.1f} s"
    print(f"{target}: {done}, {size:.0f} MB", flush=True)
