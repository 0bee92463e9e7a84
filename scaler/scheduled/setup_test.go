package scheduled

import (
	"net/http"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	zalando "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/internal/window"
)

func manager(t *testing.T) ctrl.Manager {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, zalando.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"), meta.RESTScopeNamespace)
	mapper.Add(zalando.SchemeGroupVersion.WithKind(zalando.ScalingScheduleKind), meta.RESTScopeNamespace)
	mapper.Add(zalando.SchemeGroupVersion.WithKind(zalando.ClusterScalingScheduleKind), meta.RESTScopeRoot)
	mgr, err := ctrl.NewManager(&rest.Config{Host: "127.0.0.1:1"}, ctrl.Options{ // nothing is asked before it starts
		Scheme:         scheme,
		Metrics:        metricsserver.Options{BindAddress: "0"},
		MapperProvider: func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return mapper, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return mgr
}

func TestSetupRefusesImpossibleOptions(t *testing.T) {
	good := Options{Defaults: window.Defaults{Window: time.Minute, Steps: 10, Zone: time.UTC}, Tolerance: 0.1}
	for want, change := range map[string]func(*Options){
		"0 ramp steps are fewer than 1":  func(o *Options) { o.Defaults.Steps = 0 }, // S9
		"window -1m0s is negative":       func(o *Options) { o.Defaults.Window = -time.Minute },
		"there is no default time zone":  func(o *Options) { o.Defaults.Zone = nil },
		"the tolerance -0.1 is negative": func(o *Options) { o.Tolerance = -0.1 },
		"":                               func(*Options) {},
	} {
		opts := good
		change(&opts)
		if err := Setup(manager(t), opts); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("error = %v, want %q", err, want)
		}
	}
}
