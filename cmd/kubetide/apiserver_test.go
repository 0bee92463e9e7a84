package main

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubetide/kubetide/internal/outbound"
)

func TestTheAPIServerIsKnownByAllItsAddresses(t *testing.T) {
	meta := metav1.ObjectMeta{Namespace: "default", Name: "kubernetes"}
	service := &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{ClusterIPs: []string{"10.96.0.1", "fd00::1"}}}
	slice := &discoveryv1.EndpointSlice{ObjectMeta: meta, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.10"}}, {Addresses: []string{"192.0.2.11"}}}}
	for name, tc := range map[string]struct {
		objects []runtime.Object
		want    []string
	}{
		"the configuration, the environment, the Service, the endpoints": {[]runtime.Object{service, slice},
			[]string{"10.96.0.1", "192.0.2.10", "192.0.2.11", "198.51.100.1", "198.51.100.2", "fd00::1"}},
		"a Service that cannot be read": {[]runtime.Object{slice}, []string{"192.0.2.10", "192.0.2.11", "198.51.100.1", "198.51.100.2"}},
		"endpoints that cannot be read": {[]runtime.Object{service}, []string{"10.96.0.1", "198.51.100.1", "198.51.100.2", "fd00::1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("KUBERNETES_SERVICE_HOST", "198.51.100.2")
			var got []string
			addresses, all := apiServerAddresses(t.Context(), &rest.Config{Host: "https://198.51.100.1:6443"}, fake.NewClientset(tc.objects...), logr.Discard())
			if all != (len(tc.objects) == 2) {
				t.Errorf("all of them: %t", all)
			}
			for _, a := range addresses {
				got = append(got, a.Unmap().String())
			}
			slices.Sort(got)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestTheAPIServersAddressesAreKeptWhileTheyCannotBeRead(t *testing.T) {
	meta := metav1.ObjectMeta{Namespace: "default", Name: "kubernetes"}
	slice := &discoveryv1.EndpointSlice{ObjectMeta: meta, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.10"}}}}
	client := fake.NewClientset(&corev1.Service{ObjectMeta: meta}, slice)
	fails := false
	client.PrependReactor("get", "endpointslices", func(clienttesting.Action) (bool, runtime.Object, error) {
		return fails, nil, errors.New("the API server is being restarted")
	})
	var set outbound.Addresses
	policy := outbound.NewPolicy(nil, &set)
	look := lookForAPIServer(t.Context(), &set, &rest.Config{Host: "https://198.51.100.1:6443"}, client, logr.Discard())
	for _, fails = range []bool{false, true, true} {
		look()
		if policy(netip.MustParseAddrPort("192.0.2.10:6443")) == nil {
			t.Errorf("an HPA may ask the API server's endpoint; it can be read: %t", !fails)
		}
	}
	slice.Endpoints[0].Addresses[0] = "192.0.2.11"
	if err := client.Tracker().Update(discoveryv1.SchemeGroupVersion.WithResource("endpointslices"), slice, "default"); err != nil {
		t.Fatal(err)
	}
	fails = false
	look()
	if err := policy(netip.MustParseAddrPort("192.0.2.10:6443")); err != nil {
		t.Errorf("an address that the API server had: %v", err)
	}
}
