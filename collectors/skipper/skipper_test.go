package skipper

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	zalandov1 "github.com/kubetide/kubetide/api/zalando/v1"
	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
)

// prometheus answers every query with one value and keeps the queries.
type prometheus struct {
	value   float64
	err     error
	queries []string
}

func (p *prometheus) Instant(_ context.Context, namespace, query string) (float64, time.Duration, error) {
	p.queries = append(p.queries, namespace+": "+query)
	return p.value, 7 * time.Second, p.err
}

// objects are the only Ingress and RouteGroup that there are, if any.
type objects struct {
	ingress *networkingv1.Ingress
	group   *zalandov1.RouteGroup
}

func (o objects) Ingress(namespace, name string) (*networkingv1.Ingress, error) {
	if o.ingress == nil {
		return nil, sample.NoData("Ingress %s/%s does not exist", namespace, name)
	}
	return o.ingress, nil
}

func (o objects) RouteGroup(namespace, name string) (*zalandov1.RouteGroup, error) {
	if o.group == nil {
		return nil, sample.NoData("RouteGroup %s/%s does not exist", namespace, name)
	}
	return o.group, nil
}

func ingress(annotations map[string]string, hosts ...string) *networkingv1.Ingress {
	o := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Annotations: annotations}}
	for _, host := range hosts {
		o.Spec.Rules = append(o.Spec.Rules, networkingv1.IngressRule{Host: host})
	}
	return o
}

func group(spec zalandov1.RouteGroupSpec) *zalandov1.RouteGroup {
	if spec.Hosts == nil {
		spec.Hosts = []string{"a.org"}
	}
	return &zalandov1.RouteGroup{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: spec}
}

func backends(namesAndWeights ...any) (out []zalandov1.RouteGroupBackendReference) {
	for pair := range slices.Chunk(namesAndWeights, 2) {
		out = append(out, zalandov1.RouteGroupBackendReference{BackendName: pair[0].(string), Weight: pair[1].(int)})
	}
	return out
}

func request(kind, backend string) collectors.Request {
	r := collectors.Request{
		Kind: sample.Object, Namespace: "shop", Metric: Metric, Interval: time.Minute, TargetType: autoscalingv2.AverageValueMetricType,
		Target: sample.ObjectRef{Group: "apps", Kind: "Deployment", Name: "web"}, Object: sample.ObjectRef{Group: "networking.k8s.io", Kind: kind, Name: "web"},
	}
	if kind == "RouteGroup" {
		r.Object.Group = "zalando.org"
	}
	if backend != "" {
		r.Settings = sample.Settings{"backend": backend}
	}
	return r
}

func collect(t *testing.T, c Config, r collectors.Request) ([]sample.Point, error) {
	t.Helper()
	c.Ingresses, c.RouteGroups = true, true
	source := New(c)
	q, err := source.Parse(r)
	if err != nil {
		t.Fatal(err)
	}
	collector, err := source.Open(q)
	if err != nil {
		t.Fatal(err)
	}
	return collector.Collect(t.Context())
}

// asked is what Prometheus is asked for an object with the hosts (regular expression) and the weight (four decimals).
func asked(hosts, weight string) []string {
	return []string{fmt.Sprintf(`shop: scalar(sum(rate(skipper_serve_host_duration_seconds_count{host=~"%s"}[1m])) * %s)`, hosts, weight)}
}

const (
	weights1 = "zalando.org/backend-weights"
	weights2 = "zalando.org/stack-weights"
)

func TestAnIngressIsAskedForWithItsHostsAndTheWeightOfTheBackend(t *testing.T) {
	const segment = "zalando.org/skipper-predicate"
	for name, c := range map[string]struct {
		object      *networkingv1.Ingress
		backend     string
		annotations []string
		want        []string // none: the value is 0 without a question
	}{
		"no weights at all":                  {object: ingress(nil, "a.org"), want: asked("a_org", "1.0000")},
		"weights in no annotation that says": {object: ingress(map[string]string{weights1: `{"b1":40}`}, "a.org"), backend: "b1", want: asked("a_org", "1.0000")},
		"no annotation, but a backend":       {object: ingress(nil, "a.org"), backend: "b1", annotations: []string{weights1}, want: asked("a_org", "1.0000")},
		"b1 of two backends": {object: ingress(map[string]string{weights1: `{"b2":60,"b1":40}`}, "a.org"), backend: "b1",
			annotations: []string{weights1}, want: asked("a_org", "0.4000")},
		"three hosts": {object: ingress(nil, "example.org", "foo.bar.com", "test.org"), want: asked("example_org|foo_bar_com|test_org", "1.0000")},
		"the greater of two annotations": {object: ingress(map[string]string{weights1: `{"b1":80}`, weights2: `{"b1":100}`}, "a.org"), backend: "b1",
			annotations: []string{weights1, weights2}, want: asked("a_org", "1.0000")},
		"the greater of two annotations the other way round": {object: ingress(map[string]string{weights1: `{"b1":80}`, weights2: `{"b1":100}`}, "a.org"), backend: "b1",
			annotations: []string{weights2, weights1}, want: asked("a_org", "1.0000")},
		"one of two annotations is there": {object: ingress(map[string]string{weights2: `{"b1":30}`}, "a.org"), backend: "b1",
			annotations: []string{weights1, weights2}, want: asked("a_org", "0.3000")},
		"half a percent": {object: ingress(map[string]string{weights1: `{"b1":20.5}`}, "a.org"), backend: "b1",
			annotations: []string{weights1}, want: asked("a_org", "0.2050")},
		"a backend without weight": {object: ingress(map[string]string{weights1: `{"b2":100}`}, "a.org"), backend: "b1", annotations: []string{weights1}},
		"nobody gets more than all": {object: ingress(map[string]string{weights1: `{"b1":300}`}, "a.org"), backend: "b1",
			annotations: []string{weights1}, want: asked("a_org", "1.0000")},
		"a rule for all hosts is left out": {object: ingress(nil, "", "a.org"), want: asked("a_org", "1.0000")},
		"a traffic segment":                {object: ingress(map[string]string{segment: "TrafficSegment(0.00, 0.90)"}, "a.org"), want: asked("a_org", "0.9000")},
		"a traffic segment with a user's predicate": {object: ingress(map[string]string{segment: `TrafficSegment(0.90, 1.00) && Method("GET")`}, "a.org"),
			backend: "web-v2", annotations: []string{weights1}, want: asked("a_org", "0.1000")},
		"a traffic segment and weights": {object: ingress(map[string]string{segment: "TrafficSegment(0.5, 1)", weights1: `{"b1":40}`}, "a.org"), backend: "b1",
			annotations: []string{weights1}, want: asked("a_org", "0.2000")},
		"a traffic segment without width": {object: ingress(map[string]string{segment: "TrafficSegment(0.00, 0.00)"}, "a.org")},
		"a predicate that is no segment":  {object: ingress(map[string]string{segment: `Method("GET")`}, "a.org"), want: asked("a_org", "1.0000")},
	} {
		t.Run(name, func(t *testing.T) {
			p := &prometheus{value: 1000}
			points, err := collect(t, Config{Routes: objects{ingress: c.object}, Prometheus: p, BackendsAnnotations: c.annotations}, request("Ingress", c.backend))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, p.queries); diff != "" {
				t.Errorf("queries (-want +got):\n%s", diff)
			}
			want := sample.Point{Milli: 1_000_000, Window: time.Minute, Age: 7 * time.Second}
			if c.want == nil {
				want = sample.Point{Window: time.Minute}
			}
			if diff := cmp.Diff([]sample.Point{want}, points); diff != "" {
				t.Errorf("points (-want +got):\n%s", diff)
			}
		})
	}
}

func TestARouteGroupIsAskedForWithItsHostsAndTheWeightOfTheBackend(t *testing.T) {
	route := func(predicate string, backends ...zalandov1.RouteGroupBackendReference) zalandov1.RouteGroupRoute {
		r := zalandov1.RouteGroupRoute{Backends: backends}
		if predicate != "" {
			r.Predicates = []string{`Path("/a")`, predicate}
		}
		return r
	}
	type routes = []zalandov1.RouteGroupRoute
	for name, c := range map[string]struct {
		spec    zalandov1.RouteGroupSpec
		backend string
		want    string // the weight
		bySum   string // with the option; the same if ""
	}{
		"no default backend":                          {want: "1.0000"},
		"one default backend, whatever its weight":    {spec: zalandov1.RouteGroupSpec{DefaultBackends: backends("b1", 0)}, backend: "b1", want: "1.0000"},
		"one default backend, whatever its name":      {spec: zalandov1.RouteGroupSpec{DefaultBackends: backends("b1", 1)}, backend: "b2", want: "1.0000"},
		"two default backends":                        {spec: zalandov1.RouteGroupSpec{DefaultBackends: backends("b1", 40, "b2", 60)}, backend: "b1", want: "0.4000"},
		"weights that are not 100 together":           {spec: zalandov1.RouteGroupSpec{DefaultBackends: backends("b1", 1, "b2", 3)}, backend: "b2", want: "0.0300", bySum: "0.7500"},
		"weights above 100":                           {spec: zalandov1.RouteGroupSpec{DefaultBackends: backends("b1", 100, "b2", 300)}, backend: "b2", want: "1.0000", bySum: "0.7500"},
		"no weights: skipper shares out evenly":       {spec: zalandov1.RouteGroupSpec{DefaultBackends: backends("b1", 0, "b2", 0)}, backend: "b2", bySum: "0.5000"},
		"a backend that is not there":                 {spec: zalandov1.RouteGroupSpec{DefaultBackends: backends("b1", 40, "b2", 60)}, backend: "b3"},
		"routes without segments do not count":        {spec: zalandov1.RouteGroupSpec{DefaultBackends: backends("b1", 1), Routes: routes{route("", backends("x", 50, "y", 50)...)}}, want: "1.0000"},
		"a StackSet's segment":                        {spec: zalandov1.RouteGroupSpec{DefaultBackends: backends("b1", 100), Routes: routes{route("TrafficSegment(0.90, 1.00)")}}, backend: "b1", want: "0.1000"},
		"a StackSet's segment, no backend":            {spec: zalandov1.RouteGroupSpec{DefaultBackends: backends("b1", 100), Routes: routes{route("TrafficSegment(0.90, 1.00)")}}, want: "0.1000"},
		"a segment without width":                     {spec: zalandov1.RouteGroupSpec{DefaultBackends: backends("b1", 100), Routes: routes{route("TrafficSegment(0.00, 0.00)")}}, backend: "b1"},
		"a segment and weights":                       {spec: zalandov1.RouteGroupSpec{DefaultBackends: backends("b1", 40, "b2", 60), Routes: routes{route("TrafficSegment(0.0, 0.5)")}}, backend: "b1", want: "0.2000"},
		"several routes with one segment":             {spec: zalandov1.RouteGroupSpec{DefaultBackends: backends("b1", 1), Routes: routes{route("TrafficSegment(0, 0.3)"), route("TrafficSegment(0, 0.3)")}}, backend: "b1", want: "0.3000"},
		"a shunt with the segment leads elsewhere":    {spec: zalandov1.RouteGroupSpec{DefaultBackends: backends("b1", 1), Routes: routes{route("TrafficSegment(0, 0.3)"), route("TrafficSegment(0, 0.3)", backends("shunt", 1)...)}}, backend: "b1", want: "0.3000"},
		"one backend a route: the first":              {spec: zalandov1.RouteGroupSpec{DefaultBackends: backends("b1", 1), Routes: routes{route("TrafficSegment(0, 0.9)"), route("TrafficSegment(0.9, 1)", backends("b2", 1)...)}}, backend: "b1", want: "0.9000"},
		"one backend a route: the second":             {spec: zalandov1.RouteGroupSpec{DefaultBackends: backends("b1", 1), Routes: routes{route("TrafficSegment(0, 0.9)"), route("TrafficSegment(0.9, 1)", backends("b2", 1)...)}}, backend: "b2", want: "0.1000"},
		"one backend a route: none of them":           {spec: zalandov1.RouteGroupSpec{DefaultBackends: backends("b1", 1), Routes: routes{route("TrafficSegment(0, 0.9)"), route("TrafficSegment(0.9, 1)", backends("b2", 1)...)}}, backend: "b3"},
		"segments apart add up":                       {spec: zalandov1.RouteGroupSpec{DefaultBackends: backends("b1", 1), Routes: routes{route("TrafficSegment(0, 0.2)"), route("TrafficSegment(0.7, 1)")}}, want: "0.5000"},
		"segments that overlap count once":            {spec: zalandov1.RouteGroupSpec{DefaultBackends: backends("b1", 1), Routes: routes{route("TrafficSegment(0, 0.6)"), route("TrafficSegment(0.4, 0.8)")}}, want: "0.8000"},
		"where they overlap, the greatest share does": {spec: zalandov1.RouteGroupSpec{DefaultBackends: backends("b1", 50, "b2", 50), Routes: routes{route("TrafficSegment(0, 0.6)"), route("TrafficSegment(0.4, 0.8)", backends("b1", 1)...)}}, backend: "b1", want: "0.6000"},
		"a route without segment gets everything":     {spec: zalandov1.RouteGroupSpec{DefaultBackends: backends("b1", 1), Routes: routes{route("TrafficSegment(0, 0.2)"), route("")}}, want: "1.0000"},
	} {
		for _, bySum := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, by sum: %v", name, bySum), func(t *testing.T) {
				weight := c.want
				if bySum && c.bySum != "" {
					weight = c.bySum
				}
				var want []string
				if weight != "" {
					want = asked("a_org", weight)
				}
				p := &prometheus{}
				points, err := collect(t, Config{Routes: objects{group: group(c.spec)}, Prometheus: p, RouteGroupWeightSum: bySum}, request("RouteGroup", c.backend))
				if err != nil || len(points) != 1 || points[0].Milli != 0 {
					t.Fatalf("points %v, error %v", points, err)
				}
				if diff := cmp.Diff(want, p.queries); diff != "" {
					t.Errorf("queries (-want +got):\n%s", diff)
				}
			})
		}
	}
	t.Run("several hosts", func(t *testing.T) {
		p := &prometheus{}
		if _, err := collect(t, Config{Routes: objects{group: group(zalandov1.RouteGroupSpec{Hosts: []string{"example.org", "foo.bar.com"}})}, Prometheus: p}, request("RouteGroup", "")); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(asked("example_org|foo_bar_com", "1.0000"), p.queries); diff != "" {
			t.Errorf("queries (-want +got):\n%s", diff)
		}
	})
}

func TestWhatCannotBeAnsweredSaysWhy(t *testing.T) {
	const needed = "backend name must be specified for requests-per-second when traffic switching is used"
	segments := func(n int) (spec zalandov1.RouteGroupSpec) {
		for i := range n {
			spec.Routes = append(spec.Routes, zalandov1.RouteGroupRoute{Predicates: []string{fmt.Sprintf("TrafficSegment(0, 0.%05d)", i)}})
		}
		return spec
	}
	weighted := func(text string) objects {
		return objects{ingress: ingress(map[string]string{weights1: text}, "a.org")}
	}
	for name, c := range map[string]struct {
		objects objects
		kind    string
		backend string
		value   float64
		err     error
		want    string
		noData  bool
	}{
		"weights, but no backend":            {objects: weighted(`{"b1":40}`), want: "Ingress shop/web: " + needed},
		"weights that are none":              {objects: weighted(`b1=40`), backend: "b1", want: "annotation zalando.org/backend-weights does not hold weights such as"},
		"weights as text":                    {objects: weighted(`{"b1":"40"}`), backend: "b1", want: "annotation zalando.org/backend-weights does not hold weights such as"},
		"a negative weight":                  {objects: weighted(`{"b1":-1}`), backend: "b1", want: `the weight -1 of backend "b1" is negative`},
		"no hosts":                           {objects: objects{ingress: ingress(nil)}, want: "Ingress shop/web: there are no hosts"},
		"only a rule for all hosts":          {objects: objects{ingress: ingress(nil, "")}, want: "Ingress shop/web: there are no hosts"},
		"no hosts, also without traffic":     {objects: objects{ingress: ingress(map[string]string{"zalando.org/skipper-predicate": "TrafficSegment(0, 0)"})}, want: "there are no hosts"},
		"a segment that is none":             {objects: objects{ingress: ingress(map[string]string{"zalando.org/skipper-predicate": "TrafficSegment(2, 3)"}, "a.org")}, want: `Ingress shop/web: annotation zalando.org/skipper-predicate: predicate "TrafficSegment(2, 3)"`},
		"no such Ingress":                    {want: "Ingress shop/web does not exist", noData: true},
		"no such RouteGroup":                 {kind: "RouteGroup", want: "RouteGroup shop/web does not exist", noData: true},
		"a RouteGroup without hosts":         {kind: "RouteGroup", objects: objects{group: group(zalandov1.RouteGroupSpec{Hosts: []string{}})}, want: "RouteGroup shop/web: there are no hosts"},
		"a RouteGroup's host that is none":   {kind: "RouteGroup", objects: objects{group: group(zalandov1.RouteGroupSpec{Hosts: []string{`a"} or up`}})}, want: "is not a host name"},
		"a RouteGroup's weights, no backend": {kind: "RouteGroup", objects: objects{group: group(zalandov1.RouteGroupSpec{DefaultBackends: backends("b1", 1, "b2", 1)})}, want: "RouteGroup shop/web: spec.defaultBackends: " + needed},
		"a route's weights, no backend": {kind: "RouteGroup", objects: objects{group: group(zalandov1.RouteGroupSpec{Routes: []zalandov1.RouteGroupRoute{
			{Predicates: []string{"TrafficSegment(0, 1)"}, Backends: backends("b1", 1, "b2", 1)}}})}, want: "spec.routes[0]: " + needed},
		"a RouteGroup's negative weight":    {kind: "RouteGroup", backend: "b1", objects: objects{group: group(zalandov1.RouteGroupSpec{DefaultBackends: backends("b1", 1, "b2", -1)})}, want: `the weight -1 of backend "b2" is negative`},
		"a RouteGroup's segment that is no": {kind: "RouteGroup", objects: objects{group: group(zalandov1.RouteGroupSpec{Routes: []zalandov1.RouteGroupRoute{{}, {Predicates: []string{"TrafficSegment()"}}}})}, want: "RouteGroup shop/web: spec.routes[1]: predicate"},
		"too many segments":                 {kind: "RouteGroup", objects: objects{group: group(segments(maxShares + 1))}, want: "more than 1000 different shares"},
		"too much":                          {objects: objects{ingress: ingress(nil, "a.org")}, value: 1e300, want: sample.ErrNotFinite.Error()},
		"Prometheus fails":                  {objects: objects{ingress: ingress(nil, "a.org")}, err: errors.New("connection refused"), want: "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.kind == "" {
				c.kind = "Ingress"
			}
			points, err := collect(t, Config{Routes: c.objects, Prometheus: &prometheus{value: c.value, err: c.err}, BackendsAnnotations: []string{weights1}}, request(c.kind, c.backend))
			if err == nil || len(points) > 0 || !strings.Contains(err.Error(), c.want) || errors.Is(err, sample.ErrNoData) != c.noData {
				t.Errorf("points %v, error %v; want %q, no data: %v", points, err, c.want, c.noData)
			}
		})
	}
}

func TestTheQueryHoldsWhatTheAnswerDependsOn(t *testing.T) {
	web := sample.ObjectRef{Group: "apps", Kind: "Deployment", Name: "web"}
	for name, c := range map[string]struct {
		change     func(*collectors.Request)
		settings   string
		perReplica bool
	}{
		"nothing of its own":                   {change: func(*collectors.Request) {}},
		"the backend of the label":             {change: func(r *collectors.Request) { r.Settings = sample.Settings{"backend": "b1"} }, settings: `{"backend":"b1"}`},
		"the backend of the metric's name":     {change: func(r *collectors.Request) { r.Metric += ",b1" }, settings: `{"backend":"b1"}`},
		"the label before the name":            {change: func(r *collectors.Request) { r.Metric += ",b1"; r.Settings = sample.Settings{"backend": "b2"} }, settings: `{"backend":"b2"}`},
		"other labels and settings do not":     {change: func(r *collectors.Request) { r.Settings = sample.Settings{"team": "a"} }},
		"a Value is divided by the replicas":   {change: func(r *collectors.Request) { r.TargetType = autoscalingv2.ValueMetricType }, perReplica: true},
		"no type is a Value":                   {change: func(r *collectors.Request) { r.TargetType = "" }, perReplica: true},
		"a name that goes on in its own words": {change: func(r *collectors.Request) { r.Metric += "-shop" }},
	} {
		t.Run(name, func(t *testing.T) {
			r := request("Ingress", "")
			c.change(&r)
			want := r.Query(Name, nil)
			want.Settings = c.settings
			if c.perReplica {
				want.PerReplica, want.Target = true, web
			}
			got, err := New(Config{Ingresses: true}).Parse(r)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestRequestsForSomethingElseAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		config Config
		change func(*collectors.Request)
		want   string
	}{
		"Ingresses are off":      {Config{RouteGroups: true}, func(*collectors.Request) {}, "--skipper-ingress-metrics"},
		"RouteGroups are off":    {Config{Ingresses: true}, func(r *collectors.Request) { r.Object = request("RouteGroup", "").Object }, "--skipper-routegroup-metrics"},
		"another kind":           {Config{Ingresses: true}, func(r *collectors.Request) { r.Object.Kind = "Service" }, "is neither an Ingress"},
		"another group":          {Config{Ingresses: true}, func(r *collectors.Request) { r.Object.Group = "example.org" }, "is neither an Ingress"},
		"another metric's name":  {Config{Ingresses: true}, func(r *collectors.Request) { r.Metric = "latency" }, `begins with "requests-per-second"`},
		"a kind that has no dot": {Config{Ingresses: true}, func(r *collectors.Request) { r.Object = sample.ObjectRef{Kind: "Ingress", Name: "web"} }, "is neither an Ingress"},
	} {
		r := request("Ingress", "")
		c.change(&r)
		if _, err := New(c.config).Parse(r); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
}

func TestTheKindsThatAreOnAreTheSourcesOwn(t *testing.T) {
	for _, c := range []Config{{Ingresses: true}, {RouteGroups: true}, {Ingresses: true, RouteGroups: true}} {
		r := collectors.NewRegistry()
		New(c).Register(r)
		_, ingresses := r.ForObjectKind(ingressKind)
		_, groups := r.ForObjectKind(routeGroupKind)
		if ingresses != c.Ingresses || groups != c.RouteGroups {
			t.Errorf("%+v: Ingresses %v, RouteGroups %v", c, ingresses, groups)
		}
	}
}

// Whatever the routes, a backend gets at most everything, and of routes that exclude each other the backends together get what
// the routes take.
func TestBackendsGetWhatTheirSegmentsTake(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ends := rapid.SliceOfN(rapid.IntRange(0, 100), 2, 8).Draw(t, "ends")
		slices.Sort(ends)
		var spec zalandov1.RouteGroupSpec
		for i := 1; i < len(ends); i++ {
			spec.Routes = append(spec.Routes, zalandov1.RouteGroupRoute{
				Predicates: []string{fmt.Sprintf("TrafficSegment(%.2f, %.2f)", float64(ends[i-1])/100, float64(ends[i])/100)},
				Backends:   backends("b"+rapid.StringMatching("[1-3]").Draw(t, "backend"), 1),
			})
		}
		total := 0.0
		for _, backend := range []string{"b1", "b2", "b3"} {
			weight, err := routeGroupWeight(&spec, backend, false)
			if err != nil || weight < 0 || weight > 1 {
				t.Fatalf("%s: weight %v, error %v", backend, weight, err)
			}
			total += weight
		}
		if want := float64(ends[len(ends)-1]-ends[0]) / 100; math.Abs(total-want) > 1e-9 {
			t.Fatalf("together %v, want %v", total, want)
		}
	})
}
