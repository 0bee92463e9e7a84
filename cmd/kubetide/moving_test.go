package main

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubetide/kubetide/internal/config"
)

// flagsOfKubeMetricsAdapter are those that v0.2.9 documents, and of the API server library's those that installations set.
var flagsOfKubeMetricsAdapter = strings.Fields(`
	lister-kubeconfig enable-custom-metrics-api enable-external-metrics-api
	prometheus-server prometheus-server-token-file additional-prometheus-server additional-prometheus-server-token-file
	influxdb-address influxdb-token influxdb-org zmon-kariosdb-endpoint zmon-token-name nakadi-endpoint nakadi-token-name
	token credentials-dir skipper-ingress-metrics skipper-routegroup-metrics skipper-backends-annotation
	aws-external-metrics aws-region metrics-address disregard-incompatible-hpas metrics-ttl garbage-collector-interval
	default-collection-interval resource-update-interval scaling-schedule scaling-schedule-default-scaling-window
	scaling-schedule-ramp-steps scaling-schedule-default-time-zone horizontal-pod-autoscaler-tolerance
	external-rps-metrics external-rps-metric-name kube-client-qps kube-client-burst
	secure-port bind-address tls-cert-file tls-private-key-file cert-dir authentication-kubeconfig authorization-kubeconfig
	client-ca-file profiling v`)

func TestThePageOfMovingInSaysWhatBecomesOfEveryFlag(t *testing.T) {
	text, err := os.ReadFile("../../docs/how-to/moving-from-kube-metrics-adapter.md")
	if err != nil {
		t.Fatal(err)
	}
	becomes := map[string]string{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if !strings.HasPrefix(line, "| `--") || len(cells) < 4 {
			continue
		}
		for _, name := range strings.Split(cells[1], ",") {
			name = strings.TrimPrefix(strings.Trim(strings.TrimSpace(name), "`"), "--")
			if _, twice := becomes[name]; twice {
				t.Errorf("--%s stands there twice", name)
			}
			becomes[name] = strings.TrimSpace(cells[2])
		}
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(flagsOfKubeMetricsAdapter)), slices.Sorted(maps.Keys(becomes))); diff != "" {
		t.Errorf("flags (-kube-metrics-adapter +the page):\n%s", diff)
	}
	exists := func(name string) bool {
		for _, fs := range config.Flags().FlagSets {
			if fs.Lookup(name) != nil {
				return true
			}
		}
		return false
	}
	for name, becomes := range becomes {
		other, found := strings.CutPrefix(strings.Trim(becomes, "`"), "--")
		_, err := execute("config", "check", "--"+name+"=1")
		hint := ""
		if err != nil {
			_, hint, _ = strings.Cut(err.Error(), "flag --"+name+" of kube-metrics-adapter: ")
		}
		switch {
		case becomes == "same":
			if !exists(name) {
				t.Errorf("--%s is not there", name)
			}
		case found:
			if !exists(other) {
				t.Errorf("--%s is not there", other)
			}
			if !exists(name) && !strings.Contains(hint, "--"+other) {
				t.Errorf("--%s is refused without a word of --%s: %v", name, other, err)
			}
		case becomes == "none":
			if hint == "" {
				t.Errorf("--%s is refused without a reason: %v", name, err)
			}
		default:
			t.Errorf("--%s is said to be %q", name, becomes)
		}
	}
}
