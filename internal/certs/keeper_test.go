package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clocktesting "k8s.io/utils/clock/testing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func apiService(name, namespace, service string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
		"metadata": map[string]any{"name": name},
		"spec":     map[string]any{"service": map[string]any{"name": service, "namespace": namespace, "port": int64(443)}},
	}}
}

func webhookConfiguration(services ...string) *unstructured.Unstructured {
	webhooks := []any{}
	for _, service := range services {
		webhooks = append(webhooks, map[string]any{
			"name":         service + ".kb.io",
			"clientConfig": map[string]any{"service": map[string]any{"name": service, "namespace": "kubetide-system"}},
		})
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
		"metadata": map[string]any{"name": "kubetide"}, "webhooks": webhooks,
	}}
}

func fakeDynamic(objects ...runtime.Object) *dynamicfake.FakeDynamicClient {
	return dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
		apiServices: "APIServiceList", mutatingWebhooks: "MutatingWebhookConfigurationList", validatingWebhooks: "ValidatingWebhookConfigurationList",
	}, objects...)
}

func startKeeper(t *testing.T, client kubernetes.Interface, dyn dynamic.Interface, clock *clocktesting.FakeClock) (*Keeper, func()) {
	t.Helper()
	k := NewKeeper(Options{
		Client: client, Dynamic: dyn, Namespace: "kubetide-system", Secret: "kubetide-certs", Services: []string{"kubetide", "kubetide-engine"},
		APIServices: []string{"v1beta1.external.metrics.k8s.io"}, MutatingWebhooks: []string{"kubetide"}, ValidatingWebhooks: []string{"kubetide"},
		Clock: clock, Log: testr.New(t),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- k.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	select {
	case <-k.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("no certificate")
	}
	return k, stop
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func bundleOf(t *testing.T, dyn dynamic.Interface, resource schema.GroupVersionResource, name string) []byte {
	t.Helper()
	obj, err := dyn.Resource(resource).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	holder, _, _ := unstructured.NestedMap(obj.Object, "spec")
	if resource != apiServices {
		webhooks, _, _ := unstructured.NestedSlice(obj.Object, "webhooks")
		holder = webhooks[0].(map[string]any)["clientConfig"].(map[string]any)
	}
	text, _ := holder["caBundle"].(string)
	ca, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// shake makes a TLS connection as kube-apiserver would, and returns why it fails.
func shake(t *testing.T, server *tls.Config, ca []byte, now time.Time) error {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if there, err := listener.Accept(); err == nil {
			defer there.Close()
			_ = tls.Server(there, server).HandshakeContext(t.Context())
		}
	}()
	defer func() { listener.Close(); <-served }()
	here, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	return tls.Client(here, &tls.Config{
		RootCAs: roots, ServerName: "kubetide.kubetide-system.svc", Time: func() time.Time { return now },
	}).HandshakeContext(t.Context())
}

func TestOnAnEmptyClusterTheCertificateAndTheBundlesComeToBe(t *testing.T) {
	client, clock := fake.NewClientset(), clocktesting.NewFakeClock(start)
	validating := webhookConfiguration("kubetide")
	validating.SetKind("ValidatingWebhookConfiguration")
	dyn := fakeDynamic(apiService("v1beta1.external.metrics.k8s.io", "kubetide-system", "kubetide"), webhookConfiguration("kubetide"), validating)
	k, _ := startKeeper(t, client, dyn, clock)
	for _, o := range []struct {
		resource schema.GroupVersionResource
		name     string
	}{{apiServices, "v1beta1.external.metrics.k8s.io"}, {mutatingWebhooks, "kubetide"}, {validatingWebhooks, "kubetide"}} {
		eventually(t, o.name+" has a bundle that the server's certificate is trusted with", func() bool {
			return shake(t, TLSConfig(k), bundleOf(t, dyn, o.resource, o.name), clock.Now()) == nil
		})
	}

	// Somebody applies the manifests again.
	if _, err := dyn.Resource(apiServices).Update(t.Context(), apiService("v1beta1.external.metrics.k8s.io", "kubetide-system", "kubetide"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the bundle is back", func() bool {
		return len(bundleOf(t, dyn, apiServices, "v1beta1.external.metrics.k8s.io")) > 0
	})
}

func TestARotationReachesServerAndBundlesWithoutARestart(t *testing.T) {
	client, clock := fake.NewClientset(), clocktesting.NewFakeClock(start)
	dyn := fakeDynamic(apiService("v1beta1.external.metrics.k8s.io", "kubetide-system", "kubetide"))
	k, _ := startKeeper(t, client, dyn, clock)
	bundle := func() []byte { return bundleOf(t, dyn, apiServices, "v1beta1.external.metrics.k8s.io") }
	eventually(t, "a first bundle", func() bool { return len(bundle()) > 0 })
	config, first := TLSConfig(k), bundle()

	// The keeper looks at least every hour. Each jump lets it see the time once.
	jump := func(to time.Time, what string, condition func() bool) {
		t.Helper()
		eventually(t, what, func() bool {
			if clock.Now().Before(to) {
				clock.SetTime(to)
			} else if clock.HasWaiters() {
				clock.Step(maxWait)
			}
			return condition()
		})
	}
	jump(start.Add(caLife-caRenew), "a second CA in the bundle", func() bool { return len(pemBlocks(bundle())) == 2 })
	if err := shake(t, config, first, clock.Now()); err != nil {
		t.Errorf("the new CA signs before it is published: %v", err)
	}
	jump(start.Add(caLife-caRenew+2*publishDelay), "the second CA signs", func() bool { return shake(t, config, first, clock.Now()) != nil })
	if err := shake(t, config, bundle(), clock.Now()); err != nil {
		t.Error(err)
	}
}

func TestTwoReplicasAgreeOnOneCA(t *testing.T) {
	client, clock := fake.NewClientset(), clocktesting.NewFakeClock(start)
	dyn := fakeDynamic()
	a, _ := startKeeper(t, client, dyn, clock)
	b, _ := startKeeper(t, client, dyn, clock)
	eventually(t, "both serve one certificate", func() bool {
		certA, keyA := a.CurrentCertKeyContent()
		certB, keyB := b.CurrentCertKeyContent()
		return bytes.Equal(certA, certB) && bytes.Equal(keyA, keyB)
	})
}

func TestADeletedSecretIsMadeAgain(t *testing.T) {
	client, clock := fake.NewClientset(), clocktesting.NewFakeClock(start)
	k, _ := startKeeper(t, client, fakeDynamic(), clock)
	before, _ := k.CurrentCertKeyContent()
	if err := client.CoreV1().Secrets("kubetide-system").Delete(t.Context(), "kubetide-certs", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another certificate", func() bool {
		now, _ := k.CurrentCertKeyContent()
		return !bytes.Equal(now, before)
	})
}

func TestAtRestNothingIsWritten(t *testing.T) {
	client, clock := fake.NewClientset(), clocktesting.NewFakeClock(start)
	dyn := fakeDynamic(apiService("v1beta1.external.metrics.k8s.io", "kubetide-system", "kubetide"), webhookConfiguration("kubetide"))
	k, stop := startKeeper(t, client, dyn, clock)
	eventually(t, "both bundles", func() bool {
		return len(bundleOf(t, dyn, apiServices, "v1beta1.external.metrics.k8s.io")) > 0 && len(bundleOf(t, dyn, mutatingWebhooks, "kubetide")) > 0
	})
	eventually(t, "the informers have seen the bundles", func() bool {
		return !slices.ContainsFunc(k.bundles, func(b *bundle) bool {
			obj, exists, _ := b.informer.GetStore().GetByKey(b.name)
			if !exists { // it need not
				return false
			}
			ops, _ := b.patch(obj.(*unstructured.Unstructured).Object, firstCA(t, client))
			return len(ops) > 0
		})
	})
	stop() // from here on the test looks, in the loop's place
	client.ClearActions()
	dyn.ClearActions()
	for range 5 {
		if _, err := k.sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, action := range append(client.Actions(), dyn.Actions()...) {
		if verb := action.GetVerb(); verb != "get" && verb != "list" && verb != "watch" {
			t.Errorf("%s %s", verb, action.GetResource().Resource)
		}
	}
}

func firstCA(t *testing.T, client kubernetes.Interface) []byte {
	t.Helper()
	secret, err := client.CoreV1().Secrets("kubetide-system").Get(t.Context(), "kubetide-certs", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return secret.Data[keyCACerts]
}

func TestOnlyBundlesThatLeadHereAreWritten(t *testing.T) {
	insecure := apiService("a", "kubetide-system", "kubetide")
	_ = unstructured.SetNestedField(insecure.Object, true, "spec", "insecureSkipTLSVerify")
	current := apiService("a", "kubetide-system", "kubetide")
	_ = unstructured.SetNestedField(current.Object, base64.StdEncoding.EncodeToString([]byte("CA")), "spec", "caBundle")
	old := apiService("a", "kubetide-system", "kubetide")
	_ = unstructured.SetNestedField(old.Object, "b2xk", "spec", "caBundle")
	for name, tt := range map[string]struct {
		resource schema.GroupVersionResource
		object   *unstructured.Unstructured
		want     []string
		skipped  string
	}{
		"no bundle yet":                    {apiServices, apiService("a", "kubetide-system", "kubetide"), []string{"/spec/caBundle"}, ""},
		"an old bundle":                    {apiServices, old, []string{"/spec/caBundle"}, ""},
		"the current bundle":               {apiServices, current, nil, ""},
		"the engine's Service":             {apiServices, apiService("a", "kubetide-system", "kubetide-engine"), []string{"/spec/caBundle"}, ""},
		"another adapter's Service":        {apiServices, apiService("a", "monitoring", "prometheus-adapter"), nil, "it leads to the service monitoring/prometheus-adapter"},
		"a user who wants no verification": {apiServices, insecure, nil, "insecureSkipTLSVerify is set"},
		"two webhooks of ours, one not": {mutatingWebhooks, webhookConfiguration("kubetide", "other", "kubetide"),
			[]string{"/webhooks/0/clientConfig/caBundle", "/webhooks/2/clientConfig/caBundle"}, "it leads to the service kubetide-system/other"},
		"a configuration without webhooks": {mutatingWebhooks, webhookConfiguration(), nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := &bundle{keeper: &Keeper{Options: Options{Namespace: "kubetide-system", Services: []string{"kubetide", "kubetide-engine"}}}, resource: tt.resource}
			ops, skipped := b.patch(tt.object.Object, []byte("CA"))
			var got []string
			for _, op := range ops {
				got = append(got, op.Path)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || skipped != tt.skipped {
				t.Errorf("skipped %q, paths (-want +got):\n%s", skipped, diff)
			}
		})
	}
}

func TestFilesAreFollowed(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	write := func() []byte {
		s, _, _, err := plan(state{}, names, start)
		if err != nil {
			t.Fatal(err)
		}
		data, err := s.encode()
		if err != nil {
			t.Fatal(err)
		}
		for file, content := range map[string][]byte{certFile: data[keyCert], keyFile: data[keyKey]} {
			if err := os.WriteFile(file+".new", content, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(file+".new", file); err != nil {
				t.Fatal(err)
			}
		}
		return data[keyCACerts]
	}
	if _, err := NewFiles(certFile, keyFile); err == nil {
		t.Error("missing files are no error")
	}
	ca := write()
	files, err := NewFiles(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- files.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	config := TLSConfig(files)
	if err := shake(t, config, ca, start); err != nil {
		t.Error(err)
	}
	ca = write()
	eventually(t, "the new certificate is served", func() bool { return shake(t, config, ca, start) == nil })
}
