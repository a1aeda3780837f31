#!/usr/bin/env bash
# Starts a single-node Kubernetes and returns when DNS, storage, network policies and KubeRay are ready. Needs what
# build.sh makes; what cannot start says so in $RUN/log.
set -euo pipefail
. "$(dirname "$0")/env.sh"
[ "$(id -u)" = 0 ] || { echo "the node needs root" >&2; exit 1; }
if kubectl get --raw /readyz >/dev/null 2>&1; then
  echo "the node is up: export KUBECONFIG=$KUBECONFIG"
  exit 0
fi
if [ -z "$(ip -4 address show dev $LINK 2>/dev/null)" ] && [ -n "$(ip -4 address show to $NODE_IP/24)" ]; then
  echo "this machine uses $NODE_IP/24 already, which the node would take" >&2
  exit 1
fi
[ ! -e "$RUN" ] || "$NODE/down.sh" # of a node that was killed
mkdir -p "$RUN"/{pki,log,pid,cni,sysctl,var/lib,var/log} "$CACHE/containerd"
trap '[ $? = 0 ] || echo "the node did not start: see $RUN/log" >&2' EXIT
cd "$RUN"

key() { openssl ecparam -genkey -name prime256v1 -noout -out "pki/$1.key"; }
certificate() { # NAME SUBJECT [EXTENSION...]
  local name=$1 subject=$2
  shift 2
  key "$name"
  openssl req -new -key "pki/$name.key" -subj "$subject" |
    openssl x509 -req -CA pki/ca.crt -CAkey pki/ca.key -days 30 -out "pki/$name.crt" \
      -extfile <(printf '%s\n' "keyUsage=digitalSignature" "$@") 2>/dev/null
}
kubeconfig() { # NAME SUBJECT: with a client certificate of its own
  certificate "$1" "$2" extendedKeyUsage=clientAuth
  cat >"$1.conf" <<Y
apiVersion: v1
kind: Config
current-context: koinon
clusters: [{name: koinon, cluster: {server: "https://$NODE_IP:6443", certificate-authority: "$RUN/pki/ca.crt"}}]
users: [{name: $1, user: {client-certificate: "$RUN/pki/$1.crt", client-key: "$RUN/pki/$1.key"}}]
contexts: [{name: koinon, context: {cluster: koinon, user: $1}}]
Y
}
key ca
openssl req -x509 -new -key pki/ca.key -subj /CN=koinon-test-node -days 30 -out pki/ca.crt
key sa
openssl ec -in pki/sa.key -pubout -out pki/sa.pub 2>/dev/null
service=kubernetes.default.svc
certificate apiserver /CN=kube-apiserver extendedKeyUsage=serverAuth \
  "subjectAltName=DNS:kubernetes,DNS:kubernetes.default,DNS:$service,DNS:$service.cluster.local,IP:$API_IP,IP:$NODE_IP"
kubeconfig admin /O=system:masters/CN=admin
kubeconfig controller-manager /CN=system:kube-controller-manager
kubeconfig scheduler /CN=system:kube-scheduler
kubeconfig proxy /CN=system:kube-proxy
kubeconfig kubelet /O=system:nodes/CN=system:node:node

cat >containerd.toml <<T
version = 2
root = "$CACHE/containerd"
state = "/run/containerd"
[grpc]
  address = "$CONTAINERD_ADDRESS"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd-opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_apparmor = true       # a loaded profile would outlive the node
  restrict_oom_score_adj = true # a root without CAP_SYS_RESOURCE may not lower it
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$DEBIAN/usr/lib/cni"
    conf_dir = "$RUN/cni"
T
cat >cni/10-pods.conflist <<J
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "ptp", "ipam": {"type": "host-local", "subnet": "$POD_CIDR", "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
J
: >resolv.conf # no names but the cluster's own
cat >kubelet.yaml <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {x509: {clientCAFile: "$RUN/pki/ca.crt"}}
containerRuntimeEndpoint: unix://$CONTAINERD_ADDRESS
clusterDNS: ["$DNS_IP"]
clusterDomain: cluster.local
resolvConf: $RUN/resolv.conf
volumePluginDir: /var/lib/kubelet/volume-plugins
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
maxPods: 250
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
Y

(
  for file in /proc/self/fd/*; do # a lock held by whoever called would stay held
    [ "${file##*/}" -le 2 ] || eval "exec ${file##*/}>&-"
  done
  exec setsid unshare --mount --net --pid --fork --kill-child --mount-proc "$NODE/node.sh" >log/node 2>&1 </dev/null
) &
echo $! >pid/unshare
until init=$(pgrep -P "$(<pid/unshare)"); do
  kill -0 "$(<pid/unshare)" || exit 1
  sleep 0.05
done
ip link add $LINK type veth peer name eth0 netns "$init"
ip address add $HOST_IP/24 dev $LINK
ip link set $LINK up
ip route add $SERVICE_CIDR via $NODE_IP
ip route add $POD_CIDR via $NODE_IP

wait_for() { # SECONDS COMMAND...
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "timed out: $*" >&2; exit 1; }
    sleep 0.2
  done
}
wait_for 30 ctr version
"$NODE/images.sh" system
wait_for 60 kubectl get serviceaccount default
kubectl apply --server-side -f "$CACHE/crds" >/dev/null
kubectl apply -f "$NODE/../../../charts/koinon-site/files/kuberay.yaml" -f "$NODE/manifests" >/dev/null
wait_for 60 kubectl get node node
kubectl wait --for=condition=Ready node/node --timeout=60s
for deployment in kube-system/coredns kube-system/local-path-provisioner kuberay-system/kuberay-operator; do
  kubectl -n ${deployment%/*} rollout status deployment/${deployment#*/} --timeout=60s
done
echo "export KUBECONFIG=$KUBECONFIG"
