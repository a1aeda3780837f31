#!/usr/bin/env bash
# Container images without a registry.
#   images.sh system           makes the node's own images and imports them
#   images.sh import FILE...   imports docker or OCI archives into the running node, unless it has them
#   images.sh base             makes localhost/koinon-base:test for buildah (Debian with Python, the project's BASE),
#                              and from it PostgreSQL's image
set -euo pipefail
. "$(dirname "$0")/env.sh"

stored() { # NAME CONFIG-DIGEST: whether the node has this very image
  local manifest
  manifest=$(ctr images ls "name==$1" | awk 'NR == 2 { print $3 }')
  [ -n "$manifest" ] && ctr content get "$manifest" | grep -q "$2"
}

# The names by config digest would keep replaced images, and their layers, for ever.
forget_replaced() {
  ctr images ls | awk 'NR > 1 { if ($1 ~ /^sha256:/) old[$1] = $3; else used[$3] }
    END { for (name in old) if (!(old[name] in used)) print name }' | xargs -r ctr images rm --sync >/dev/null
}

import() { # FILE
  local manifest name config
  manifest=$(tar -xOf "$1" manifest.json 2>/dev/null || true) # only docker archives have one
  name=$(grep -o '"RepoTags":\["[^"]*' <<<"$manifest" | cut -d'"' -f4 || true)
  config=$(grep -o '"Config":"[0-9a-f]*' <<<"$manifest" | cut -d'"' -f4 || true)
  [ -z "$name" ] || ! stored "$name" "$config" || return 0
  SECONDS=0
  ctr images import "$1" >/dev/null
  forget_replaced
  echo "imported ${name:-$1}: $SECONDS s"
}

layer() { # NAME TAR-ARGUMENT...: packs a layer, the same bytes each time
  local name=$1
  shift
  tar --create --file="$LAYERS/$name.tar" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner "$@"
}

digest() { # LAYER: counted once
  local tar=$LAYERS/$1.tar
  [ "$tar.sha256" -nt "$tar" ] || sha256sum <"$tar" | cut -d' ' -f1 >"$tar.sha256"
  cat "$tar.sha256"
}

image() { # NAME CONFIG LAYER...: makes a docker archive of layers and imports it
  local name=localhost/$1:1 config=$2 folder sums layers layer
  shift 2
  folder=$(mktemp -d "$CACHE/image.XXXX")
  layers=("${@/%/.tar}")
  sums=$(for layer; do printf '"sha256:%s"\n' "$(digest "$layer")"; done | paste -sd,)
  cat >"$folder/config" <<J
{"os": "linux", "architecture": "$(dpkg --print-architecture)", "config": $config,
 "rootfs": {"type": "layers", "diff_ids": [$sums]}}
J
  config=$(sha256sum "$folder/config" | cut -d' ' -f1)
  mv "$folder/config" "$folder/$config.json"
  cat >"$folder/manifest.json" <<J
[{"Config":"$config.json","RepoTags":["$name"],"Layers":[$(printf '"%s"\n' "${layers[@]}" | paste -sd,)]}]
J
  if ! stored "$name" "$config"; then
    tar -c -C "$folder" manifest.json "$config.json" -C "$LAYERS" "${layers[@]}" | ctr images import - >/dev/null
    forget_replaced
  fi
  rm -r "$folder"
}

busybox() { # the layer: every command, one file
  local root command
  [ ! -e "$LAYERS/busybox.tar" ] || return 0
  root=$(mktemp -d "$CACHE/root.XXXX")
  chmod 755 "$root"
  mkdir -p "$root"/{bin,etc,usr/bin,root}
  mkdir -m 1777 "$root/tmp"
  cp "$DEBIAN/bin/busybox" "$root/bin/"
  for command in $("$root/bin/busybox" --list); do
    [ -e "$root/bin/$command" ] || ln -s busybox "$root/bin/$command"
  done
  echo root:x:0:0::/root:/bin/sh >"$root/etc/passwd"
  layer busybox -C "$root" .
  rm -r "$root"
}

program() { # IMAGE PROGRAM [CONFIG]: busybox with one static program
  local config="\"Entrypoint\":[\"/usr/bin/$2\"],\"Env\":[\"PATH=/usr/bin:/bin\"],\"User\":\"65532:65532\""
  [ "$LAYERS/$1.tar" -nt "$BIN/$2" ] || layer "$1" -C "$BIN" --dereference --transform 's,^,usr/bin/,' "$2"
  image "$1" "{$config}" busybox "$1"
}

base() {
  local name=localhost/koinon-base:test root container mirror suite
  ! buildah inspect --type image $name >/dev/null 2>&1 || return 0
  SECONDS=0
  suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
  mirror=$(apt-get indextargets --format '$(SITE)' "Codename: $suite" 'Component: main' 'Created-By: Packages')
  root=$(mktemp -d "$CACHE/root.XXXX")
  export DEBOOTSTRAP_DIR=$DEBIAN/usr/share/debootstrap
  debootstrap --variant=minbase --include=ca-certificates,python3,wget "$suite" "$root" "${mirror%%$'\n'*}" >/dev/null
  rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/dev/*
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$root" / >/dev/null
  buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --cmd bash "$container"
  buildah commit --quiet --rm "$container" $name >/dev/null
  rm -rf --one-file-system "$root"
  echo "$name: $SECONDS s"
}

postgresql() {
  local draft=$POSTGRESQL.draft name=localhost/postgresql:1
  [ ! "$POSTGRESQL" -nt "$NODE/postgresql/Dockerfile" ] || return 0
  SECONDS=0
  buildah bud --quiet --isolation=chroot --build-arg BASE=localhost/koinon-base:test --tag $name \
    "$NODE/postgresql" >/dev/null
  rm -f "$draft"
  buildah push --quiet $name "docker-archive:$draft:$name"
  mv "$draft" "$POSTGRESQL"
  echo "$name: $SECONDS s"
}

POSTGRESQL=$CACHE/postgresql.tar
LAYERS=$CACHE/layers
mkdir -p "$LAYERS"
case $1 in
system)
  busybox
  image busybox '{"Cmd":["sh"],"Env":["PATH=/usr/bin:/bin"]}' busybox
  image pause '{"Entrypoint":["/bin/sleep","inf"]}' busybox
  program coredns coredns
  program local-path local-path-provisioner
  program kuberay-operator ray-operator
  program minio minio
  program prometheus prometheus
  program prometheus-operator prometheus-operator
  program prometheus-config-reloader prometheus-config-reloader
  [ ! -e "$POSTGRESQL" ] || import "$POSTGRESQL"
  ;;
import)
  shift
  for file; do import "$file"; done
  ;;
base)
  base
  postgresql
  ;;
*)
  sed -n '2,6s/^# *//p' "$0" >&2
  exit 2
  ;;
esac
