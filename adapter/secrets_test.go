package adapter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/kubetide/kubetide/collectors"
)

func secretObject(name, host string, data map[string]string) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Data: map[string][]byte{}}
	if host != "" {
		s.Annotations = map[string]string{HostAnnotation: host}
	}
	for k, v := range data {
		s.Data[k] = []byte(v)
	}
	return s
}

func TestSecretsAreReadOnlyIfTheyAreMeantForKubetide(t *testing.T) {
	tests := map[string]struct {
		secret *corev1.Secret
		fails  error
		want   collectors.Secret
		err    string
	}{
		"the credentials and their host, and nothing else of it": {secret: secretObject("s", "prom.example.org:9090", map[string]string{"token": "t", "ca.crt": "c", "note": "n"}),
			want: collectors.Secret{Host: "prom.example.org:9090", Data: map[string][]byte{"token": []byte("t"), "ca.crt": []byte("c")}}},
		"one without the annotation is refused": {secret: secretObject("s", "", map[string]string{"token": "t"}),
			err: "the Secret shop/s is not meant for Kubetide: give it the annotation kubetide.io/host with the host, or host:port, that it may be sent to"},
		"a host is no URL":      {secret: secretObject("s", "http://prom", nil), err: "the annotation kubetide.io/host of Secret shop/s: it must be one host"},
		"a host is no wildcard": {secret: secretObject("s", "*.example.org", nil), err: "wildcards"},
		"a missing one":         {secret: secretObject("other", "h", nil), err: "there is no Secret shop/s"},
		"one that may not be read": {fails: apierrors.NewForbidden(corev1.Resource("secrets"), "s", errors.New("no")),
			err: "the Secret shop/s may not be read by Kubetide: bind the ClusterRole kubetide-secrets to its ServiceAccount by a RoleBinding in namespace shop"},
		"an API server that fails": {fails: errors.New("connection refused"), err: "secret shop/s: connection refused"},
		"one that is too large":    {secret: secretObject("s", "h", map[string]string{"ca.crt": strings.Repeat("x", maxSecretBytes+1)}), err: "have more than 262144 bytes"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			client := fake.NewClientset()
			if tt.secret != nil {
				client = fake.NewClientset(tt.secret)
			}
			if tt.fails != nil {
				client.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, tt.fails })
			}
			got, err := newSecrets(client.CoreV1(), clocktesting.NewFakeClock(time.Now())).Secret(t.Context(), "shop", "s")
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				if strings.Contains(fmt.Sprint(err), "secret-value") {
					t.Errorf("the error holds the secret: %v", err)
				}
			} else if err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestSecretsAreCachedForAWhile(t *testing.T) {
	client := fake.NewClientset(secretObject("s", "h", map[string]string{"token": "1"}))
	clock := clocktesting.NewFakeClock(time.Now())
	s := newSecrets(client.CoreV1(), clock)
	want := func(token string, requests int) {
		t.Helper()
		got, err := s.Secret(t.Context(), "shop", "s")
		if string(got.Data["token"]) != token || (token == "") != (err != nil) {
			t.Errorf("token %q, %v; want %q", got.Data["token"], err, token)
		}
		if n := len(client.Actions()); n != requests {
			t.Errorf("%d requests, want %d", n, requests)
		}
	}
	want("1", 1)
	if _, err := client.CoreV1().Secrets("shop").Update(t.Context(), secretObject("s", "h", map[string]string{"token": "2"}), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	clock.Step(secretAge)
	want("1", 2)
	clock.Step(time.Second)
	want("2", 3)
	if err := client.CoreV1().Secrets("shop").Delete(t.Context(), "s", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	clock.Step(secretAge + time.Second)
	want("", 5)
	if _, err := client.CoreV1().Secrets("shop").Create(t.Context(), secretObject("s", "h", map[string]string{"token": "3"}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	clock.Step(failedSecretAge)
	want("", 6)
	clock.Step(time.Second)
	want("3", 7)
}

// An asker that ran out of time must not leave its own error to the others.
func TestAnImpatientAskerLeavesNoError(t *testing.T) {
	client := fake.NewClientset(secretObject("s", "h", map[string]string{"token": "1"}))
	impatient, cancel := context.WithCancel(t.Context())
	asked := 0
	client.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		asked++
		cancel()
		return asked == 1, nil, impatient.Err() // what comes after false does not count
	})
	s := newSecrets(client.CoreV1(), clocktesting.NewFakeClock(time.Now()))
	if _, err := s.Secret(impatient, "shop", "s"); err == nil {
		t.Fatal("no error")
	}
	if _, err := s.Secret(t.Context(), "shop", "s"); err != nil {
		t.Error(err)
	}
}

func TestSecretsInMemoryAreBounded(t *testing.T) {
	client := fake.NewClientset()
	large := bytes.Repeat([]byte("x"), maxSecretBytes)
	client.PrependReactor("get", "secrets", func(a clienttesting.Action) (bool, runtime.Object, error) {
		s := secretObject(a.(clienttesting.GetAction).GetName(), "h", nil)
		if strings.HasPrefix(s.Name, "large") {
			s.Data["ca.crt"] = large
		}
		return true, s, nil
	})
	s := newSecrets(client.CoreV1(), clocktesting.NewFakeClock(time.Now()))
	for i := range 3 * maxSecrets {
		for _, kind := range []string{"small", "large"} {
			if kind == "large" && i > 100 {
				continue
			}
			if _, err := s.Secret(t.Context(), "shop", fmt.Sprintf("%s-%d", kind, i)); err != nil {
				t.Fatal(err)
			}
		}
		held := 0
		for _, k := range s.known {
			held += size(k.secret)
		}
		if len(s.known) > maxSecrets || held > maxSecretsBytes || held != s.bytes {
			t.Fatalf("%d Secrets of %d bytes, counted as %d", len(s.known), held, s.bytes)
		}
	}
}
