package adapter

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/utils/clock"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/outbound"
)

const (
	// HostAnnotation marks a Secret as meant for Kubetide, and names the only host or host:port that it may be sent to.
	HostAnnotation = "kubetide.io/host"
	// SecretsRole is the ClusterRole that a namespace binds to Kubetide's ServiceAccount to let it read its Secrets.
	SecretsRole = "kubetide-secrets"

	secretAge       = 30 * time.Second
	failedSecretAge = 10 * time.Second
	maxSecrets      = 1000
	maxSecretBytes  = 256 << 10 // of one
	maxSecretsBytes = 8 << 20   // of all
)

// secrets implements collectors.Secrets. It keeps only the keys that are credentials, and asks for one Secret only once at a
// time.
type secrets struct {
	client typedcorev1.SecretsGetter
	clock  clock.PassiveClock

	mu    sync.Mutex // protects known and bytes
	known map[types.NamespacedName]*knownSecret
	bytes int
}

type knownSecret struct {
	turn   chan struct{} // holds one token while somebody reads or fills the rest
	at     time.Time
	secret collectors.Secret
	err    error
}

func newSecrets(client typedcorev1.SecretsGetter, clock clock.PassiveClock) *secrets {
	return &secrets{client: client, clock: clock, known: map[types.NamespacedName]*knownSecret{}}
}

// Secret implements collectors.Secrets.
func (s *secrets) Secret(ctx context.Context, namespace, name string) (collectors.Secret, error) {
	key := types.NamespacedName{Namespace: namespace, Name: name}
	k := s.entry(key)
	select {
	case k.turn <- struct{}{}:
	case <-ctx.Done():
		return collectors.Secret{}, ctx.Err()
	}
	defer func() { <-k.turn }()
	age := secretAge
	if k.err != nil {
		age = failedSecretAge
	}
	if k.at.IsZero() || s.clock.Since(k.at) > age {
		before := size(k.secret)
		k.secret, k.err = s.read(ctx, key)
		k.at = s.clock.Now()
		if ctx.Err() != nil {
			k.at = time.Time{} // the asker ran out of time; that says nothing about the Secret
		}
		s.count(key, k, size(k.secret)-before)
	}
	return k.secret, k.err
}

func (s *secrets) entry(key types.NamespacedName) *knownSecret {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.known[key]; k != nil {
		return k
	}
	if len(s.known) >= maxSecrets {
		s.forget()
	}
	k := &knownSecret{turn: make(chan struct{}, 1)}
	s.known[key] = k
	return k
}

// count forgets all when there is too much of it.
func (s *secrets) count(key types.NamespacedName, k *knownSecret, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known[key] != k {
		return // forgotten meanwhile
	}
	if s.bytes += bytes; s.bytes > maxSecretsBytes {
		s.forget()
	}
}

func (s *secrets) forget() {
	clear(s.known)
	s.bytes = 0
}

func size(s collectors.Secret) int {
	bytes := 0
	for _, value := range s.Data {
		bytes += len(value)
	}
	return bytes
}

func (s *secrets) read(ctx context.Context, key types.NamespacedName) (collectors.Secret, error) {
	secret, err := s.client.Secrets(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsForbidden(err):
		return collectors.Secret{}, fmt.Errorf("the Secret %s may not be read by Kubetide: "+
			"bind the ClusterRole %s to its ServiceAccount by a RoleBinding in namespace %s", key, SecretsRole, key.Namespace)
	case apierrors.IsNotFound(err):
		return collectors.Secret{}, fmt.Errorf("there is no Secret %s", key)
	case err != nil:
		return collectors.Secret{}, fmt.Errorf("secret %s: %w", key, err)
	}
	host := secret.Annotations[HostAnnotation]
	if host == "" {
		return collectors.Secret{}, fmt.Errorf("the Secret %s is not meant for Kubetide: give it the annotation %s with the host, or host:port, "+
			"that it may be sent to", key, HostAnnotation)
	}
	if err := checkHost(host); err != nil {
		return collectors.Secret{}, fmt.Errorf("the annotation %s of Secret %s: %w", HostAnnotation, key, err)
	}
	out := collectors.Secret{Host: host, Data: map[string][]byte{}}
	for _, name := range []string{outbound.KeyToken, outbound.KeyUsername, outbound.KeyPassword, outbound.KeyCA, outbound.KeyCert, outbound.KeyKey} {
		if value, ok := secret.Data[name]; ok {
			out.Data[name] = value
		}
	}
	if size(out) > maxSecretBytes {
		return collectors.Secret{}, fmt.Errorf("the credentials in Secret %s have more than %d bytes", key, maxSecretBytes)
	}
	return out, nil
}

func checkHost(host string) error {
	if len(host) > 300 || strings.ContainsAny(host, "/@?#, *") {
		return errors.New("it must be one host, or host:port, without a scheme, a path or wildcards")
	}
	return nil
}
