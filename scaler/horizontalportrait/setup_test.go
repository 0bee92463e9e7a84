package horizontalportrait

import (
	"context"
	"net/http"
	goruntime "runtime"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/kubetide/kubetide/adapter/store"
	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
	"github.com/kubetide/kubetide/internal/decision"
	"github.com/kubetide/kubetide/internal/sample"
	"github.com/kubetide/kubetide/scaler/enginetest"
	"github.com/kubetide/kubetide/scaler/wants"
)

func TestSetup(t *testing.T) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, kapacity.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(kapacity.SchemeGroupVersion.WithKind("HorizontalPortrait"), meta.RESTScopeNamespace)
	for _, kind := range []string{"Deployment", "StatefulSet", "ReplicaSet"} {
		mapper.Add(appsv1.SchemeGroupVersion.WithKind(kind), meta.RESTScopeNamespace)
	}
	mgr, err := ctrl.NewManager(&rest.Config{Host: "127.0.0.1:1"}, ctrl.Options{ // nothing is asked before it starts
		Scheme:         scheme,
		Metrics:        metricsserver.Options{BindAddress: "0"},
		MapperProvider: func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return mapper, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := Setup(mgr, Options{Demand: &demand{}}); err != nil {
		t.Error(err)
	}
}

// stored is a demand for the real store, without anybody who collects.
type stored struct {
	*store.Store
	demand
}

func (s *stored) Want(q sample.Query) func() {
	s.Add(q, false)
	return func() { s.Forget(q) }
}
func (s *stored) Answer(q sample.Query) sample.Answer            { return s.Store.Answer(q) }
func (s *stored) Subscribe(q sample.Query, notify func()) func() { return s.Store.Subscribe(q, notify) }
func (s *stored) ask(hp *kapacity.HorizontalPortrait) sample.Query {
	return s.Queries(hp, hp.Spec.ScaleTargetRef, []autoscalingv2.MetricSpec{hp.Spec.Metrics[0].MetricSpec})[0].Query
}

func TestAStoredSampleIsInTheStatusWithoutWaitingForTheSyncPeriod(t *testing.T) {
	hp := portrait(queue("5"))
	hp.Spec.Algorithm.KubeHPA = &kapacity.KubeHPAPortraitAlgorithm{SyncPeriod: metav1.Duration{Duration: time.Hour}}
	g := newRig(t, hp, workload(1, 1)...)
	source := &stored{Store: store.New(clock.RealClock{}, 0)}
	metrics := wants.New[memory](source, clock.RealClock{})
	r := &Reconciler{Client: g.World.Client, Clock: clock.RealClock{}, Recorder: g.Events.Recorder("c"), Metrics: metrics, Details: &decision.Portraits{}}
	skip := true
	c, err := controller.NewUnmanaged("test", controller.Options{Reconciler: r, SkipNameValidation: &skip})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Watch(metrics.Source()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Start(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		metrics.Close()
		source.Each(func(q sample.Query, _ sample.Answer) { t.Errorf("%s is still collected", q.Metric) })
	}()
	wait := func(what string, condition func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !condition(); goruntime.Gosched() {
			if time.Now().After(deadline) {
				t.Fatalf("waited in vain: %s", what)
			}
		}
	}
	wait("the query to be wanted", func() bool {
		metrics.Notify(enginetest.Request) // as soon as the controller runs
		return source.Answer(source.ask(hp)).Cause.Error() == "it has not been collected yet"
	})
	for i := range int64(20) {
		source.Insert(sample.Result{Query: source.ask(hp), Taken: time.Now(), Points: []sample.Point{{Milli: (i + 2) * 5_000}}})
		wait("the portrait", func() bool { return g.replicas() == int32(i+2) })
	}
}
