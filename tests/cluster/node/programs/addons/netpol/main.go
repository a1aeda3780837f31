// Command netpol enforces NetworkPolicies on this node.
//
// The verdicts are those of sigs.k8s.io/kube-network-policies. Its own datapath needs
// nftables queues and conntrack labels set through them, which kernels without
// CONFIG_NFT_QUEUE and CONFIG_NETFILTER_NETLINK_GLUE_CT lack; here iptables sends the
// first packet of every connection from or to a pod to an NFQUEUE (see node.sh).
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/florianl/go-nfqueue/v2"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/kube-network-policies/pkg/api"
	"sigs.k8s.io/kube-network-policies/pkg/network"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
	"sigs.k8s.io/kube-network-policies/pkg/podinfo"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "path of the kubeconfig")
	node := flag.String("node", "", "name of this node")
	podCIDR := flag.String("pod-cidr", "", "addresses of the pods")
	queue := flag.Uint("queue", 100, "number of the NFQUEUE")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	_, pods, err := net.ParseCIDR(*podCIDR)
	if err != nil {
		log.Fatal(err)
	}
	judge, err := newJudge(ctx, *kubeconfig, *node, pods)
	if err != nil {
		log.Fatal(err)
	}
	if err := serve(ctx, uint16(*queue), judge); err != nil {
		log.Fatal(err)
	}
}

// A judge knows the cluster's pods and policies.
type judge struct {
	pods   *net.IPNet
	info   api.PodInfoProvider
	engine *networkpolicy.PolicyEngine
}

// newJudge returns once all pods, namespaces and policies are known.
func newJudge(ctx context.Context, kubeconfig, node string, pods *net.IPNet) (*judge, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	podInformer := factory.Core().V1().Pods()
	namespaces := factory.Core().V1().Namespaces()
	policies := factory.Networking().V1().NetworkPolicies()
	resolver, err := podinfo.NewInformerResolver(podInformer.Informer())
	if err != nil {
		return nil, err
	}
	info := podinfo.NewInformerProvider(podInformer, namespaces, nil, []podinfo.IPResolver{resolver})
	engine := networkpolicy.NewPolicyEngine(info, []api.PolicyEvaluator{
		networkpolicy.NewStandardNetworkPolicy(node, namespaces, podInformer, policies),
	})
	engine.SetDataplaneSyncCallbacks(func() {})
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	return &judge{pods, info, engine}, nil
}

func (j *judge) knows(ip net.IP) bool {
	if !j.pods.Contains(ip) {
		return true
	}
	_, known := j.info.GetPodInfoByIP(ip.String())
	return known
}

// A pod's address is in the API only after its containers were started. Until then its
// packets wait, so that no policy is escaped at start; in the end they are dropped.
func (j *judge) allows(ctx context.Context, packet *network.Packet) bool {
	for end := time.Now().Add(5 * time.Second); !j.knows(packet.SrcIP) || !j.knows(packet.DstIP); {
		if ctx.Err() != nil || time.Now().After(end) {
			return false
		}
		time.Sleep(20 * time.Millisecond)
	}
	ok, err := j.engine.EvaluatePacket(ctx, packet)
	return ok && err == nil
}

// serve judges the packets of the queue until the context ends.
func serve(ctx context.Context, queue uint16, j *judge) error {
	q, err := nfqueue.Open(&nfqueue.Config{
		NfQueue: queue, MaxPacketLen: 128, MaxQueueLen: 1024,
		Copymode: nfqueue.NfQnlCopyPacket, Flags: nfqueue.NfQaCfgFlagGSO,
	})
	if err != nil {
		return err
	}
	defer q.Close()
	var sending sync.Mutex
	decide := func(id uint32, allowed bool) {
		verdict := nfqueue.NfDrop
		if allowed {
			verdict = nfqueue.NfAccept
		}
		sending.Lock()
		defer sending.Unlock()
		if err := q.SetVerdict(id, verdict); err != nil {
			log.Print(err)
		}
	}
	arrived := func(a nfqueue.Attribute) int {
		packet, err := network.ParsePacket(*a.Payload)
		if err != nil {
			decide(*a.PacketID, false)
			return 0
		}
		go func() { decide(*a.PacketID, j.allows(ctx, &packet)) }()
		return 0
	}
	failed := func(err error) int {
		if ctx.Err() == nil {
			log.Print(err)
		}
		return 0
	}
	if err := q.RegisterWithErrorFunc(ctx, arrived, failed); err != nil {
		return err
	}
	log.Print("enforcing network policies")
	<-ctx.Done()
	return nil
}
