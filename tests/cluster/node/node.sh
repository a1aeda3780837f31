#!/usr/bin/env bash
# The node: started by up.sh as process 1 of new mount, network and process namespaces, so that everything it makes
# (mounts, links, firewall rules, containers) ends with it.
set -euo pipefail
. "$(dirname "$0")/env.sh"
cd "$RUN"

# Nothing outside the cache can be written; what Kubernetes keeps under /run, /tmp and /var is this node's own.
mount --bind "$CACHE" "$CACHE"
mount -o remount,bind,ro /
mount --make-rshared /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
for folder in /var/lib /var/log; do mount --bind "$RUN$folder" $folder; done
cd "$RUN" # below the new mount

# kubelet wants these settings, which are the whole machine's: it finds them as it wants them, and changes none.
pretend() { # SETTING VALUE
  echo "$2" >"sysctl/$1"
  mount --bind "sysctl/$1" "/proc/sys/${1//.//}"
}
pretend vm.overcommit_memory 1
pretend vm.panic_on_oom 0
pretend kernel.panic 10
pretend kernel.panic_on_oops 1
pretend kernel.keys.root_maxkeys 1000000
pretend kernel.keys.root_maxbytes 25000000

ip link set lo up
until ip link set eth0 up 2>/dev/null; do sleep 0.1; done # up.sh gives us eth0
ip address add "$NODE_IP/24" dev eth0
ip route add "$SERVICE_CIDR" dev eth0
ip route add unreachable default
echo 1 >/proc/sys/net/ipv4/ip_forward

# The first packet of every connection from or to a pod waits for the verdict of netpol.
iptables-restore -n <<R
*mangle
:NETPOL - [0:0]
-A NETPOL -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
-A NETPOL -s $POD_CIDR -j NFQUEUE --queue-num 100
-A NETPOL -d $POD_CIDR -j NFQUEUE --queue-num 100
-A FORWARD -j NETPOL
-A INPUT -s $POD_CIDR -j NETPOL
COMMIT
R

keep() { # NAME COMMAND...: runs it, and again whenever it ends
  local name=$1
  shift
  while :; do
    "$@" >>"log/$name" 2>&1 &
    echo $! >"pid/$name"
    wait $! || true
    sleep 0.5
  done &
}

clear_containers() { # leaves the images in containerd's store and nothing else
  ctr tasks ls -q | xargs -r ctr tasks rm -f || true # one that ends by itself meanwhile is an error
  ctr containers ls -q | xargs -r ctr containers rm || true
}

stop() {
  kill $(jobs -p)
  if [ -e pid/kubelet ]; then # or it would start containers again
    kill "$(<pid/kubelet)"
    while [ -e "/proc/$(<pid/kubelet)" ]; do sleep 0.05; done
  fi
  clear_containers
  exit 0
} >log/stop 2>&1
trap stop TERM

keep containerd containerd --config containerd.toml
keep etcd etcd --data-dir=etcd --unsafe-no-fsync --log-level=warn
keep apiserver kube-apiserver \
  --advertise-address=$NODE_IP --etcd-servers=http://127.0.0.1:2379 --allow-privileged \
  --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
  --service-cluster-ip-range=$SERVICE_CIDR --kubelet-preferred-address-types=InternalIP \
  --client-ca-file=pki/ca.crt --tls-cert-file=pki/apiserver.crt --tls-private-key-file=pki/apiserver.key \
  --kubelet-client-certificate=pki/admin.crt --kubelet-client-key=pki/admin.key \
  --service-account-issuer=https://kubernetes.default.svc \
  --service-account-key-file=pki/sa.pub --service-account-signing-key-file=pki/sa.key
until ctr version >/dev/null 2>&1; do sleep 0.2; done
if [ -n "$(ctr containers ls -q)" ]; then # of a node that was killed
  clear_containers
  kill "$(<pid/containerd)" # it forgets them only when it starts
fi
until kubectl get --raw /readyz >/dev/null 2>&1; do sleep 0.2; done
keep controller-manager kube-controller-manager --kubeconfig=controller-manager.conf --leader-elect=false \
  --use-service-account-credentials --root-ca-file=pki/ca.crt --service-account-private-key-file=pki/sa.key \
  --cluster-signing-cert-file=pki/ca.crt --cluster-signing-key-file=pki/ca.key
keep scheduler kube-scheduler --kubeconfig=scheduler.conf --leader-elect=false
keep proxy kube-proxy --kubeconfig=proxy.conf --proxy-mode=iptables --hostname-override=node \
  --cluster-cidr=$POD_CIDR --conntrack-max-per-core=0
keep netpol netpol --kubeconfig=admin.conf --node=node --pod-cidr=$POD_CIDR
keep kubelet kubelet --kubeconfig=kubelet.conf --config=kubelet.yaml --hostname-override=node --node-ip=$NODE_IP
wait
