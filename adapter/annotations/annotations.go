// Package annotations reads what an HPA asks for: its metrics and its metric-config annotations become queries, and
// everything that is wrong with them becomes a Problem that names the metric and the annotation. It is pure.
//
// The keys are those of kube-metrics-adapter, metric-config.<type>.<metric>.<collector>/<key>. One bad metric leaves the
// others of the HPA alone, and nothing depends on the order of a map.
package annotations

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubetide/kubetide/collectors"
	"github.com/kubetide/kubetide/internal/sample"
)

const (
	prefix = "metric-config"

	keyInterval   = "interval"
	keyPerReplica = "per-replica"
	keyHold       = "fallback-hold"
	keyValue      = "fallback-value"

	// MinInterval is the shortest interval that an annotation may ask for.
	MinInterval = time.Second
	// MaxInterval is the longest one.
	MaxInterval = 24 * time.Hour
	// MaxHold is the longest time for which a last known value can be served.
	MaxHold = 7 * 24 * time.Hour

	maxMetrics     = 64
	maxAnnotations = 512
	maxValueLength = 16 << 10
	maxMessage     = 1000
)

// Metric is one metric of the HPA that can be collected.
type Metric struct {
	// Index is the metric's place in the HPA's spec.metrics.
	Index int
	Query sample.Query
}

// Problem is one thing that is wrong with the HPA's metrics or annotations.
type Problem struct {
	// Metric is the name of the metric; empty where no metric can be told.
	Metric string
	// Key is the annotation, or the field where no annotation is at fault.
	Key string
	// Message is a sentence with the cause and what to change; it does not repeat Metric and Key.
	Message string
	// Fatal says that the metric is not collected. Otherwise it is collected all the same.
	Fatal bool
	// Foreign says that nothing shows that the metric is meant for Kubetide; it may be another adapter's.
	Foreign bool
}

func (p Problem) String() string {
	text := p.Message
	if p.Key != "" {
		text = p.Key + ": " + text
	}
	if p.Metric != "" {
		text = fmt.Sprintf("metric %q: %s", p.Metric, text)
	}
	if len(text) > maxMessage {
		text = text[:maxMessage] + "..."
	}
	return strings.ToValidUTF8(text, "?")
}

// Parsed is what an HPA asks for.
type Parsed struct {
	Metrics  []Metric
	Problems []Problem
	// Barred are the addresses of the External and Object metrics that cannot be collected.
	Barred []sample.Series
	// Of are those of the Problems that came up with a metric, by its place in spec.metrics.
	Of map[int][]Problem
}

// Options are the operator's.
type Options struct {
	// DefaultInterval is that of metrics without an interval annotation.
	DefaultInterval time.Duration
	// MaxAge is the greatest age of a value that is served; 0 for no limit.
	MaxAge time.Duration
}

// Parse reads the HPA.
func Parse(hpa *autoscalingv2.HorizontalPodAutoscaler, registry *collectors.Registry, o Options) Parsed {
	p := &parser{hpa: hpa, registry: registry, options: o, index: -1}
	p.read(hpa.Annotations)
	for i, spec := range hpa.Spec.Metrics {
		if i >= maxMetrics {
			p.index = -1
			p.problem(Problem{Key: "spec.metrics", Message: fmt.Sprintf("has %d metrics; only the first %d are read", len(hpa.Spec.Metrics), maxMetrics), Fatal: true})
			break
		}
		p.index = i
		p.metric(i, spec)
	}
	p.index = -1
	for _, id := range slices.SortedFunc(maps.Keys(p.configs), compareIDs) {
		if config := p.configs[id]; !config.used {
			p.problem(Problem{Metric: id.metric, Key: config.collectors[0].annotation(""),
				Message: fmt.Sprintf("the HPA has no %s metric of this name (its metrics: %s)", id.kind, p.names())})
		}
	}
	return p.out
}

type parser struct {
	hpa      *autoscalingv2.HorizontalPodAutoscaler
	registry *collectors.Registry
	options  Options
	configs  map[metricID]*config
	index    int // of the metric that is being read, or -1
	out      Parsed
}

type metricID struct {
	kind   sample.Kind
	metric string
}

func compareIDs(a, b metricID) int {
	if a.kind != b.kind {
		return strings.Compare(string(a.kind), string(b.kind))
	}
	return strings.Compare(a.metric, b.metric)
}

// config holds the annotations of one metric.
type config struct {
	collectors []*collectorConfig // sorted by name
	used       bool
}

type collectorConfig struct {
	prefix   string // the annotations' part before the slash
	name     string
	settings sample.Settings
}

// annotation is the full annotation key of a setting; without a key, what all annotations of the metric begin with.
func (c *collectorConfig) annotation(key string) string {
	if key == "" {
		return c.prefix
	}
	return c.prefix + "/" + key
}

func (p *parser) problem(problem Problem) {
	if !slices.Contains(p.out.Problems, problem) { // metrics of one name share their annotations
		p.out.Problems = append(p.out.Problems, problem)
	}
	if p.index >= 0 {
		if p.out.Of == nil {
			p.out.Of = map[int][]Problem{}
		}
		p.out.Of[p.index] = append(p.out.Of[p.index], problem)
	}
}

// Slim returns those annotations of an HPA that Parse looks at, so that a cache holds no others: an HPA may have 256 KiB of them.
func Slim(annotations map[string]string) map[string]string {
	keys := slices.Sorted(maps.Keys(annotations))
	keys = slices.DeleteFunc(keys, func(key string) bool { return !ours(key) })
	out := make(map[string]string, min(len(keys), maxAnnotations+1))
	for _, key := range keys[:min(len(keys), maxAnnotations+1)] { // one more, which Parse complains about
		out[key] = annotations[key]
	}
	return out
}

// read sorts the annotations by metric.
func (p *parser) read(annotations map[string]string) {
	p.configs = map[metricID]*config{}
	count := 0
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		if !ours(key) {
			continue
		}
		if count++; count > maxAnnotations {
			p.problem(Problem{Key: key, Message: fmt.Sprintf("more than %d %s annotations; this one and those after it are not read", maxAnnotations, prefix)})
			return
		}
		domain, setting, _ := strings.Cut(key, "/")
		parts := strings.Split(domain, ".")
		switch {
		case parts[0] != prefix:
			p.problem(Problem{Key: key, Message: fmt.Sprintf("is not read; did you mean %q instead of %q?", prefix, parts[0])})
			continue
		case strings.Count(key, "/") != 1 || setting == "":
			p.problem(Problem{Key: key, Message: "is not read: it needs exactly one slash, before the setting: " + form})
			continue
		case len(parts) != 4 || slices.Contains(parts, ""):
			p.problem(Problem{Key: key, Message: fmt.Sprintf("is not read: it has %d parts before the slash instead of 4 (a metric's name cannot contain a dot here): %s", len(parts), form)})
			continue
		case len(annotations[key]) > maxValueLength:
			p.problem(Problem{Metric: parts[2], Key: key, Message: fmt.Sprintf("is not read: its value has %d bytes, more than %d", len(annotations[key]), maxValueLength)})
			continue
		}
		id := metricID{kind: kindOf(parts[1]), metric: parts[2]}
		c := p.configs[id]
		if c == nil {
			c = &config{}
			p.configs[id] = c
		}
		i := slices.IndexFunc(c.collectors, func(c *collectorConfig) bool { return c.name == parts[3] })
		if i < 0 {
			i = len(c.collectors)
			c.collectors = append(c.collectors, &collectorConfig{prefix: domain, name: parts[3], settings: sample.Settings{}})
		}
		if _, twice := c.collectors[i].settings[setting]; twice {
			p.problem(Problem{Metric: id.metric, Key: key, Message: "is not read: " + c.collectors[i].annotation(setting) + " sets the same"})
			continue
		}
		c.collectors[i].settings[setting] = annotations[key]
	}
	for _, c := range p.configs {
		slices.SortFunc(c.collectors, func(a, b *collectorConfig) int { return strings.Compare(a.name, b.name) })
	}
}

const form = prefix + ".<type>.<metric>.<collector>/<setting>"

// ours says whether the annotation is meant for an adapter, also if its first word is misspelled.
func ours(key string) bool {
	domain, _, _ := strings.Cut(key, "/")
	first, rest, dotted := strings.Cut(domain, ".")
	if first == prefix {
		return true
	}
	return dotted && strings.Count(rest, ".") == 2 && similar(first, prefix)
}

// similar says that the words differ by at most two edits, or by case and separators only.
func similar(a, b string) bool {
	clean := func(s string) string {
		return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(s))
	}
	a, b = clean(a), clean(b)
	if len(a)-len(b) > 2 || len(b)-len(a) > 2 {
		return false
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)] <= 2
}

// kindOf is kube-metrics-adapter's rule: whatever is not pods or object is external.
func kindOf(word string) sample.Kind {
	switch word {
	case "pods":
		return sample.Pods
	case "object":
		return sample.Object
	}
	return sample.External
}

func (p *parser) names() string {
	var names []string
	for _, m := range p.hpa.Spec.Metrics {
		switch {
		case m.Pods != nil:
			names = append(names, "Pods "+m.Pods.Metric.Name)
		case m.Object != nil:
			names = append(names, "Object "+m.Object.Metric.Name)
		case m.External != nil:
			names = append(names, "External "+m.External.Metric.Name)
		}
	}
	if len(names) == 0 {
		return "none of Pods, Object or External"
	}
	return strings.Join(names, ", ")
}

// metric turns one metric of the spec into a query.
func (p *parser) metric(index int, spec autoscalingv2.MetricSpec) {
	r := collectors.Request{Namespace: p.hpa.Namespace, Target: ObjectRef(p.hpa.Spec.ScaleTargetRef)}
	var identifier autoscalingv2.MetricIdentifier
	switch {
	case spec.Type == autoscalingv2.PodsMetricSourceType && spec.Pods != nil:
		r.Kind, identifier, r.TargetType = sample.Pods, spec.Pods.Metric, spec.Pods.Target.Type
	case spec.Type == autoscalingv2.ObjectMetricSourceType && spec.Object != nil:
		r.Kind, identifier, r.TargetType = sample.Object, spec.Object.Metric, spec.Object.Target.Type
		r.Object = ObjectRef(spec.Object.DescribedObject)
	case spec.Type == autoscalingv2.ExternalMetricSourceType && spec.External != nil:
		r.Kind, identifier, r.TargetType = sample.External, spec.External.Metric, spec.External.Target.Type
	default:
		return // Resource and ContainerResource are not the adapter's
	}
	r.Metric = identifier.Name
	c := p.configs[metricID{kind: r.Kind, metric: r.Metric}]
	if c != nil {
		c.used = true
	}
	fail := func(key string, foreign bool, format string, args ...any) {
		if r.Kind != sample.Pods {
			p.out.Barred = append(p.out.Barred, r.Query("", nil).Series())
		}
		p.problem(Problem{Metric: r.Metric, Key: key, Message: fmt.Sprintf(format, args...), Fatal: true, Foreign: foreign && c == nil})
	}
	if identifier.Selector != nil {
		selector, err := metav1.LabelSelectorAsSelector(identifier.Selector)
		if err != nil {
			fail(fmt.Sprintf("spec.metrics[%d]", index), false, "its selector is invalid: %v", err) // nor can the HPA ask for it
			return
		}
		r.Selector = selector
	}
	if r.Object.Group == "" && r.Object.Kind == "Namespace" && r.Object.Name != r.Namespace {
		fail(fmt.Sprintf("spec.metrics[%d].object.describedObject", index), false, "an HPA can be served its own namespace only, not %q", r.Object.Name)
		return
	}

	fromLabels := sample.ExactLabels(r.Selector)
	name, own, source, err := p.choose(r, fromLabels, c)
	if err != nil {
		fail(own.annotation(""), true, "%v", err)
		return
	}
	perReplica, fallback, ok := p.common(&r, own, fail)
	if !ok {
		return
	}
	r.Settings = sample.Settings{}
	if r.Kind != sample.Pods {
		maps.Copy(r.Settings, fromLabels)
		annotated := commonKeys
		if s, ok := source.(collectors.AnnotationKeys); ok {
			annotated = slices.Concat(annotated, s.AnnotationKeys())
		}
		for _, key := range annotated {
			delete(r.Settings, key)
		}
	}
	maps.Copy(r.Settings, own.settings)
	p.checkKeys(r, own, name, source)

	q, err := parse(source, r)
	if err != nil {
		key := own.annotation("")
		var bad *collectors.KeyError
		if errors.As(err, &bad) {
			key, err = own.annotation(bad.Key), bad.Err
			if _, annotated := own.settings[bad.Key]; !annotated && r.Kind != sample.Pods {
				if _, labelled := fromLabels[bad.Key]; labelled {
					key = fmt.Sprintf("spec.metrics[%d], label %s", index, bad.Key)
				}
			}
		}
		fail(key, false, "%v", err)
		return
	}
	if perReplica {
		q.PerReplica, q.Target = true, r.Target
	}
	q.Fallback = fallback
	p.out.Metrics = append(p.out.Metrics, Metric{Index: index, Query: q})
}

// parse keeps a source's fault with one HPA's settings from stopping the adapter.
func parse(source collectors.Source, r collectors.Request) (q sample.Query, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("the collector failed on these settings: %v", cause)
		}
	}()
	return source.Parse(r)
}

// choose finds the source of the metric and the annotations that belong to it. own is a copy
// and never nil.
func (p *parser) choose(r collectors.Request, fromLabels labels.Set, c *config) (name string, own *collectorConfig, source collectors.Source, err error) {
	registered := func(name string) bool {
		_, err := p.registry.Named(r.Kind, name)
		return err == nil
	}
	byDefault := ""
	switch r.Kind {
	case sample.External:
		// The label decides; without it kube-metrics-adapter takes the metric's name.
		if byDefault = fromLabels["type"]; byDefault == "" {
			byDefault = r.Metric
		}
	case sample.Object:
		byDefault, _ = p.registry.ForObjectKind(schema.GroupKind{Group: r.Object.Group, Kind: r.Object.Kind})
	}
	if c != nil {
		own = c.collectors[0]
		// Of several, the one that the metric names by itself goes first, then the registered ones, each by the alphabet.
		for _, better := range []func(string) bool{func(n string) bool { return n == byDefault }, registered} {
			if i := slices.IndexFunc(c.collectors, func(c *collectorConfig) bool { return better(c.name) }); i >= 0 {
				own = c.collectors[i]
				break
			}
		}
		for _, other := range c.collectors {
			if other != own {
				p.problem(Problem{Metric: r.Metric, Key: other.annotation(""),
					Message: fmt.Sprintf("is not read: the metric has annotations for the collectors %q and %q, and %q is used", own.name, other.name, own.name)})
			}
		}
	}
	name = byDefault
	if own != nil && r.Kind != sample.External && (registered(own.name) || byDefault == "") {
		name = own.name
	}
	if own == nil {
		fallback := name
		if fallback == "" {
			fallback = "<collector>"
		}
		word := strings.ToLower(string(r.Kind))
		own = &collectorConfig{prefix: strings.Join([]string{prefix, word, r.Metric, fallback}, "."), name: fallback}
	} else {
		own = &collectorConfig{prefix: own.prefix, name: own.name, settings: own.settings}
	}
	if c != nil && r.Kind == sample.Object && name != own.name {
		p.problem(Problem{Metric: r.Metric, Key: own.annotation(""),
			Message: fmt.Sprintf("there is no collector %q for Object metrics; its settings are used with %q, the collector of %s", own.name, name, r.Object.Kind)})
	}
	source, err = p.registry.Named(r.Kind, name)
	if err != nil && r.Kind == sample.External && fromLabels["type"] == "" {
		err = fmt.Errorf("its selector has no label \"type\", and its name stands for none: %w", err)
	}
	return name, own, source, err
}

// commonKeys are the settings that all collectors have. They are read from annotations only, never from labels.
var commonKeys = []string{keyInterval, keyPerReplica, keyHold, keyValue}

// common reads commonKeys and takes them from the settings.
func (p *parser) common(r *collectors.Request, own *collectorConfig, fail func(string, bool, string, ...any)) (perReplica bool, fallback sample.Fallback, ok bool) {
	r.Interval = p.options.DefaultInterval
	settings := maps.Clone(own.settings)
	for _, key := range commonKeys {
		text, set := settings[key]
		if !set {
			continue
		}
		delete(settings, key)
		if r.Kind == sample.Pods && key != keyInterval && text != "false" {
			p.problem(Problem{Metric: r.Metric, Key: own.annotation(key), Message: "has no meaning for a metric of type Pods, whose values are the pods' own"})
			continue
		}
		switch key {
		case keyInterval:
			interval, err := time.ParseDuration(strings.TrimSpace(text))
			switch {
			case err != nil:
				fail(own.annotation(key), false, "%q is not a duration such as 30s or 1m", text)
				return false, fallback, false
			case interval < MinInterval || interval > MaxInterval:
				fail(own.annotation(key), false, "%s is not between %s and %s", interval, MinInterval, MaxInterval)
				return false, fallback, false
			case p.options.MaxAge > 0 && interval > p.options.MaxAge:
				p.problem(Problem{Metric: r.Metric, Key: own.annotation(key),
					Message: fmt.Sprintf("is %s, but a value is served for %s only, so there is none for the rest of the interval", interval, p.options.MaxAge)})
			}
			r.Interval = interval
		case keyPerReplica:
			// kube-metrics-adapter divides whatever the value is; here "false" means false.
			perReplica = text != "false"
			if text != "true" && text != "false" {
				p.problem(Problem{Metric: r.Metric, Key: own.annotation(key), Message: fmt.Sprintf(`%q counts as "true"; write "true" or "false"`, text)})
			}
		case keyHold:
			hold, err := time.ParseDuration(strings.TrimSpace(text))
			switch {
			case err != nil:
				fail(own.annotation(key), false, "%q is not a duration such as 10m or 2h", text)
				return false, fallback, false
			case hold < 0 || hold > MaxHold:
				fail(own.annotation(key), false, "%s is not between 0s and %s", hold, MaxHold)
				return false, fallback, false
			}
			fallback.Hold = hold
		case keyValue:
			value, err := fixed(text)
			if err != nil {
				fail(own.annotation(key), false, "%v", err)
				return false, fallback, false
			}
			fallback.Fixed, fallback.Milli = true, value
		}
	}
	own.settings = settings
	return perReplica, fallback, true
}

// fixed reads a fallback value in thousandths.
func fixed(text string) (int64, error) {
	quantity, err := sample.ParseQuantity(strings.TrimSpace(text))
	if err != nil {
		return 0, fmt.Errorf("%.100q is not a number: %w", text, err)
	}
	if quantity.Sign() < 0 || quantity.CmpInt64(math.MaxInt64/1000) > 0 {
		return 0, fmt.Errorf("%.100q is not between 0 and %d", text, math.MaxInt64/1000)
	}
	return quantity.MilliValue(), nil
}

// checkKeys names the annotations that the source does not understand. They change nothing, so the metric is collected.
func (p *parser) checkKeys(r collectors.Request, own *collectorConfig, name string, source collectors.Source) {
	known := source.Keys()
	if free, ok := source.(collectors.FreeKeys); ok {
		known = append(slices.Clone(known), free.FreeKeys(r.Settings)...)
	}
	for _, key := range slices.Sorted(maps.Keys(own.settings)) {
		if slices.ContainsFunc(known, func(pattern string) bool {
			start, any := strings.CutSuffix(pattern, "*")
			return pattern == key || any && strings.HasPrefix(key, start)
		}) {
			continue
		}
		p.problem(Problem{Metric: r.Metric, Key: own.annotation(key), Message: fmt.Sprintf("collector %q has no setting %q; it has: %s",
			name, key, strings.Join(append(slices.Sorted(slices.Values(known)), commonKeys...), ", "))})
	}
}

// ObjectRef is what ref names; the version does not matter.
func ObjectRef(ref autoscalingv2.CrossVersionObjectReference) sample.ObjectRef {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		gv.Group = ref.APIVersion // no such kind will be found, and the message shows what was written
	}
	return sample.ObjectRef{Group: gv.Group, Kind: ref.Kind, Name: ref.Name}
}
