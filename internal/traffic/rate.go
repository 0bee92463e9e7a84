package traffic

import (
	"fmt"
	"regexp"
	"strings"
)

// SkipperMetric is the series in which skipper counts the requests that it has answered, by host, and SkipperHostLabel its
// label that holds the host, with _ for each dot.
const (
	SkipperMetric    = "skipper_serve_host_duration_seconds_count"
	SkipperHostLabel = "host"
)

// maxHosts bounds the regular expression that Prometheus has to match.
const maxHosts = 500

// host is a name as an Ingress may have it. What it lets through needs no quoting in PromQL or in a regular expression.
var host = regexp.MustCompile(`^(\*\.)?[a-zA-Z0-9._-]+$`)

// RateQuery returns the PromQL for the requests per second to the hosts, averaged over a minute, times weight (1 for all of
// them). The text is kube-metrics-adapter's, which recording rules and caches may know. A host *.example.org stands for all
// names with one label more.
func RateQuery(metric, hostLabel string, hosts []string, weight float64) (string, error) {
	if len(hosts) == 0 {
		return "", fmt.Errorf("there are no hosts")
	}
	if len(hosts) > maxHosts {
		return "", fmt.Errorf("there are %d hosts, more than %d", len(hosts), maxHosts)
	}
	patterns := make([]string, len(hosts))
	for i, h := range hosts {
		if !host.MatchString(h) {
			return "", fmt.Errorf("%q is not a host name", shorten(h))
		}
		h, wildcard := strings.CutPrefix(h, "*.")
		patterns[i] = strings.ReplaceAll(h, ".", "_")
		if wildcard {
			patterns[i] = "[a-zA-Z0-9-]+_" + patterns[i]
		}
	}
	return fmt.Sprintf(`scalar(sum(rate(%s{%s=~"%s"}[1m])) * %.4f)`, metric, hostLabel, strings.Join(patterns, "|"), weight), nil
}
