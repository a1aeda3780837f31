#!/usr/bin/env bash
# Stops what up.sh started and removes its state; programs and images stay in the cache.
set -euo pipefail
. "$(dirname "$0")/env.sh"
[ -e "$RUN" ] || exit 0
if outer=$(cat "$RUN/pid/unshare" 2>/dev/null) && init=$(pgrep -P "$outer" -f "$NODE/node.sh"); then
  kill -TERM "$init"
  for _ in $(seq 100); do
    kill -0 "$outer" 2>/dev/null || break
    sleep 0.2
  done
  kill -KILL "$outer" 2>/dev/null || true # and with it every process of the node
  while [ -e "/proc/$init" ]; do sleep 0.1; done
fi
ip link delete $LINK 2>/dev/null || true
for _ in 1 2 3; do # cgroups of version 1, or of version 2; a dying one may take a moment
  find /sys/fs/cgroup/*/kubepods /sys/fs/cgroup/kubepods -depth -type d -exec rmdir {} + 2>/dev/null || true
done
rm -rf --one-file-system "$RUN"
