package main

import (
	"fmt"
	"slices"
	"strings"
)

// collector is a source of metrics, and its settings. Names and keys are held to the code by a test.
type collector struct {
	// name is that of its package below collectors/, page the one below docs/collectors.
	name, page string
	// types are the types of metrics, in the order of names.
	types []string
	// names are what an annotation, or the label type, calls it; those after the first are older.
	names []string
	keys  []setting
}

// setting is a key of metric-config annotations.
type setting struct {
	key, value, preset, means string
	// labelled says that a label of the metric's selector sets it, too.
	labelled bool
}

var commonSettings = []setting{
	{"interval", "duration, `1s` to `24h`", "`--default-collection-interval` (60s)", "Time between two collections.", false},
	{"per-replica", "`true` or `false`", "`false`", "Divides the value by the replicas that the target has. Not for Pods.", false},
	{"fallback-hold", "duration, `0s` to `168h`", "`0s`", "How long the last known value is served after the source has none. Not for Pods.", false},
	{"fallback-value", "quantity, at least 0", "none: an error", "What is served after that: it, or the last known value if that is higher. Not for Pods.", false},
}

const (
	required = "required"
	none     = "none"
)

var allCollectors = []collector{
	{"podjson", "podjson.md", []string{"Pods"}, []string{"json-path"}, []setting{
		{"format", "`json` or `prometheus`", "`json`", "What the pods answer.", false},
		{"json-key", "JSON path", "it or `json-eval` is required for JSON", "Where the number stands.", false},
		{"json-eval", "expression over JSON paths", "", "The number, computed.", false},
		{"metric", "series as in PromQL", "required for `prometheus`", "The series whose value counts.", false},
		{"port", "1 to 65535", required, "The port of the pods.", false},
		{"path", "URL path", "`/`", "The path that is asked for.", false},
		{"scheme", "`http` or `https`", "`http`", "How the pods are asked.", false},
		{"raw-query", "percent-encoded, without `?`", none, "The query of the URL.", false},
		{"aggregator", "`avg`, `min`, `max`, `sum`", "none: several values are an error", "Makes one number of several in one answer.", false},
		{"request-timeout", "duration, `1ms` to `1m`", "`15s`", "For the whole answer of one pod.", false},
		{"connect-timeout", "duration, `1ms` to `1m`", "`15s`", "For connecting to one pod.", false},
		{"min-pod-ready-age", "duration, `0s` to `24h`", "`0s`", "Pods that have been Ready for less are left out.", false},
	}},
	{"httpjson", "http-json.md", []string{"External"}, []string{"json-path", "http"}, []setting{
		{"endpoint", "URL, 2048 bytes at most", required, "What is asked.", true},
		{"json-key", "JSON path", "it, `json-eval` or `metric` is required", "Where the number stands.", true},
		{"json-eval", "expression over JSON paths", "", "The number, computed.", true},
		{"aggregator", "`avg`, `min`, `max`, `sum`", "none: several values are an error", "Makes one number of several.", true},
		{"format", "`json` or `prometheus`", "`json`", "What the endpoint answers.", false},
		{"metric", "series as in PromQL", "required for `prometheus`", "The series whose value counts.", false},
		{"secret", "name of a Secret of the namespace", none, "The credentials that are sent.", false},
		{"request-timeout", "duration, `1ms` to `1m`", "`15s`", "For the whole answer.", false},
		{"connect-timeout", "duration, `1ms` to `1m`", "`15s`", "For connecting.", false},
	}},
	{"prometheus", "prometheus.md", []string{"External", "Object"}, []string{"prometheus", "prometheus-query"}, []setting{
		{"query", "PromQL", "it or `query-name` is required", "What is asked.", true},
		{"query-name", "name of a key", "", "The key that holds the query, beside this one.", true},
		{"prometheus-server", "URL", "the default server", "The server that is asked.", true},
		{"prometheus-server-alias", "name", "the default server", "A server of `--additional-prometheus-server`.", true},
		{"secret", "name of a Secret of the namespace", "the operator's credentials, for the operator's servers only", "The credentials that are sent.", false},
	}},
	{"influxdb", "influxdb.md", []string{"External"}, []string{"influxdb", "flux-query"}, []setting{
		{"query", "Flux, 10 KiB at most", "it or `query-name` is required", "What is asked.", true},
		{"query-name", "name of a key", "", "The key that holds the query, beside this one.", true},
		{"address", "URL", "`--influxdb-address`", "The server that is asked.", true},
		{"org", "name or ID", "`--influxdb-org`", "The organization.", true},
		{"secret", "name of a Secret of the namespace", "the operator's token, for the operator's server only", "The credentials that are sent.", false},
		{"token", "text", none, "The token itself, which all who see the HPA can read: a Warning says so.", true},
	}},
	{"sqs", "sqs.md", []string{"External"}, []string{"sqs-queue-length"}, []setting{
		{"queue-name", "name, URL or ARN", required, "The queue.", true},
		{"region", "AWS region", "that of URL or ARN; required with a name", "Where the queue is.", true},
		{"owner-account", "12 digits", "that of URL or ARN, else that of the credentials", "Whose queue it is.", true},
		{"include", "`inflight`, `delayed`, or both with a comma", "visible messages only", "Which messages count as well.", true},
		{"role-arn", "ARN", "Kubetide's own identity", "The role to assume, which `--aws-assumable-roles` must allow.", true},
	}},
	{"skipper", "skipper.md", []string{"Object"}, []string{"skipper"}, []setting{
		{"backend", "name", "none: all requests", "The backend whose share of the requests counts.", true},
	}},
	{"externalrps", "external-rps.md", []string{"External"}, []string{"requests-per-second"}, []setting{
		{"hostnames", "host names with commas, 500 at most", required, "The hosts whose requests count.", true},
		{"weight", "percent, 0 to 1000000", "`100`", "The share that counts.", true},
	}},
	{"schedule", "schedules.md", []string{"Object"}, []string{"scaling-schedule"}, nil},
	{"static", "static-and-cron.md", []string{"External"}, []string{"static"}, []setting{
		{"value", "quantity, at least 0", required, "The value.", true},
	}},
	{"cron", "static-and-cron.md", []string{"External"}, []string{"cron"}, []setting{
		{"start", "cron expression of five fields", required, "When the window opens.", true},
		{"end", "cron expression of five fields", required, "When it closes.", true},
		{"value", "quantity, at least 0", required, "The value while it is open.", true},
		{"timezone", "IANA name", "`UTC`", "The zone that start and end are meant in.", true},
		{"default", "quantity, at least 0", "none: no data", "The value outside all windows.", true},
		{"start.*", "", "", "As `start`, of a further window: `start.1` to `start.100`.", true},
		{"end.*", "", "", "As `end`.", true},
		{"value.*", "", "", "As `value`.", true},
		{"timezone.*", "", "that of the first window", "As `timezone`.", true},
	}},
	{"zmon", "zmon.md", []string{"External"}, []string{"zmon", "zmon-check"}, []setting{
		{"check-id", "number", required, "The check.", true},
		{"key", "text", "none: all values together", "Which of its values; the same as `tag-key`.", true},
		{"duration", "duration, `1s` to `168h`", "`10m`", "How far back is looked.", true},
		{"aggregators", "of `avg`, `count`, `last`, `max`, `min`, `sum`, `diff`, with commas", "`last`", "How KairosDB makes one number.", true},
		{"tag-*", "text", none, "Only data points whose tag of that name has this value; 20 at most.", true},
	}},
	{"nakadi", "nakadi.md", []string{"External"}, []string{"nakadi"}, []setting{
		{"metric-type", "`unconsumed-events` or `consumer-lag-seconds`", required, "What is measured: the sum or the greatest of all partitions.", true},
		{"subscription-id", "ID", "it, or the three below, are required", "One subscription.", true},
		{"owning-application", "name", "", "Who owns the subscriptions.", true},
		{"event-types", "names with commas", "", "Their event types.", true},
		{"consumer-group", "name", "", "Their consumer group.", true},
	}},
}

// key is an annotation or a label that has one name.
type key struct {
	name string
	// on are the kinds, who tells whether Kubetide reads or writes it.
	on, who             string
	value, means, wrong string
}

type keyGroup struct {
	title string
	keys  []key
}

const (
	reads  = "read"
	writes = "written"
	both   = "written, read"
	copies = "left alone"
)

var keyGroups = []keyGroup{
	{"Annotations of Secrets", []key{
		{"kubetide.io/host", "Secret", reads, "`host` or `host:port`", "The Secret is meant for Kubetide, and may be sent there only.", "MetricCollectionFailed; nothing is sent"},
		{"serving.kserve.io/s3-endpoint", "Secret of a Step's ServiceAccount", reads, "host", "Becomes `S3_ENDPOINT` and `AWS_ENDPOINT_URL`.", ""},
		{"serving.kserve.io/s3-usehttps", "Secret of a Step's ServiceAccount", reads, "`0` or `1`", "Becomes `S3_USE_HTTPS`; `0` makes the endpoint an `http` one.", ""},
		{"serving.kserve.io/s3-verifyssl", "Secret of a Step's ServiceAccount", reads, "text", "Becomes `S3_VERIFY_SSL`.", ""},
		{"serving.kserve.io/s3-useanoncredential", "Secret of a Step's ServiceAccount", reads, "text", "Becomes `awsAnonymousCredential`.", ""},
		{"serving.kserve.io/s3-usevirtualbucket", "Secret of a Step's ServiceAccount", reads, "text", "Becomes `S3_USER_VIRTUAL_BUCKET`.", ""},
		{"serving.kserve.io/s3-region", "Secret of a Step's ServiceAccount", reads, "AWS region", "Becomes `AWS_DEFAULT_REGION`.", ""},
		{"serving.kserve.io/s3-cabundle", "Secret of a Step's ServiceAccount", reads, "path", "Becomes `AWS_CA_BUNDLE`.", ""},
	}},
	{"Pods of IHPAs", []key{
		{"kapacitystack.io/inject-pod-readiness-gate", "label of Pods", reads, "`true`", "The webhook adds the readiness gate `kapacitystack.io/online` to a new pod.", "no gate is added"},
		{"kapacitystack.io/pod-state", "label of Pods", both, "`Cutoff` or `Standby`", "The state of a pod that gets no traffic. A pod without it is Online.", "counts as Online"},
		{"controller.kubernetes.io/pod-deletion-cost", "annotation of Pods", both, "an integer", "Kubetide writes the lowest of all to pods that are to go first, and takes away none but its own.", "counts as 0"},
	}},
	{"Jobs of external algorithms", []key{
		{"kubetide.io/horizontal-portrait", "label and annotation of CronJobs", both, "UID; `namespace/name`", "The HorizontalPortrait that the CronJob works for.", ""},
		{"kubetide.io/template-hash", "annotation of CronJobs", both, "digest", "What the CronJob was made from.", ""},
	}},
	{"Steps and Pipelines", []key{
		{"kubetide.io/progress-deadline-seconds", "annotation of Steps", reads, "seconds, above 0; default 60", "`progressDeadlineSeconds` of the Deployment.", "AnnotationInvalid; the default counts"},
		{"kubetide.io/pipeline-step", "label of Steps", both, "name", "The name of the template that the Step is made of.", ""},
		{"kubetide.io/copied-from-owner", "annotation of what is made of Steps and Pipelines", both, "JSON", "The labels and annotations that came from the owner, so that they go with it.", "nothing is removed"},
		{"core.kai.io/step", "label of Deployment, Pods, Service, HorizontalPodAutoscaler", both, "name", "The Step.", ""},
		{"core.kai.io/stepUID", "label of Deployment, Pods, Service, HorizontalPodAutoscaler", both, "UID", "The Step; it alone selects the pods.", ""},
		{"core.kai.io/pipeline", "label of Steps", both, "name", "The Pipeline.", ""},
		{"core.kai.io/pipelineUID", "label of Steps", both, "UID", "The Pipeline.", ""},
	}},
	{"StackSets and Stacks", []key{
		{"alpha.stackset-controller.zalando.org/prescale-stacks", "annotation of StackSets", reads, "any", "Turns prescaling on by being there.", ""},
		{"alpha.stackset-controller.zalando.org/reset-hpa-min-replicas-delay", "annotation of StackSets", reads, "duration; default `10m`", "How long the pods are held after traffic was increased.", "InvalidAnnotation; the default counts"},
		{"stackset-controller.zalando.org/controller", "annotation of StackSets", reads, "`--controller-id`", "The controller that the StackSet belongs to.", "the StackSet is another controller's"},
		{"kubetide.io/traffic-write-back", "annotation of StackSets", reads, "`false`", "Leaves `spec.traffic` as it was written.", "counts as unset"},
		{"zalando.org/forward-backend", "annotation of StackSets and Stacks", both, "any", "The pods run in another cluster. On a StackSet it counts with `--enable-forward-support`.", ""},
		{"kubetide.io/ihpa", "annotation of Stacks", reads, "YAML, or empty", "The Stack is scaled by an [IHPA](../stackset-ihpa.md); the value has what an autoscaler has no field for.", "FailedManageHPA"},
		{"stackset", "label of what is made of StackSets", both, "name", "The StackSet; with `stack-version` it selects the pods.", ""},
		{"stack-version", "label of Stacks and what is made of them", both, "version", "The version.", ""},
		{"application", "label of StackSets and Stacks", reads, "name", "In metrics, and whose credentials a PlatformCredentialsSet has.", "refused at admission where it is needed"},
		{"stackset-controller.zalando.org/stack-generation", "annotation of what is made of Stacks", both, "number", "The generation of the Stack that the object was made from.", "the object counts as not current"},
		{"zalando.org/skipper-predicate", "annotation of Ingresses", both, "skipper's predicates", "The traffic segment of a Stack; the collector `skipper` reads it of any Ingress.", "MetricCollectionFailed"},
		{"zalando.org/skipper-backend", "annotation of Ingresses", writes, "`forward`", "Requests go to the other cluster.", ""},
	}},
	{"Of others", []key{
		{"app.kubernetes.io/name", "label of the Secret with certificates, and of APIServices", both, "`kubetide`", "What is Kubetide's. `kubectl tide doctor` finds metrics APIs of others by it.", ""},
		{"app.kubernetes.io/managed-by", "label of the Secret with certificates", writes, "`kubetide`", "Who made it.", ""},
		{"kubernetes.io/service-name", "label of EndpointSlices", reads, "name", "The Service of a Stack whose endpoints they are.", ""},
		{"kubectl.kubernetes.io/last-applied-configuration", "annotation of all", reads, "JSON", "Copied from a Step when an object is created and never again; kept in no memory. `kubectl tide doctor` finds out who applies replicas by it.", ""},
		{"kubectl.kubernetes.io/", "annotations of what is made of Stacks", copies, "", "Others' keys of this prefix stay when the Stack changes.", ""},
		{"deployment.kubernetes.io/", "annotations of what is made of Stacks", copies, "", "As above.", ""},
		{"autoscaling.alpha.kubernetes.io/", "annotations of what is made of Stacks", copies, "", "As above.", ""},
	}},
}

func annotationsPage() string {
	var b strings.Builder
	fmt.Fprintf(&b, generated, "docs/reference/generate/annotations.go, which a test holds to the code")
	b.WriteString(`# Annotations and labels

Every annotation and label that Kubetide reads or writes. Two more are the operator's to name: ` + "`--skipper-backends-annotation`" + ` (weights of
an Ingress' backends) and ` + "`--sync-ingress-annotation`" + ` (what segments take from the StackSet). Values are strings: quote numbers.

## Metrics of HPAs and IHPAs

An annotation has the form ` + "`metric-config.<type>.<metric>.<collector>/<key>`" + `. The type is ` + "`pods`, `object` or `external`" + `, the metric is its name in
the spec, without dots. For External metrics the label ` + "`type`" + ` in the metric's selector names the collector, and without it the metric's name. At
most 512 such annotations of an object are read, and 16 KiB of each.

A setting that is wrong is the Event ` + "`CreateNewMetricsCollector`" + `, and the metric is not collected. A key that no collector has is
` + "`MetricConfigIgnored`" + `; see [Events](events.md). The pages of the collectors have all of their messages.

### Settings of all collectors

From annotations only. More on the last two: [fallback](../fallback.md).

`)
	writeSettings(&b, commonSettings, false)
	for _, c := range allCollectors {
		var names []string
		for _, n := range c.names {
			names = append(names, "`"+n+"`")
		}
		called := strings.Join(names, ", by an older name ")
		fmt.Fprintf(&b, "\n### %s of %s metrics\n\nCollector %s, metric type %s; [its page](../collectors/%s).", c.names[0], strings.Join(c.types, " and "), called, strings.Join(c.types, ", "), c.page)
		if len(c.keys) == 0 {
			b.WriteString(" It has no settings of its own.\n")
			continue
		}
		b.WriteString("\n\n")
		writeSettings(&b, c.keys, !slices.Contains(c.types, "Pods"))
	}
	for _, g := range keyGroups {
		fmt.Fprintf(&b, "\n## %s\n\n| key | on | | value | meaning | when it is wrong |\n|---|---|---|---|---|---|\n", g.title)
		for _, k := range g.keys {
			name := k.name
			if strings.HasSuffix(name, "/") {
				name += "*"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", code(name), k.on, k.who, prose(k.value), prose(k.means), prose(k.wrong))
		}
	}
	return b.String()
}

// writeSettings writes the table. labels says that it has a column for what labels set.
func writeSettings(b *strings.Builder, all []setting, labels bool) {
	column, rule := "", ""
	if labels {
		column, rule = " label |", "---|"
	}
	fmt.Fprintf(b, "| key | value | default |%s meaning |\n|---|---|---|%s---|\n", column, rule)
	for _, s := range all {
		label := ""
		if labels {
			if label = " no |"; s.labelled {
				label = " yes |"
			}
		}
		fmt.Fprintf(b, "| %s | %s | %s |%s %s |\n", code(s.key), prose(s.value), prose(s.preset), label, prose(s.means))
	}
}
