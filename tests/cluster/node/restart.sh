#!/usr/bin/env bash
# Kills a part of the running node, which comes back by itself:
#   restart.sh kubelet|containerd|etcd|apiserver|controller-manager|scheduler|proxy|netpol
set -euo pipefail
. "$(dirname "$0")/env.sh"
init=$(pgrep -P "$(<"$RUN/pid/unshare")")
nsenter --target "$init" --pid --mount kill -KILL "$(<"$RUN/pid/$1")"
