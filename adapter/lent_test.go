package adapter

import (
	"context"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// A cache of the engine reads HPAs from the adapter's informer; when the engine has lost its lead and starts again, so does the
// next, with the same indexes, and the one before hears nothing more. All that time there is one watch.
func TestACacheThatEndsAndTheNextShareTheAdaptersWatchOfHPAs(t *testing.T) {
	hpa := webHPA()
	hpa.Annotations["somebody.else/notes"] = "long"
	hpa.Status.CurrentReplicas = 3
	hpa.Status.Conditions = []autoscalingv2.HorizontalPodAutoscalerCondition{{Type: autoscalingv2.ScalingActive}}
	api := fake.NewClientset(webPod(1), webDeployment(), hpa)
	a := start(t, api, nil, nil)
	until(t, "the HPA has values", func() bool { return len(a.values(t)) > 0 })

	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"), meta.RESTScopeNamespace)
	type borrower struct {
		heard  chan string
		cancel context.CancelFunc
		ended  chan error
		lent   toolscache.SharedIndexInformer
		// handler is that which hears.
		handler toolscache.ResourceEventHandlerRegistration
	}
	borrow := func() *borrower {
		b := &borrower{heard: make(chan string, 100), ended: make(chan error, 1)}
		c, err := cache.New(&rest.Config{Host: "127.0.0.1:1"}, cache.Options{Scheme: scheme.Scheme, Mapper: mapper,
			NewInformer: func(toolscache.ListerWatcher, runtime.Object, time.Duration, toolscache.Indexers) toolscache.SharedIndexInformer {
				b.lent = a.HPAs()
				return b.lent
			}})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.IndexField(t.Context(), &autoscalingv2.HorizontalPodAutoscaler{}, "target", func(o client.Object) []string {
			return []string{o.(*autoscalingv2.HorizontalPodAutoscaler).Spec.ScaleTargetRef.Name}
		}); err != nil {
			t.Fatal(err)
		}
		informer, err := c.GetInformer(t.Context(), &autoscalingv2.HorizontalPodAutoscaler{}, cache.BlockUntilSynced(false))
		if err != nil {
			t.Fatal(err)
		}
		b.handler, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{AddFunc: func(obj any) { b.heard <- obj.(client.Object).GetName() }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		b.cancel = cancel
		go func() { b.ended <- c.Start(ctx) }()
		if !c.WaitForCacheSync(ctx) {
			t.Fatal("the cache does not sync")
		}
		var list autoscalingv2.HorizontalPodAutoscalerList
		if err := c.List(ctx, &list, client.InNamespace("shop"), client.MatchingFields{"target": "web"}); err != nil {
			t.Fatal(err)
		}
		if len(list.Items) == 0 || list.Items[0].Name != "web" || len(list.Items[0].Annotations) != 1 || list.Items[0].Status.Conditions != nil ||
			list.Items[0].Status.CurrentReplicas != 3 {
			t.Fatalf("the cache has %+v", list.Items)
		}
		return b
	}
	hears := func(b *borrower, want string) {
		t.Helper()
		select {
		case got := <-b.heard:
			if got != want {
				t.Errorf("the cache hears of %q, want %q", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("the cache does not hear of %q", want)
		}
	}
	first := borrow()
	hears(first, "web")
	first.cancel()
	if err := <-first.ended; err != nil {
		t.Fatal(err)
	}
	select {
	case <-first.handler.(interface{ ShutdownChan() <-chan struct{} }).ShutdownChan():
	case <-time.After(10 * time.Second):
		t.Error("the ended cache's handler is still there")
	}
	if !first.lent.IsStopped() {
		t.Error("the ended cache's informer still runs")
	}
	if _, err := first.lent.AddEventHandler(toolscache.ResourceEventHandlerFuncs{}); err == nil {
		t.Error("the ended cache can add a handler, which nobody would remove")
	}

	second := borrow()
	defer func() {
		second.cancel()
		if err := <-second.ended; err != nil {
			t.Error(err)
		}
	}()
	hears(second, "web")
	later := webHPA()
	later.Name, later.UID, later.Annotations = "zeta", "zeta", nil
	if _, err := api.AutoscalingV2().HorizontalPodAutoscalers("shop").Create(t.Context(), later, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	hears(second, "zeta")
	watches := 0
	for _, action := range api.Actions() {
		if action.GetVerb() == "watch" && action.GetResource().Resource == "horizontalpodautoscalers" {
			watches++
		}
	}
	if watches != 1 {
		t.Errorf("there are %d watches of HPAs, want 1", watches)
	}
}
