package lab

import (
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/kubetide/kubetide/test/lab/build"
)

// skipperYAML is skipper's ServiceAccount with the rights that it needs and no others.
//
//go:embed skipper.yaml
var skipperYAML string

// SkipperConfig says how a skipper is started. The zero value will do.
type SkipperConfig struct {
	// PollInterval is how often it reads Ingresses, RouteGroups, Services and EndpointSlices. Default 200 ms (its own is 3 s).
	PollInterval time.Duration
	// Args are added to the command line; of a flag given twice the last one wins.
	Args []string
}

// Skipper is a running skipper, router of all Ingresses and RouteGroups.
type Skipper struct {
	Part
	// URL is where it routes by the request's Host, at an address that pods reach.
	URL string
	// MetricsTarget is the host:port for a PrometheusJob, MetricsURL the whole address. Hosts are counted in
	// skipper_serve_host_duration_seconds_count{host="shop_example_org"}.
	MetricsTarget, MetricsURL string
}

// StartSkipper starts a skipper and returns when it routes by what exists. It installs skipper's RouteGroup CRD unless there is one.
func (l *Lab) StartSkipper(ctx context.Context, c SkipperConfig) (*Skipper, error) {
	name, binary, address, err := l.newPart(ctx, "skipper")
	if err != nil {
		return nil, err
	}
	if err := l.prepareSkipper(ctx, filepath.Join(filepath.Dir(binary), build.RouteGroupCRD)); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	token, err := l.tokenFor(ctx, "kube-system", "skipper", 30*24*time.Hour)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(l.partDir(name), 0o755); err != nil {
		return nil, err
	}
	tokenFile := filepath.Join(l.partDir(name), "token")
	if err := os.WriteFile(tokenFile, []byte(token), 0o600); err != nil {
		return nil, err
	}
	s := &Skipper{URL: "http://" + address, MetricsTarget: address + ":9911", MetricsURL: "http://" + address + ":9911/metrics"}
	s.component, err = l.launch(name, binary,
		// It trusts the authorities of the system, which these replace.
		[]string{"SSL_CERT_FILE=" + l.pki.file("ca.crt"), "SSL_CERT_DIR=" + l.partDir(name)},
		append([]string{
			"-address=" + address + ":80", "-support-listener=" + s.MetricsTarget, "-wait-first-route-load",
			"-kubernetes", "-kubernetes-url=" + l.Config().Host, "-kubernetes-token-file=" + tokenFile,
			"-enable-kubernetes-endpointslices", "-kubernetes-https-redirect=false",
			"-source-poll-timeout=" + strconv.FormatInt(cmp.Or(c.PollInterval, 200*time.Millisecond).Milliseconds(), 10),
			"-metrics-flavour=prometheus", "-serve-host-metrics", "-serve-host-counter",
			"-access-log-disabled", "-suppress-route-update-logs", "-wait-for-healthcheck-interval=0",
		}, c.Args...)...)
	if err != nil {
		return nil, err
	}
	err = s.component.await(ctx, "it routes", func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request) // whatever the answer: it listens once it has routes
		if err != nil {
			return err
		}
		return response.Body.Close()
	})
	if err == nil {
		err = s.component.await(ctx, "it shows metrics", get(http.DefaultClient, s.MetricsURL))
	}
	if err != nil {
		s.Stop()
		return nil, err
	}
	l.say("%s answers at %s", name, s.URL)
	return s, nil
}

func (l *Lab) prepareSkipper(ctx context.Context, crdFile string) error {
	const crd = "customresourcedefinition/routegroups.zalando.org"
	existing, err := l.Kubectl(ctx, "get", crd, "--ignore-not-found", "-o", "name")
	if err != nil {
		return err
	}
	if existing == "" {
		data, err := os.ReadFile(crdFile)
		if err != nil {
			return err
		}
		if err := l.Apply(ctx, string(data)); err != nil {
			return err
		}
	}
	if _, err := l.Kubectl(ctx, "wait", "--for=condition=Established", "--timeout=30s", crd); err != nil {
		return err
	}
	return l.Apply(ctx, skipperYAML)
}
