package e2e

import "fmt"

// badObject is a manifest that must be refused, and what the refusal must say.
type badObject struct {
	yaml string
	want []string
}

// badIHPA is a good IHPA with one spec field replaced or added: the lines of its spec, and what the refusal must name.
func badIHPA(spec string, want ...string) badObject {
	return badObject{"apiVersion: autoscaling.kapacitystack.io/v1alpha1\nkind: IntelligentHorizontalPodAutoscaler\nmetadata: {name: bad}\nspec:\n" + spec, want}
}

const ihpaHead = "  scaleTargetRef: {kind: Deployment, name: x}\n  minReplicas: 1\n  maxReplicas: 3\n"

func badProviders(providers string, want ...string) badObject {
	return badIHPA(ihpaHead+"  portraitProviders: "+providers+"\n", want...)
}

func badCron(cron string, want ...string) badObject {
	return badProviders("[{type: Cron, priority: 1, cron: {crons: ["+cron+"]}}]", want...)
}

func badBehavior(behavior string, want ...string) badObject {
	return badIHPA(ihpaHead+"  portraitProviders: []\n  behavior: "+behavior+"\n", want...)
}

func badSchedule(spec string, want ...string) badObject {
	return badObject{"apiVersion: zalando.org/v1\nkind: ScalingSchedule\nmetadata: {name: bad}\nspec: " + spec, want}
}

var badObjects = map[string]badObject{
	"an IHPA whose minimum exceeds its maximum": badIHPA(
		"  scaleTargetRef: {kind: Deployment, name: x}\n  minReplicas: 5\n  maxReplicas: 3\n  portraitProviders: []\n", "minReplicas"),
	"an IHPA with a negative minimum": badIHPA(
		"  scaleTargetRef: {kind: Deployment, name: x}\n  minReplicas: -1\n  maxReplicas: 3\n  portraitProviders: []\n", "minReplicas"),
	"an IHPA without a target":           badIHPA("  minReplicas: 1\n  maxReplicas: 3\n  portraitProviders: []\n", "scaleTargetRef"),
	"an IHPA without a maximum":          badIHPA("  scaleTargetRef: {kind: Deployment, name: x}\n  minReplicas: 1\n  portraitProviders: []\n", "maxReplicas"),
	"an unknown scale mode":              badIHPA(ihpaHead+"  portraitProviders: []\n  scaleMode: Sometimes\n", "scaleMode"),
	"an unknown provider type":           badProviders("[{type: Magic, priority: 1}]", "type"),
	"a static provider without static":   badProviders("[{type: Static, priority: 1}]", "static"),
	"a cron provider without cron":       badProviders("[{type: Cron, priority: 1}]", "cron"),
	"a dynamic provider without dynamic": badProviders("[{type: Dynamic, priority: 1}]", "dynamic"),
	"a static provider with cron too":    badProviders(`[{type: Static, priority: 1, static: {replicas: 1}, cron: {crons: [{name: a, start: "0 * * * *", end: "1 * * * *", replicas: 1}]}}]`, "cron"),
	"negative static replicas":           badProviders("[{type: Static, priority: 1, static: {replicas: -2}}]", "replicas"),
	"an empty list of crons":             badProviders("[{type: Cron, priority: 1, cron: {crons: []}}]", "crons"),
	"two crons of one name":              badCron(`{name: a, start: "0 * * * *", end: "1 * * * *", replicas: 1}, {name: a, start: "2 * * * *", end: "3 * * * *", replicas: 2}`, "name"),
	"an unknown time zone":               badCron(`{name: a, timeZone: Mars/Base, start: "0 * * * *", end: "1 * * * *", replicas: 1}`, "timeZone"),
	"a cron of six fields":               badCron(`{name: a, start: "0 0 * * * *", end: "1 * * * *", replicas: 1}`, "start"),
	"a cron of words":                    badCron(`{name: a, start: "every day at nine", end: "1 * * * *", replicas: 1}`, "start"),
	"a cron end of one field":            badCron(`{name: a, start: "0 * * * *", end: "*", replicas: 1}`, "end"),
	"an empty cron start":                badCron(`{name: a, start: "", end: "1 * * * *", replicas: 1}`, "start"),
	"a gray state that only holds downwards on the way up": badBehavior(
		"{scaleUp: {grayStrategy: {grayState: Cutoff, changePercent: 50, changeIntervalSeconds: 1}}}", "scaleUp"),
	"a gray state Online on the way down": badBehavior(
		"{scaleDown: {grayStrategy: {grayState: Online, changePercent: 50, changeIntervalSeconds: 1}}}", "scaleDown"),
	"an unknown gray state": badBehavior(
		"{scaleDown: {grayStrategy: {grayState: Dusk, changePercent: 50, changeIntervalSeconds: 1}}}", "grayState"),
	"a change of 0 percent": badBehavior(
		"{scaleDown: {grayStrategy: {grayState: Cutoff, changePercent: 0, changeIntervalSeconds: 1}}}", "changePercent"),
	"a change of 101 percent": badBehavior(
		"{scaleDown: {grayStrategy: {grayState: Cutoff, changePercent: 101, changeIntervalSeconds: 1}}}", "changePercent"),
	"an interval of no time": badBehavior(
		"{scaleDown: {grayStrategy: {grayState: Cutoff, changePercent: 50, changeIntervalSeconds: 0}}}", "changeIntervalSeconds"),
	"a negative observation": badBehavior(
		"{scaleDown: {grayStrategy: {grayState: Cutoff, changePercent: 50, changeIntervalSeconds: 1, observationSeconds: -1}}}", "observationSeconds"),
	"an external pod sorter without its settings": badBehavior("{replicaProfile: {podSorter: {type: External}}}", "podSorter"),

	"a schedule without schedules":        badSchedule("{}", "schedules"),
	"a OneTime schedule without a date":   badSchedule("{schedules: [{type: OneTime, value: 1}]}", "date"),
	"a Repeating one without a period":    badSchedule("{schedules: [{type: Repeating, value: 1}]}", "period"),
	"a date that is none":                 badSchedule(`{schedules: [{type: OneTime, date: "tomorrow", value: 1}]}`, "date"),
	"a negative duration":                 badSchedule(`{schedules: [{type: OneTime, date: "2026-01-01T00:00:00Z", durationMinutes: -1, value: 1}]}`, "durationMinutes"),
	"a negative scaling window":           badSchedule(`{scalingWindowDurationMinutes: -1, schedules: []}`, "scalingWindowDurationMinutes"),
	"a start time with letters before it": badSchedule(`{schedules: [{type: Repeating, value: 1, period: {startTime: "x23:59", days: [Mon], timezone: UTC}}]}`, "startTime"),
	"a start time of 24 o'clock":          badSchedule(`{schedules: [{type: Repeating, value: 1, period: {startTime: "24:00", days: [Mon], timezone: UTC}}]}`, "startTime"),
	"a schedule in an unknown zone":       badSchedule(`{schedules: [{type: Repeating, value: 1, period: {startTime: "23:00", days: [Mon], timezone: Mars/Base}}]}`, "timezone"),
	"an unknown day":                      badSchedule(`{schedules: [{type: Repeating, value: 1, period: {startTime: "23:00", days: [Monday], timezone: UTC}}]}`, "days"),
	"a schedule of an unknown type":       badSchedule(`{schedules: [{type: Never, value: 1}]}`, "type"),
	"a value that is no integer":          badSchedule(`{schedules: [{type: OneTime, date: "2026-01-01T00:00:00Z", value: 1.5}]}`, "value"),
}

// badAnnotation is an HPA's annotation and metrics that must be reported by an Event, and what the Event must say.
type badAnnotation struct {
	annotations string
	metrics     string
	want        []string
}

func (b badAnnotation) yaml(name string) string {
	return fmt.Sprintf(`
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: %s
  annotations: {%s}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}
  minReplicas: 1
  maxReplicas: 2
  metrics: [%s]
`, name, b.annotations, b.metrics)
}

const (
	podsMetric     = `{type: Pods, pods: {metric: {name: load}, target: {type: AverageValue, averageValue: "1"}}}`
	cronMetric     = `{type: External, external: {metric: {name: hours, selector: {matchLabels: {type: cron}}}, target: {type: AverageValue, averageValue: "1"}}}`
	staticMetric   = `{type: External, external: {metric: {name: floor, selector: {matchLabels: {type: static}}}, target: {type: AverageValue, averageValue: "1"}}}`
	scheduleMetric = `{type: Object, object: {describedObject: {apiVersion: zalando.org/v1, kind: ScalingSchedule, name: missing}, metric: {name: missing}, target: {type: AverageValue, averageValue: "1"}}}`
	good           = `metric-config.pods.load.json-path/json-key: $.load, metric-config.pods.load.json-path/port: "80"`
)

func podKeys(keys string) string {
	return good + ", " + keys
}

var badAnnotations = map[string]badAnnotation{
	"both key and eval":              {podKeys(`metric-config.pods.load.json-path/json-eval: "1"`), podsMetric, []string{"json-eval"}},
	"neither key nor eval":           {`metric-config.pods.load.json-path/port: "80"`, podsMetric, []string{"json-key"}},
	"no port":                        {`metric-config.pods.load.json-path/json-key: $.load`, podsMetric, []string{"port"}},
	"a port that is no number":       {`metric-config.pods.load.json-path/json-key: $.load, metric-config.pods.load.json-path/port: http`, podsMetric, []string{"port"}},
	"a port out of range":            {`metric-config.pods.load.json-path/json-key: $.load, metric-config.pods.load.json-path/port: "65536"`, podsMetric, []string{"port"}},
	"an unknown scheme":              {podKeys(`metric-config.pods.load.json-path/scheme: gopher`), podsMetric, []string{"scheme", "gopher"}},
	"an unknown aggregator":          {podKeys(`metric-config.pods.load.json-path/aggregator: median`), podsMetric, []string{"aggregator", "median"}},
	"a path that does not parse":     {`metric-config.pods.load.json-path/json-key: "$.[", metric-config.pods.load.json-path/port: "80"`, podsMetric, []string{"json-key"}},
	"an interval that is none":       {podKeys(`metric-config.pods.load.json-path/interval: soon`), podsMetric, []string{"interval", "soon"}},
	"a negative interval":            {podKeys(`metric-config.pods.load.json-path/interval: -5s`), podsMetric, []string{"interval"}},
	"a tiny interval":                {podKeys(`metric-config.pods.load.json-path/interval: 1ms`), podsMetric, []string{"interval"}},
	"a timeout of no time":           {podKeys(`metric-config.pods.load.json-path/request-timeout: 0s`), podsMetric, []string{"request-timeout"}},
	"a pod age that is none":         {podKeys(`metric-config.pods.load.json-path/min-pod-ready-age: old`), podsMetric, []string{"min-pod-ready-age"}},
	"an unknown key":                 {podKeys(`metric-config.pods.load.json-path/colour: red`), podsMetric, []string{"colour"}},
	"an unknown collector":           {`metric-config.pods.load.telepathy/port: "80"`, podsMetric, []string{"telepathy"}},
	"a key of three parts":           {podKeys(`metric-config.pods.load/port: "80"`), podsMetric, []string{"metric-config.pods.load/port"}},
	"a metric that is not asked":     {podKeys(`metric-config.pods.other.json-path/port: "80"`), podsMetric, []string{"other"}},
	"a cron without a start":         {`metric-config.external.hours.cron/end: "0 * * * *", metric-config.external.hours.cron/value: "1"`, cronMetric, []string{"start"}},
	"a cron that does not parse":     {`metric-config.external.hours.cron/start: often, metric-config.external.hours.cron/end: "0 * * * *", metric-config.external.hours.cron/value: "1"`, cronMetric, []string{"start", "often"}},
	"a cron in an unknown zone":      {`metric-config.external.hours.cron/start: "0 8 * * *", metric-config.external.hours.cron/end: "0 9 * * *", metric-config.external.hours.cron/value: "1", metric-config.external.hours.cron/timezone: Mars/Base`, cronMetric, []string{"timezone", "Mars/Base"}},
	"a cron value that is none":      {`metric-config.external.hours.cron/start: "0 8 * * *", metric-config.external.hours.cron/end: "0 9 * * *", metric-config.external.hours.cron/value: many`, cronMetric, []string{"value", "many"}},
	"a static value that is none":    {`metric-config.external.floor.static/value: NaN`, staticMetric, []string{"value"}},
	"no static value":                {``, staticMetric, []string{"value"}},
	"a schedule that does not exist": {``, scheduleMetric, []string{"missing"}},
}
