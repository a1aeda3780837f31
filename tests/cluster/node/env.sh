# Sourced by the scripts beside it, and by whoever uses the node from a shell: where things are, which addresses.
NODE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/koinon/cluster # programs and images: kept between nodes
RUN=$CACHE/run                                        # one node's state: down.sh removes it
BIN=$CACHE/bin
DEBIAN=$CACHE/debian # packages, unpacked and not installed: no daemon starts, nothing that is there is replaced

LINK=koinon0
NODE_IP=198.51.100.1 # TEST-NET-2: the node, in a network namespace of its own
HOST_IP=198.51.100.2 # this machine's end of the link to it
POD_CIDR=10.244.0.0/16
SERVICE_CIDR=10.96.0.0/16
API_IP=10.96.0.1
DNS_IP=10.96.0.10

export PATH=$BIN:$DEBIAN/usr/bin:$DEBIAN/usr/sbin:$PATH:/usr/sbin:/sbin
export CONTAINERD_ADDRESS=$RUN/containerd.sock CONTAINERD_NAMESPACE=k8s.io
export CONTAINERS_STORAGE_CONF=$CACHE/storage.conf # buildah's images, too, stay in the cache
export KUBECONFIG=$RUN/admin.conf KUBECACHEDIR=$CACHE/kubectl
export HELM_CACHE_HOME=$CACHE/helm/cache HELM_CONFIG_HOME=$CACHE/helm/config HELM_DATA_HOME=$CACHE/helm/data
