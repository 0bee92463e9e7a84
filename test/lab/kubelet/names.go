package kubelet

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// hostname is the pod's host name: what its spec says, else its name, cut to what Linux takes as a label.
func hostname(pod *corev1.Pod) string {
	if pod.Spec.Hostname != "" {
		return pod.Spec.Hostname
	}
	return strings.TrimRight(pod.Name[:min(len(pod.Name), 63)], "-.")
}

// hosts is the pod's /etc/hosts. A pod with a subdomain, as a StatefulSet's, knows its full name.
func hosts(pod *corev1.Pod, domain string, address netip.Addr) string {
	names := hostname(pod)
	if pod.Spec.Subdomain != "" {
		names = fmt.Sprintf("%[1]s.%[2]s.%[3]s.svc.%[4]s\t%[1]s", names, pod.Spec.Subdomain, pod.Namespace, domain)
	}
	return fmt.Sprintf("127.0.0.1\tlocalhost\n%s\t%s\n", address, names)
}

// resolvConf is the pod's /etc/resolv.conf by its DNS policy. A policy that asks for the node's gets an empty one: nothing outside
// can be reached.
func resolvConf(pod *corev1.Pod, domain, nameserver string) string {
	var nameservers, searches, options []string
	if policy := pod.Spec.DNSPolicy; policy != corev1.DNSNone && policy != corev1.DNSDefault {
		nameservers = []string{nameserver}
		searches = []string{pod.Namespace + ".svc." + domain, "svc." + domain, domain}
		options = []string{"ndots:5"}
	}
	if own := pod.Spec.DNSConfig; own != nil {
		nameservers, searches = append(nameservers, own.Nameservers...), append(searches, own.Searches...)
		for _, option := range own.Options {
			options = slices.DeleteFunc(options, func(o string) bool { name, _, _ := strings.Cut(o, ":"); return name == option.Name })
			options = append(options, strings.TrimSuffix(option.Name+":"+ptr.Deref(option.Value, ""), ":"))
		}
	}
	var out strings.Builder
	if len(searches) > 0 {
		fmt.Fprintf(&out, "search %s\n", strings.Join(searches, " "))
	}
	for _, server := range nameservers {
		fmt.Fprintf(&out, "nameserver %s\n", server)
	}
	if len(options) > 0 {
		fmt.Fprintf(&out, "options %s\n", strings.Join(options, " "))
	}
	return out.String()
}
