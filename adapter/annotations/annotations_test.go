package annotations

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
)

// source takes any settings, needs those in need, refuses the value "bad", and panics on the value "panic".
type source struct {
	name       string
	keys, need []string
}

func (s source) Keys() []string { return s.keys }

func (s source) Parse(r collectors.Request) (sample.Query, error) {
	for _, key := range s.need {
		if r.Settings[key] == "" {
			return sample.Query{}, collectors.BadKey(key, "is missing")
		}
	}
	for key, value := range r.Settings {
		switch value {
		case "bad":
			return sample.Query{}, collectors.BadKey(key, "%q is bad", value)
		case "panic":
			panic("unexpected")
		}
	}
	return r.Query(s.name, r.Settings), nil
}

func (s source) Open(sample.Query) (collectors.Collector, error) { return s, nil }

func (s source) Collect(context.Context) ([]sample.Point, error) { return nil, nil }

// legacy has a key that another setting names.
type legacy struct{ source }

func (legacy) FreeKeys(s sample.Settings) []string { return []string{s["query-name"]} }

// annotated has a key that labels do not set.
type annotated struct{ source }

func (annotated) AnnotationKeys() []string { return []string{"secret"} }

func registry() *collectors.Registry {
	r := collectors.NewRegistry()
	r.Register(sample.Pods, source{name: "json-path", keys: []string{"json-key", "port"}, need: []string{"port"}}, "json-path")
	r.Register(sample.External, source{name: "sqs", keys: []string{"queue-name", "region"}, need: []string{"region"}}, "sqs-queue-length")
	r.Register(sample.External, source{name: "prometheus", keys: []string{"*"}}, "prometheus", "prometheus-query")
	r.Register(sample.External, legacy{source{name: "influxdb", keys: []string{"query-name"}}}, "flux-query")
	r.Register(sample.External, annotated{source{name: "http", keys: []string{"endpoint", "secret"}}}, "http")
	r.Register(sample.External, source{name: "cron", keys: []string{"start", "start.*"}}, "cron")
	r.Register(sample.Object, source{name: "schedule"}, "scaling-schedule")
	r.Register(sample.Object, source{name: "skipper", keys: []string{"backend"}}, "skipper")
	r.Register(sample.Object, source{name: "prometheus", keys: []string{"query"}}, "prometheus")
	r.RegisterObjectKind(schema.GroupKind{Group: "zalando.org", Kind: "ScalingSchedule"}, "scaling-schedule")
	r.RegisterObjectKind(schema.GroupKind{Group: "networking.k8s.io", Kind: "Ingress"}, "skipper")
	return r
}

func podsMetric(name string) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{
		Metric: autoscalingv2.MetricIdentifier{Name: name}}}
}

func externalMetric(name string, matchLabels map[string]string, expressions ...metav1.LabelSelectorRequirement) autoscalingv2.MetricSpec {
	m := autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
		Metric: autoscalingv2.MetricIdentifier{Name: name}}}
	if matchLabels != nil || expressions != nil {
		m.External.Metric.Selector = &metav1.LabelSelector{MatchLabels: matchLabels, MatchExpressions: expressions}
	}
	return m
}

func objectMetric(name, apiVersion, kind, object string) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ObjectMetricSourceType, Object: &autoscalingv2.ObjectMetricSource{
		Metric:          autoscalingv2.MetricIdentifier{Name: name},
		DescribedObject: autoscalingv2.CrossVersionObjectReference{APIVersion: apiVersion, Kind: kind, Name: object}}}
}

func hpa(annotations map[string]string, metrics ...autoscalingv2.MetricSpec) *autoscalingv2.HorizontalPodAutoscaler {
	return &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart", Annotations: annotations},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "cart"},
			Metrics:        metrics,
		},
	}
}

// show prints a query in one line.
func show(q sample.Query) string {
	text := fmt.Sprintf("%s %s by %s every %s", q.Kind, q.Metric, q.Collector, q.Interval)
	if q.Object != (sample.ObjectRef{}) {
		text += " of " + q.Object.String()
	}
	if q.Selector != "" {
		text += " {" + q.Selector + "}"
	}
	if q.Settings != "" {
		text += " " + q.Settings
	}
	if q.PerReplica {
		text += " per replica of " + q.Target.String()
	}
	if q.Fallback.Hold > 0 {
		text += " held " + q.Fallback.Hold.String()
	}
	if q.Fallback.Fixed {
		text += fmt.Sprintf(" at least %dm", q.Fallback.Milli)
	}
	return text
}

func TestWhatCannotBeCollectedIsNamedByItsAddress(t *testing.T) {
	h := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart"}}
	h.Spec.Metrics = []autoscalingv2.MetricSpec{{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
		Metric: autoscalingv2.MetricIdentifier{Name: "queue", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"type": "nobody", "a": "b"}}}}}}
	want := []sample.Series{{Kind: sample.External, Namespace: "shop", Metric: "queue", Selector: "a=b,type=nobody"}}
	if diff := cmp.Diff(want, Parse(h, collectors.NewRegistry(), Options{DefaultInterval: time.Minute}).Barred); diff != "" {
		t.Errorf("barred (-want +got):\n%s", diff)
	}
}

func TestParse(t *testing.T) {
	sqs := map[string]string{"type": "sqs-queue-length"}
	resource := autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: "cpu"}}
	tests := map[string]struct {
		hpa      *autoscalingv2.HorizontalPodAutoscaler
		queries  []string
		problems []string // each must be contained in the problem of its place
	}{
		"a pods metric by its annotations": {
			hpa(map[string]string{"metric-config.pods.rps.json-path/port": "9090", "metric-config.pods.rps.json-path/interval": "30s"}, podsMetric("rps")),
			[]string{`Pods rps by json-path every 30s {"port":"9090"}`}, nil},
		"other annotations and resource metrics are none of ours": {
			hpa(map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "{}", "example.org/metric": "x", "a.b.c.d/e": "f"}, resource), nil, nil},
		"an external metric by its label": {
			hpa(map[string]string{"metric-config.external.queue.sqs-queue-length/region": "eu"}, externalMetric("queue", sqs)),
			[]string{`External queue by sqs every 1m0s {type=sqs-queue-length} {"region":"eu","type":"sqs-queue-length"}`}, nil},
		"a key that a label names is known, others are not": {
			hpa(map[string]string{"metric-config.external.flux-query.influxdb/depth": "from()", "metric-config.external.flux-query.influxdb/deep": "from()"},
				externalMetric("flux-query", map[string]string{"query-name": "depth"})),
			[]string{`External flux-query by influxdb every 1m0s {query-name=depth} {"deep":"from()","depth":"from()","query-name":"depth"}`},
			[]string{`collector "flux-query" has no setting "deep"; it has: depth, query-name, interval, per-replica, fallback-hold, fallback-value`}},
		"a fallback is part of the query": {
			hpa(map[string]string{"metric-config.external.m.cron/fallback-hold": "10m", "metric-config.external.m.cron/fallback-value": "2.5k"}, externalMetric("m", map[string]string{"type": "cron"})),
			[]string{`External m by cron every 1m0s {type=cron} {"type":"cron"} held 10m0s at least 2500000m`}, nil},
		"a fallback may have no fixed value": {
			hpa(map[string]string{"metric-config.external.m.cron/fallback-hold": "10m"}, externalMetric("m", map[string]string{"type": "cron"})),
			[]string{`External m by cron every 1m0s {type=cron} {"type":"cron"} held 10m0s`}, nil},
		"a fallback may begin with the fixed value, which may be zero": {
			hpa(map[string]string{"metric-config.external.m.cron/fallback-value": "0"}, externalMetric("m", map[string]string{"type": "cron"})),
			[]string{`External m by cron every 1m0s {type=cron} {"type":"cron"} at least 0m`}, nil},
		"a hold that is no duration fails the metric and names the key": {
			hpa(map[string]string{"metric-config.external.m.cron/fallback-hold": "ten"}, externalMetric("m", map[string]string{"type": "cron"})),
			nil, []string{`metric-config.external.m.cron/fallback-hold: "ten" is not a duration such as 10m or 2h`}},
		"a hold beyond a week is refused": {
			hpa(map[string]string{"metric-config.external.m.cron/fallback-hold": "169h"}, externalMetric("m", map[string]string{"type": "cron"})),
			nil, []string{`fallback-hold: 169h0m0s is not between 0s and 168h0m0s`}},
		"a hold below zero is refused": {
			hpa(map[string]string{"metric-config.external.m.cron/fallback-hold": "-1s"}, externalMetric("m", map[string]string{"type": "cron"})),
			nil, []string{`fallback-hold: -1s is not between 0s and 168h0m0s`}},
		"a fallback value that is no number fails the metric and names the key": {
			hpa(map[string]string{"metric-config.external.m.cron/fallback-value": "many"}, externalMetric("m", map[string]string{"type": "cron"})),
			nil, []string{`metric-config.external.m.cron/fallback-value: "many" is not a number: write`}},
		"a fallback value below zero is refused": {
			hpa(map[string]string{"metric-config.external.m.cron/fallback-value": "-1"}, externalMetric("m", map[string]string{"type": "cron"})),
			nil, []string{`fallback-value: "-1" is not between 0 and`}},
		"a fallback value that no answer can hold is refused": {
			hpa(map[string]string{"metric-config.external.m.cron/fallback-value": "10P"}, externalMetric("m", map[string]string{"type": "cron"})),
			nil, []string{`fallback-value: "10P" is not between 0 and 9223372036854775`}},
		"a fallback value of endless length is refused before it is worked out": {
			hpa(map[string]string{"metric-config.external.m.cron/fallback-value": "1e2147483647"}, externalMetric("m", map[string]string{"type": "cron"})),
			nil, []string{`fallback-value: "1e2147483647" is not a number`}},
		"a fallback of an object": {
			hpa(map[string]string{"metric-config.object.m.scaling-schedule/fallback-hold": "1h"}, objectMetric("m", "zalando.org/v1", "ScalingSchedule", "sale")),
			[]string{`Object m by schedule every 1m0s of ScalingSchedule.zalando.org/sale held 1h0m0s`}, nil},
		"a fallback of pods has no meaning": {
			hpa(map[string]string{"metric-config.pods.rps.json-path/fallback-hold": "1h", "metric-config.pods.rps.json-path/fallback-value": "x", "metric-config.pods.rps.json-path/port": "1"}, podsMetric("rps")),
			[]string{`Pods rps by json-path every 1m0s {"port":"1"}`}, []string{"fallback-hold: has no meaning", "fallback-value: has no meaning"}},
		"labels are no fallback": {
			hpa(nil, externalMetric("m", map[string]string{"type": "cron", "fallback-hold": "1h"})),
			[]string{`External m by cron every 1m0s {fallback-hold=1h,type=cron} {"type":"cron"}`}, nil},
		"labels are settings, and an annotation wins over a label": {
			hpa(map[string]string{"metric-config.external.queue.x/region": "eu"}, externalMetric("queue", map[string]string{"type": "sqs-queue-length", "region": "us", "queue-name": "q"})),
			[]string{`External queue by sqs every 1m0s {queue-name=q,region=us,type=sqs-queue-length} {"queue-name":"q","region":"eu","type":"sqs-queue-length"}`}, nil},
		"a label that only tells metrics apart is no setting of ours": {
			hpa(nil, externalMetric("m", map[string]string{"type": "http", "secret": "s", "endpoint": "e"})),
			[]string{`External m by http every 1m0s {endpoint=e,secret=s,type=http} {"endpoint":"e","type":"http"}`}, nil},
		"but an annotation of that name is": {
			hpa(map[string]string{"metric-config.external.m.http/secret": "own"}, externalMetric("m", map[string]string{"type": "http", "secret": "s"})),
			[]string{`External m by http every 1m0s {secret=s,type=http} {"secret":"own","type":"http"}`}, nil},
		"a label named interval changes no interval": {
			hpa(nil, externalMetric("m", map[string]string{"type": "cron", "interval": "1ns"})),
			[]string{`External m by cron every 1m0s {interval=1ns,type=cron} {"type":"cron"}`}, nil},
		"the legacy way takes the metric's name": {
			hpa(map[string]string{"metric-config.external.prometheus-query.prometheus/query-name": "up"}, externalMetric("prometheus-query", nil)),
			[]string{`External prometheus-query by prometheus every 1m0s {"query-name":"up"}`}, nil},
		"any word that is not pods or object means external": {
			hpa(map[string]string{"metric-config.ext.m.cron/start": "0 8 * * *"}, externalMetric("m", map[string]string{"type": "cron"})),
			[]string{`External m by cron every 1m0s {type=cron} {"start":"0 8 * * *","type":"cron"}`}, nil},
		"expressions are part of the selector, and one with one value is a setting": {
			hpa(nil, externalMetric("m", nil,
				metav1.LabelSelectorRequirement{Key: "type", Operator: metav1.LabelSelectorOpIn, Values: []string{"cron"}},
				metav1.LabelSelectorRequirement{Key: "stage", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"test"}})),
			[]string{`External m by cron every 1m0s {stage notin (test),type in (cron)} {"type":"cron"}`}, nil},
		"a kind of object has its collector": {
			hpa(nil, objectMetric("sale", "zalando.org/v1", "ScalingSchedule", "sale")),
			[]string{`Object sale by schedule every 1m0s of ScalingSchedule.zalando.org/sale`}, nil},
		"a named collector wins over that of the kind": {
			hpa(map[string]string{"metric-config.object.rps.prometheus/query": "up"}, objectMetric("rps", "networking.k8s.io/v1", "Ingress", "web")),
			[]string{`Object rps by prometheus every 1m0s of Ingress.networking.k8s.io/web {"query":"up"}`}, nil},
		"an unknown name falls to the collector of the kind, with a warning": {
			hpa(map[string]string{"metric-config.object.rps.skiper/interval": "10s"}, objectMetric("rps", "networking.k8s.io/v1", "Ingress", "web")),
			[]string{`Object rps by skipper every 10s of Ingress.networking.k8s.io/web`},
			[]string{`metric "rps": metric-config.object.rps.skiper: there is no collector "skiper" for Object metrics`}},
		"per replica sets the target": {
			hpa(map[string]string{"metric-config.external.m.cron/per-replica": "true"}, externalMetric("m", map[string]string{"type": "cron"})),
			[]string{`External m by cron every 1m0s {type=cron} {"type":"cron"} per replica of Deployment.apps/cart`}, nil},
		"per replica false is false": {
			hpa(map[string]string{"metric-config.external.m.cron/per-replica": "false"}, externalMetric("m", map[string]string{"type": "cron"})),
			[]string{`External m by cron every 1m0s {type=cron} {"type":"cron"}`}, nil},
		"per replica with any other value is true, with a warning": {
			hpa(map[string]string{"metric-config.external.m.cron/per-replica": "no"}, externalMetric("m", map[string]string{"type": "cron"})),
			[]string{`External m by cron every 1m0s {type=cron} {"type":"cron"} per replica of Deployment.apps/cart`},
			[]string{`metric-config.external.m.cron/per-replica: "no" counts as "true"`}},
		"per replica means nothing for pods": {
			hpa(map[string]string{"metric-config.pods.rps.json-path/per-replica": "true", "metric-config.pods.rps.json-path/port": "1"}, podsMetric("rps")),
			[]string{`Pods rps by json-path every 1m0s {"port":"1"}`}, []string{"per-replica: has no meaning"}},
		"two metrics of one name share all annotations": {
			hpa(map[string]string{"metric-config.external.m.cron/interval": "10s", "metric-config.external.m.cron/typo": "x"},
				externalMetric("m", map[string]string{"type": "cron", "a": "1"}), externalMetric("m", map[string]string{"type": "cron", "a": "2"})),
			[]string{
				`External m by cron every 10s {a=1,type=cron} {"a":"1","type":"cron","typo":"x"}`,
				`External m by cron every 10s {a=2,type=cron} {"a":"2","type":"cron","typo":"x"}`},
			[]string{`cron/typo: collector "cron" has no setting "typo"`}},
		"a bad metric leaves the others alone": {
			hpa(map[string]string{"metric-config.pods.rps.json-path/port": "1", "metric-config.pods.rps.json-path/interval": "soon",
				"metric-config.external.m.cron/interval": "10s"}, podsMetric("rps"), externalMetric("m", map[string]string{"type": "cron"})),
			[]string{`External m by cron every 10s {type=cron} {"type":"cron"}`},
			[]string{`metric "rps": metric-config.pods.rps.json-path/interval: "soon" is not a duration such as 30s or 1m`}},
		"an interval below the minimum": {
			hpa(map[string]string{"metric-config.pods.rps.json-path/interval": "1ms"}, podsMetric("rps")), nil,
			[]string{"/interval: 1ms is not between 1s and 24h0m0s"}},
		"a negative interval": {
			hpa(map[string]string{"metric-config.pods.rps.json-path/interval": "-5s"}, podsMetric("rps")), nil, []string{"-5s is not between"}},
		"an interval longer than a value is served": {
			hpa(map[string]string{"metric-config.external.m.cron/interval": "1h"}, externalMetric("m", map[string]string{"type": "cron"})),
			[]string{`External m by cron every 1h0m0s {type=cron} {"type":"cron"}`},
			[]string{"metric-config.external.m.cron/interval: is 1h0m0s, but a value is served for 15m0s only"}},
		"an interval without a unit": {
			hpa(map[string]string{"metric-config.pods.rps.json-path/interval": "30"}, podsMetric("rps")), nil, []string{`"30" is not a duration`}},
		"an endless interval": {
			hpa(map[string]string{"metric-config.pods.rps.json-path/interval": "9000h"}, podsMetric("rps")), nil, []string{"9000h0m0s is not between"}},
		"a misspelled setting is named, with those that exist": {
			hpa(map[string]string{"metric-config.pods.rps.json-path/port": "1", "metric-config.pods.rps.json-path/json-kay": "$.x"}, podsMetric("rps")),
			[]string{`Pods rps by json-path every 1m0s {"json-kay":"$.x","port":"1"}`},
			[]string{`metric-config.pods.rps.json-path/json-kay: collector "json-path" has no setting "json-kay"; it has: json-key, port, interval, per-replica, fallback-hold, fallback-value`}},
		"a missing setting is named": {
			hpa(map[string]string{"metric-config.pods.rps.json-path/json-key": "$.x"}, podsMetric("rps")), nil,
			[]string{`metric "rps": metric-config.pods.rps.json-path/port: is missing`}},
		"a bad value is named": {
			hpa(map[string]string{"metric-config.pods.rps.json-path/port": "bad"}, podsMetric("rps")), nil, []string{`json-path/port: "bad" is bad`}},
		"a bad label is named": {
			hpa(map[string]string{"metric-config.external.q.x/region": "eu"}, externalMetric("q", map[string]string{"type": "sqs-queue-length", "queue-name": "bad"})), nil,
			[]string{`metric "q": spec.metrics[0], label queue-name: "bad" is bad`}},
		"a collector that panics": {
			hpa(map[string]string{"metric-config.pods.rps.json-path/port": "panic"}, podsMetric("rps"), podsMetric("x")), nil,
			[]string{"the collector failed on these settings", "no collector is named"}},
		"an unknown collector for pods": {
			hpa(map[string]string{"metric-config.pods.rps.jsonpath/port": "1"}, podsMetric("rps")), nil,
			[]string{`metric-config.pods.rps.jsonpath: no collector "jsonpath" for Pods metrics; known: json-path`}},
		"a pods metric without annotations": {
			hpa(nil, podsMetric("rps")), nil, []string{`metric-config.pods.rps.<collector>: no collector is named for this Pods metric; known: json-path`}},
		"an external metric without a type": {
			hpa(nil, externalMetric("queue", map[string]string{"region": "eu"})), nil,
			[]string{`its selector has no label "type", and its name stands for none: no collector "queue" for External metrics; known: cron,`}},
		"an external metric with an unknown type": {
			hpa(nil, externalMetric("queue", map[string]string{"type": "sqs"})), nil, []string{`no collector "sqs" for External metrics`}},
		"an object of a kind without a collector": {
			hpa(nil, objectMetric("m", "v1", "Service", "web")), nil, []string{`no collector is named for this Object metric; known: prometheus, scaling-schedule, skipper`}},
		"another namespace as the object": {
			hpa(map[string]string{"metric-config.object.m.prometheus/query": "up"}, objectMetric("m", "v1", "Namespace", "bank")), nil, []string{`its own namespace only, not "bank"`}},
		"two collectors: the first of the alphabet, named": {
			hpa(map[string]string{"metric-config.object.m.skipper/backend": "x", "metric-config.object.m.prometheus/query": "up"}, objectMetric("m", "v1", "Service", "web")),
			[]string{`Object m by prometheus every 1m0s of Service/web {"query":"up"}`},
			[]string{`metric-config.object.m.skipper: is not read: the metric has annotations for the collectors "prometheus" and "skipper", and "prometheus" is used`}},
		"two collectors: a known one before an unknown one": {
			hpa(map[string]string{"metric-config.pods.rps.abc/port": "2", "metric-config.pods.rps.json-path/port": "1"}, podsMetric("rps")),
			[]string{`Pods rps by json-path every 1m0s {"port":"1"}`}, []string{`pods.rps.abc: is not read`}},
		"two collectors of an external metric: that of the label": {
			hpa(map[string]string{"metric-config.external.m.a/start": "2", "metric-config.external.m.cron/start": "1"}, externalMetric("m", map[string]string{"type": "cron"})),
			[]string{`External m by cron every 1m0s {type=cron} {"start":"1","type":"cron"}`}, []string{`external.m.a: is not read`}},
		"a metric that the HPA does not have": {
			hpa(map[string]string{"metric-config.pods.rsp.json-path/port": "1"}, podsMetric("rps")), nil,
			[]string{`no collector is named`, `metric "rsp": metric-config.pods.rsp.json-path: the HPA has no Pods metric of this name (its metrics: Pods rps)`}},
		"a metric of another type": {
			hpa(map[string]string{"metric-config.pods.m.cron/start": "1"}, externalMetric("m", map[string]string{"type": "cron"})),
			[]string{`External m by cron every 1m0s {type=cron} {"type":"cron"}`}, []string{`the HPA has no Pods metric of this name`}},
		"a dot too many":   {hpa(map[string]string{"metric-config.pods.http.rps.json-path/port": "1"}), nil, []string{"it has 5 parts before the slash instead of 4"}},
		"a dot too few":    {hpa(map[string]string{"metric-config.pods.json-path/port": "1"}), nil, []string{"it has 3 parts"}},
		"an empty part":    {hpa(map[string]string{"metric-config.pods..json-path/port": "1"}), nil, []string{"it has 4 parts before the slash instead of 4 (a metric's name"}},
		"no slash":         {hpa(map[string]string{"metric-config.pods.rps.json-path": "1"}), nil, []string{"exactly one slash"}},
		"two slashes":      {hpa(map[string]string{"metric-config.pods.rps.json-path/a/b": "1"}), nil, []string{"exactly one slash"}},
		"nothing after it": {hpa(map[string]string{"metric-config.pods.rps.json-path/": "1"}), nil, []string{"exactly one slash"}},
		"a misspelled first word": {
			hpa(map[string]string{"metrics-config.pods.rps.json-path/port": "1", "metric-cofnig.pods.rps.json-path/port": "1"}), nil,
			[]string{`did you mean "metric-config" instead of "metric-cofnig"`, `did you mean "metric-config" instead of "metrics-config"`}},
		"one setting twice by two words for external": {
			hpa(map[string]string{"metric-config.ext.m.cron/start": "2", "metric-config.external.m.cron/start": "1"}, externalMetric("m", map[string]string{"type": "cron"})),
			[]string{`External m by cron every 1m0s {type=cron} {"start":"2","type":"cron"}`}, []string{"metric-config.external.m.cron/start: is not read: metric-config.ext.m.cron/start sets the same"}},
		"a value that is too long": {
			hpa(map[string]string{"metric-config.pods.rps.json-path/port": strings.Repeat("1", maxValueLength+1)}, podsMetric("rps")), nil,
			[]string{"its value has 16385 bytes", "no collector is named"}},
		"an invalid selector": {
			hpa(nil, externalMetric("m", nil, metav1.LabelSelectorRequirement{Key: "type", Operator: "Has"})), nil, []string{"spec.metrics[0]: its selector is invalid"}},
		"a metric without its part": {hpa(nil, autoscalingv2.MetricSpec{Type: autoscalingv2.PodsMetricSourceType}), nil, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := Parse(tt.hpa, registry(), Options{DefaultInterval: time.Minute, MaxAge: 15 * time.Minute})
			var queries []string
			for _, m := range got.Metrics {
				queries = append(queries, show(m.Query))
			}
			if diff := cmp.Diff(tt.queries, queries); diff != "" {
				t.Errorf("queries (-want +got):\n%s", diff)
			}
			var problems []string
			for _, p := range got.Problems {
				problems = append(problems, p.String())
			}
			if len(problems) != len(tt.problems) {
				t.Fatalf("%d problems, want %d:\n%s", len(problems), len(tt.problems), strings.Join(problems, "\n"))
			}
			for i := range problems {
				if !strings.Contains(problems[i], tt.problems[i]) {
					t.Errorf("problem %q does not say %q", problems[i], tt.problems[i])
				}
			}
		})
	}
}

func TestForeignMetricsAreThoseThatNoAnnotationNames(t *testing.T) {
	got := Parse(hpa(map[string]string{"metric-config.pods.ours.jsonpath/port": "1"},
		podsMetric("theirs"), podsMetric("ours"), externalMetric("s0-queue", map[string]string{"scaledobject.keda.sh/name": "x"})), registry(), Options{DefaultInterval: time.Minute, MaxAge: 15 * time.Minute})
	foreign := map[string]bool{}
	for _, p := range got.Problems {
		foreign[p.Metric] = p.Foreign
	}
	if diff := cmp.Diff(map[string]bool{"theirs": true, "ours": false, "s0-queue": true}, foreign); diff != "" {
		t.Errorf("foreign (-want +got):\n%s", diff)
	}
}

func TestWhatOneHPAMayAskIsBounded(t *testing.T) {
	annotations := map[string]string{}
	var metrics []autoscalingv2.MetricSpec
	for i := range 1000 {
		annotations[fmt.Sprintf("metric-config.pods.m%04d.json-path/port", i)] = "1"
		metrics = append(metrics, podsMetric(fmt.Sprintf("m%04d", i)))
	}
	options := Options{DefaultInterval: time.Minute, MaxAge: 15 * time.Minute}
	got := Parse(hpa(annotations, metrics...), registry(), options)
	annotations["example.org/owner"], annotations["zzz"] = "shop", "1"
	slim := Slim(annotations)
	if len(slim) != maxAnnotations+1 {
		t.Errorf("%d annotations are kept, want %d", len(slim), maxAnnotations+1)
	}
	if diff := cmp.Diff(got, Parse(hpa(slim, metrics...), registry(), options)); diff != "" {
		t.Errorf("what is not kept makes a difference (-want +got):\n%s", diff)
	}
	if len(got.Metrics) != maxMetrics {
		t.Errorf("%d metrics, want %d", len(got.Metrics), maxMetrics)
	}
	for _, want := range []string{"only the first 64 are read", "more than 512 metric-config annotations"} {
		if !slices.ContainsFunc(got.Problems, func(p Problem) bool { return strings.Contains(p.Message, want) }) {
			t.Errorf("no problem says %q", want)
		}
	}
}

// Whatever the annotations are, Parse does not panic, says the same each time, and every problem names what is at fault.
func FuzzParse(f *testing.F) {
	f.Add("metric-config.pods.rps.json-path/port", "9090", "metric-config.external.queue.sqs/region", "eu", "type", "cron", "m")
	f.Add("metric-config.object.rps.skipper/interval", "-1s", "metric-config.pods.a.b.c/d", "", "a", "b", "rps")
	f.Add("metric-config./", "\xff", "metric.config.pods.x.y/z", "1h", "type", "sqs-queue-length", "x")
	f.Add("metric-config.pods.rps.json-path/per-replica", "false", "metric-config.pods.rps.json/interval", "1e9h", "interval", "0", "rps")
	f.Add("metric-config.external.m.cron/fallback-value", "1e999999999", "metric-config.external.m.cron/fallback-hold", "167h59m", "type", "cron", "m")
	f.Fuzz(func(t *testing.T, key1, value1, key2, value2, label, labelValue, metric string) {
		h := hpa(map[string]string{key1: value1, key2: value2}, podsMetric(metric), externalMetric(metric, map[string]string{label: labelValue}),
			objectMetric(metric, "networking.k8s.io/v1", "Ingress", labelValue))
		got := Parse(h, registry(), Options{DefaultInterval: time.Minute, MaxAge: 15 * time.Minute})
		if diff := cmp.Diff(got, Parse(h, registry(), Options{DefaultInterval: time.Minute, MaxAge: 15 * time.Minute})); diff != "" {
			t.Errorf("two readings differ:\n%s", diff)
		}
		for _, p := range got.Problems {
			if p.Key == "" || p.Message == "" || len(p.String()) > 2*maxMessage {
				t.Errorf("problem %+v", p)
			}
		}
		for _, m := range got.Metrics {
			if m.Query.Interval < MinInterval || m.Query.Interval > MaxInterval {
				t.Errorf("interval %s", m.Query.Interval)
			}
			if f := m.Query.Fallback; f.Hold < 0 || f.Hold > MaxHold || f.Milli < 0 || m.Query.Kind == sample.Pods && f != (sample.Fallback{}) {
				t.Errorf("fallback %+v of %s", f, m.Query.Kind)
			}
		}
	})
}
