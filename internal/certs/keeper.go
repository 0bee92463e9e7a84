package certs

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
)

const fieldManager = "kubetide"

// maxWait bounds the time between two looks, so that a clock that was set is noticed.
const maxWait = time.Hour

// Options say what a Keeper keeps.
type Options struct {
	Client  kubernetes.Interface
	Dynamic dynamic.Interface
	// Namespace and Secret name the Secret with the CA and the serving certificate.
	Namespace, Secret string
	// Services are the names of the Services in front of the servers that share the Secret, in the same namespace. The certificate is made out
	// to all of them, and only bundles of what leads to one of them are written.
	Services []string
	// APIServices, MutatingWebhooks and ValidatingWebhooks are the names of the objects whose bundles are kept. They need not exist.
	APIServices, MutatingWebhooks, ValidatingWebhooks []string
	Clock                                             clock.Clock
	Log                                               logr.Logger
}

// Keeper is the serving certificate as a dynamiccertificates.CertKeyContentProvider, and what keeps it. All replicas run
// one: whoever sees first that something is due writes it, and the others follow the Secret.
type Keeper struct {
	Options
	names   []string
	ready   chan struct{}
	secrets cache.SharedIndexInformer
	bundles []*bundle
	wake    chan struct{}

	// mu protects what follows.
	mu            sync.RWMutex
	cert, key, ca []byte
	listeners     []dynamiccertificates.Listener
}

var _ dynamiccertificates.CertKeyContentProvider = (*Keeper)(nil)

// NewKeeper does no I/O.
func NewKeeper(o Options) *Keeper {
	k := &Keeper{Options: o, ready: make(chan struct{}), wake: make(chan struct{}, 1)}
	for _, service := range o.Services {
		host := service + "." + o.Namespace
		k.names = append(k.names, host+".svc", host, service)
	}
	named := func(name string) func(*metav1.ListOptions) {
		return func(lo *metav1.ListOptions) {
			lo.FieldSelector = fields.OneTermEqualSelector("metadata.name", name).String()
		}
	}
	k.secrets = informers.NewSharedInformerFactoryWithOptions(o.Client, 0, informers.WithNamespace(o.Namespace),
		informers.WithTweakListOptions(named(o.Secret))).Core().V1().Secrets().Informer()
	for _, name := range o.APIServices {
		k.bundles = append(k.bundles, newBundle(k, apiServices, name, named(name)))
	}
	for _, name := range o.MutatingWebhooks {
		k.bundles = append(k.bundles, newBundle(k, mutatingWebhooks, name, named(name)))
	}
	for _, name := range o.ValidatingWebhooks {
		k.bundles = append(k.bundles, newBundle(k, validatingWebhooks, name, named(name)))
	}
	return k
}

// Name implements dynamiccertificates.CertKeyContentProvider.
func (k *Keeper) Name() string { return "secret " + k.Namespace + "/" + k.Secret }

// CurrentCertKeyContent implements dynamiccertificates.CertKeyContentProvider. It is empty until Ready.
func (k *Keeper) CurrentCertKeyContent() ([]byte, []byte) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.cert, k.key
}

// CurrentCABundleContent implements CA. It is empty until Ready.
func (k *Keeper) CurrentCABundleContent() []byte {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.ca
}

// AddListener implements dynamiccertificates.CertKeyContentProvider.
func (k *Keeper) AddListener(l dynamiccertificates.Listener) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.listeners = append(k.listeners, l)
}

// Ready is closed once there is a serving certificate.
func (k *Keeper) Ready() <-chan struct{} { return k.ready }

// Run keeps the certificates until ctx ends. What fails is logged and tried again.
func (k *Keeper) Run(ctx context.Context) error {
	notify := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { k.notify() },
		UpdateFunc: func(_, _ any) { k.notify() },
		DeleteFunc: func(any) { k.notify() },
	}
	watched := []cache.SharedIndexInformer{k.secrets}
	for _, b := range k.bundles {
		watched = append(watched, b.informer)
	}
	var running sync.WaitGroup
	defer running.Wait()
	for _, informer := range watched {
		if _, err := informer.AddEventHandler(notify); err != nil {
			return err
		}
		running.Go(func() { informer.RunWithContext(ctx) })
	}
	if !cache.WaitForCacheSync(ctx.Done(), k.secrets.HasSynced) {
		return nil
	}
	for failures := 0; ; {
		next, err := k.sync(ctx)
		wait := min(next.Sub(k.Clock.Now()), maxWait)
		switch {
		case ctx.Err() != nil:
			return nil
		case apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err):
			// Another replica was faster, and the informer is about to tell.
			wait = time.Second
		case err != nil:
			failures++
			wait = min(time.Second<<min(failures, 6), time.Minute)
			k.Log.Error(err, "Certificates could not be kept", "retryAfter", wait)
		default:
			failures = 0
		}
		timer := k.Clock.NewTimer(max(wait, 0))
		select {
		case <-ctx.Done():
		case <-timer.C():
		case <-k.wake:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

func (k *Keeper) notify() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// sync brings the Secret, the served certificate and the bundles to where they should be.
func (k *Keeper) sync(ctx context.Context) (time.Time, error) {
	var secret *corev1.Secret
	if obj, exists, _ := k.secrets.GetStore().GetByKey(k.Namespace + "/" + k.Secret); exists {
		secret = obj.(*corev1.Secret)
	}
	var stored state
	if secret != nil {
		stored = decode(secret.Data)
	}
	want, reasons, next, err := plan(stored, k.names, k.Clock.Now())
	if err != nil {
		return next, err
	}
	if len(reasons) > 0 {
		if secret, err = k.write(ctx, secret, want); err != nil {
			return next, fmt.Errorf("secret %s/%s: %w", k.Namespace, k.Secret, err)
		}
		k.Log.Info("Certificates renewed", "because", reasons)
	}
	k.serve(secret.Data[keyCert], secret.Data[keyKey], secret.Data[keyCACerts])
	for _, b := range k.bundles {
		if bundleErr := b.sync(ctx, secret); bundleErr != nil && err == nil {
			err = bundleErr // the others still get theirs
		}
	}
	return next, err
}

func (k *Keeper) write(ctx context.Context, secret *corev1.Secret, s state) (*corev1.Secret, error) {
	data, err := s.encode()
	if err != nil {
		return nil, err
	}
	secrets := k.Client.CoreV1().Secrets(k.Namespace)
	if secret == nil {
		return secrets.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: k.Namespace, Name: k.Secret,
				Labels: map[string]string{"app.kubernetes.io/name": "kubetide", "app.kubernetes.io/managed-by": "kubetide"},
			},
			Data: data,
		}, metav1.CreateOptions{FieldManager: fieldManager})
	}
	// The resourceVersion makes this fail where another replica wrote since.
	secret = secret.DeepCopy()
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	maps.Copy(secret.Data, data)
	return secrets.Update(ctx, secret, metav1.UpdateOptions{FieldManager: fieldManager})
}

func (k *Keeper) serve(cert, key, ca []byte) {
	k.mu.Lock()
	changed := string(cert) != string(k.cert) || string(key) != string(k.key)
	first := k.cert == nil
	k.cert, k.key, k.ca = cert, key, ca
	listeners := k.listeners
	k.mu.Unlock()
	if !changed {
		return
	}
	for _, l := range listeners {
		l.Enqueue()
	}
	if first {
		close(k.ready)
	}
}
