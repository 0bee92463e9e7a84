package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"github.com/kubetide/kubetide/adapter/tideapi"
	"github.com/kubetide/kubetide/internal/config"
)

// tideAPIService is served by each process, of whatever modules.
const tideAPIService = "v1alpha1.tide.kubetide.io"

// leaderAge is how long the Lease's holder is remembered, so that readers cannot make requests to the API server.
const leaderAge = time.Second

// served is what readers get of the engine's records; nil without an engine.
func (w *writer) served() (*tideapi.Decisions, error) {
	if !w.config.Enabled(config.ModuleEngine) {
		return nil, nil
	}
	client, err := kubernetes.NewForConfig(w.rest)
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	leader := &holder{client: client, namespace: w.config.General.Namespace, lease: leaseName(w.config), clock: clock.RealClock{}}
	return &tideapi.Decisions{Log: w.decisions, Portraits: w.details, Leads: w.leads.Load, Leader: leader.name}, nil
}

// lead marks the time in which this process holds the Lease.
func (w *writer) lead(ctx context.Context) error {
	w.leads.Store(true)
	w.leadChanged(true)
	<-ctx.Done()
	w.leadChanged(false)
	w.leads.Store(false)
	return nil
}

// forget drops the records of a lead that is lost: objects that are deleted meanwhile would never be.
func (w *writer) forget() {
	for _, o := range w.decisions.Objects() {
		w.decisions.Forget(o)
	}
}

// holder reads who holds the Lease.
type holder struct {
	client           kubernetes.Interface
	namespace, lease string
	clock            clock.PassiveClock

	mu   sync.Mutex // held while the API server is asked, so that one asks for all
	read time.Time
	last string
	err  error
}

func (h *holder) name(ctx context.Context) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := h.clock.Now(); h.read.IsZero() || now.Sub(h.read) >= leaderAge {
		lease, err := h.client.CoordinationV1().Leases(h.namespace).Get(ctx, h.lease, metav1.GetOptions{})
		if ctx.Err() != nil {
			return "", ctx.Err() // says nothing to the others
		}
		h.read, h.last, h.err = now, "", err
		switch {
		case apierrors.IsNotFound(err):
			h.err = nil
		case err == nil:
			h.last = ptr.Deref(lease.Spec.HolderIdentity, "")
		}
	}
	return h.last, h.err
}
