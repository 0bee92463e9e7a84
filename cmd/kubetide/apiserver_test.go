package main

import (
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
			for _, a := range apiServerAddresses(t.Context(), &rest.Config{Host: "https://198.51.100.1:6443"}, fake.NewClientset(tc.objects...), logr.Discard()) {
				got = append(got, a.Unmap().String())
			}
			slices.Sort(got)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
