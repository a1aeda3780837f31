#!/usr/bin/env bash
# Installs what the node needs from Debian and builds its programs from their Go modules, into the cache.
#   build.sh [GROUP...]   all groups of programs/, or those named; what is up to date is skipped
set -euo pipefail
. "$(dirname "$0")/env.sh"
mkdir -p "$BIN" "$DEBIAN" "$CACHE/crds"
exec 9>"$CACHE/build.lock"
flock 9

missing() { # PREFIX PROGRAM=PACKAGE...: the packages of the programs that are not here
  local prefix=$1 pair
  shift
  for pair; do command -v "$prefix${pair%%=*}" >/dev/null || echo "${pair#*=}"; done
}

unpack() { # PACKAGE...: downloads and extracts packages without installing them
  local packages
  packages=$(mktemp -d "$CACHE/packages.XXXX")
  (cd "$packages" && apt-get -qq -o APT::Sandbox::User=root download "$@")
  for package in "$packages"/*.deb; do dpkg --extract "$package" "$DEBIAN"; done
  rm -r "$packages"
}

packages() {
  local installed unpacked
  installed=($(missing "" iptables=iptables ip=iproute2 pgrep=procps openssl=openssl wget=wget buildah=buildah))
  unpacked=($(missing "$DEBIAN/" usr/bin/containerd=containerd usr/sbin/runc=runc bin/busybox=busybox-static \
    usr/lib/cni/ptp=containernetworking-plugins usr/sbin/debootstrap=debootstrap))
  [ $((${#installed[@]} + ${#unpacked[@]})) -gt 0 ] || return 0
  command -v apt-get >/dev/null || { echo "no apt-get here to install ${installed[*]} ${unpacked[*]}" >&2; exit 1; }
  [ "$(id -u)" = 0 ] || { echo "only root can install ${installed[*]} ${unpacked[*]}" >&2; exit 1; }
  SECONDS=0
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update
  [ ${#installed[@]} = 0 ] || apt-get -qq install --no-install-recommends --no-remove "${installed[@]}" >/dev/null
  [ ${#unpacked[@]} = 0 ] || unpack "${unpacked[@]}"
  echo "debian packages: $SECONDS s"
}

version_flags() { # without them KubeRay and Helm cannot parse the server's version
  local version minor package
  version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
  minor=${version#v1.}
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    printf ' -X %s.gitVersion=%s -X %s.gitMajor=1 -X %s.gitMinor=%s' \
      $package "$version" $package $package "${minor%%.*}"
  done
}

crds() { # MODULE FOLDER: keeps the resource definitions that the module brings
  cp --no-preserve=mode "$(go list -m -f '{{.Dir}}' "$1")/$2"/*.yaml "$CACHE/crds/"
}

programs() { # GROUP
  local name=$1 stamp=$BIN/.$1 sum flags="-s -w"
  local tags=remove_all_sd,enable_kubernetes_sd # Prometheus without the clients of two dozen clouds
  cd "$NODE/programs/$name"
  sum=$(find . -type f -print0 | sort -z | xargs -0 cat | sha256sum)
  [ "$sum" != "$(cat "$stamp" 2>/dev/null)" ] || return 0
  SECONDS=0
  [ "$name" != kubernetes ] || flags+=$(version_flags)
  GOBIN=$BIN CGO_ENABLED=0 GOFLAGS=-mod=readonly go install -trimpath -buildvcs=false -tags "$tags" \
    -ldflags "$flags" tool $(find . -name main.go -printf '%h ')
  case $name in
  kubernetes) mv "$BIN/server" "$BIN/etcd" ;;
  kuberay) crds github.com/ray-project/kuberay/ray-operator config/crd/bases ;;
  addons)
    mv "$BIN/operator" "$BIN/prometheus-operator"
    crds github.com/prometheus-operator/prometheus-operator example/prometheus-operator-crd
    ;;
  esac
  echo "$sum" >"$stamp"
  echo "$name: $SECONDS s"
}

storage() { # buildah's, without its mount on itself that would stay behind
  cat >"$CONTAINERS_STORAGE_CONF" <<T
[storage]
driver = "overlay"
graphroot = "$CACHE/buildah"
runroot = "$CACHE/buildah-run"
[storage.options.overlay]
skip_mount_home = "true"
T
}

minio() { # that of the services' tests: one build, one program
  local program
  rm -f "$BIN/minio"
  program=$(cd "$NODE/../../.." && python3 -c 'from tests.services.minio_program import program; print(program())')
  ln -s "$program" "$BIN/minio"
}

command -v go >/dev/null || { echo "Go 1.26 must be on the PATH, to build the node's programs" >&2; exit 1; }
[ $# -gt 0 ] || packages
storage
groups=("$@")
[ ${#groups[@]} -gt 0 ] || groups=(minio $(ls "$NODE/programs"))
for group in "${groups[@]}"; do
  if [ "$group" = minio ]; then minio; else programs "$group"; fi
done
