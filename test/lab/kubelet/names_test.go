package kubelet

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestAPodsFilesOfNames(t *testing.T) {
	const cluster = "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 192.0.2.11\noptions ndots:5\n"
	long := strings.Repeat("a", 62) + "-bc"
	for sentence, c := range map[string]struct {
		name                     string
		spec                     corev1.PodSpec
		hostname, hosts, resolve string
	}{
		"a plain pod has its name and the cluster's DNS": {
			name: "cart", spec: corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst},
			hostname: "cart", hosts: "10.245.0.1\tcart\n", resolve: cluster,
		},
		"a StatefulSet's pod knows its full name": {
			name: "cart-0", spec: corev1.PodSpec{Hostname: "cart-0", Subdomain: "carts"},
			hostname: "cart-0", hosts: "10.245.0.1\tcart-0.carts.shop.svc.cluster.local\tcart-0\n", resolve: cluster,
		},
		"a name longer than a label is cut": {
			name: long, hostname: long[:62], hosts: "10.245.0.1\t" + long[:62] + "\n", resolve: cluster,
		},
		"own settings come after the cluster's and replace options": {
			name: "cart",
			spec: corev1.PodSpec{DNSConfig: &corev1.PodDNSConfig{
				Nameservers: []string{"192.0.2.99"}, Searches: []string{"example.org"},
				Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr.To("2")}, {Name: "edns0"}},
			}},
			hostname: "cart", hosts: "10.245.0.1\tcart\n",
			resolve: "search shop.svc.cluster.local svc.cluster.local cluster.local example.org\n" +
				"nameserver 192.0.2.11\nnameserver 192.0.2.99\noptions ndots:2 edns0\n",
		},
		"the policy None has own settings only": {
			name:     "cart",
			spec:     corev1.PodSpec{DNSPolicy: corev1.DNSNone, DNSConfig: &corev1.PodDNSConfig{Nameservers: []string{"192.0.2.99"}}},
			hostname: "cart", hosts: "10.245.0.1\tcart\n", resolve: "nameserver 192.0.2.99\n",
		},
		"the policy Default has nothing": {
			name: "cart", spec: corev1.PodSpec{DNSPolicy: corev1.DNSDefault}, hostname: "cart", hosts: "10.245.0.1\tcart\n",
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: c.name}, Spec: c.spec}
			got := []string{hostname(pod), hosts(pod, "cluster.local", netip.MustParseAddr("10.245.0.1")), resolvConf(pod, "cluster.local", "192.0.2.11")}
			want := []string{c.hostname, "127.0.0.1\tlocalhost\n" + c.hosts, c.resolve}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
