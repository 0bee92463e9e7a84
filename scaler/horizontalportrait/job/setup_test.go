package job

import (
	"net/http"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/kubetide/kubetide/scaler/horizontalportrait"
)

func TestSetup(t *testing.T) {
	mgr, err := ctrl.NewManager(&rest.Config{Host: "127.0.0.1:1"}, ctrl.Options{ // nothing is asked before it starts
		Metrics:        metricsserver.Options{BindAddress: "0"},
		MapperProvider: func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return meta.NewDefaultRESTMapper(nil), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	for namespace, want := range map[string]bool{"": false, "jobs": true} {
		var into horizontalportrait.Options
		if err := Setup(mgr, Options{Namespace: namespace}, &into); err != nil {
			t.Fatal(err)
		}
		if (into.Jobs != nil) != want || (into.Watch != nil) != want {
			t.Errorf("namespace %q: %+v", namespace, into)
		}
	}
}
