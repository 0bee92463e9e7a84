package main

var full = 100.0

// Rates of what may not be there have a zero from what is: a failure's counter comes with the first failure.
var boards = []board{{
	name: "collectors", title: "Collector output", metric: "kubetide_hpas",
	about: "What is collected for metrics of HPAs and IHPAs: how much, from which source, how old, and what fails.",
	more: []variable{
		{name: "namespace", label: "Namespace", metric: "kubetide_collections_total", selector: "$servers"},
		{name: "collector", label: "Collector", metric: "kubetide_queries", selector: "$servers"},
	},
	panels: []panel{
		{number, "HPAs", "HorizontalPodAutoscalers that are watched.", "short", []query{
			{"", `max(kubetide_hpas{$servers})`},
		}, nil},
		{number, "Metrics without a value", "Metrics of HPAs in the chosen namespaces that cannot be read or collected. Servers name 1,000 at most.", "short", []query{
			{"", `count(max by (namespace, hpa, metric) (kubetide_metric_failing{$servers, namespace=~"$namespace"})) or vector(0)`},
		}, nil},
		{number, "Metrics on a fallback", "Metrics of HPAs in the chosen namespaces for which the fallback is served. Servers name 1,000 at most.", "short", []query{
			{"", `count(max by (namespace, hpa, metric) (kubetide_metric_fallback{$servers, namespace=~"$namespace"})) or vector(0)`},
		}, nil},
		{number, "Oldest value", "Age of the oldest value that is served, of the chosen collectors.", "s", []query{
			{"", `max(kubetide_sample_age_seconds{$servers, collector=~"$collector"})`},
		}, nil},
		{lines, "Queries by collector", "Distinct queries that are collected. HPAs that ask the same share one.", "short", []query{
			{"{{collector}}", `max by (collector) (kubetide_queries{$servers, collector=~"$collector"})`},
		}, nil},
		{lines, "Queries by state", "Fresh has a value. Fallback is served in its place. Stale had a value that is too old, Missing never had one.", "short", []query{
			{"{{state}}", `sum by (state) (max by (collector, state) (kubetide_series{$servers, collector=~"$collector"}))`},
		}, nil},
		{lines, "Age of the oldest value", "Age of the oldest value that is served, by collector. It goes up to the interval, and beyond it while collections fail.", "s", []query{
			{"{{collector}}", `max by (collector) (kubetide_sample_age_seconds{$servers, collector=~"$collector"})`},
		}, nil},
		{lines, "Age when served", "How old values were when they were read, from the start of their collection: half and 99 % of the reads were below.", "s", []query{
			{"99 % {{collector}}", `histogram_quantile(0.99, sum by (collector, le) (rate(kubetide_answer_age_seconds_bucket{$servers, collector=~"$collector"}[$__rate_interval])))`},
			{"50 % {{collector}}", `histogram_quantile(0.5, sum by (collector, le) (rate(kubetide_answer_age_seconds_bucket{$servers, collector=~"$collector"}[$__rate_interval])))`},
		}, nil},
		{lines, "Collections by namespace", "Collections that have ended, however they did. The first 200 namespaces have a line, the rest is _other.", "ops", []query{
			{"{{namespace}}", `sum by (namespace) (rate(kubetide_collections_total{$servers, namespace=~"$namespace", collector=~"$collector"}[$__rate_interval]))`},
		}, nil},
		{lines, "Collections by collector", "Collections that have ended, however they did.", "ops", []query{
			{"{{collector}}", `sum by (collector) (rate(kubetide_collections_total{$servers, namespace=~"$namespace", collector=~"$collector"}[$__rate_interval]))`},
		}, nil},
		{lines, "Share of failed collections", "Collections without a value, for another reason than that the source has none.", "percentunit", []query{
			{"{{collector}}", `(
				sum by (collector) (rate(kubetide_collections_total{$servers, namespace=~"$namespace", collector=~"$collector", result!~"success|partial|no_data"}[$__rate_interval]))
				or 0 * sum by (collector) (rate(kubetide_collections_total{$servers, namespace=~"$namespace", collector=~"$collector"}[$__rate_interval]))
			) / sum by (collector) (rate(kubetide_collections_total{$servers, namespace=~"$namespace", collector=~"$collector"}[$__rate_interval]))`},
		}, nil},
		{lines, "Results other than success", "Collections by what went wrong; docs/metrics.md says what the words mean.", "ops", []query{
			{"{{result}}", `sum by (result) (rate(kubetide_collections_total{$servers, namespace=~"$namespace", collector=~"$collector", result!="success"}[$__rate_interval])) or on () vector(0)`},
		}, nil},
		{lines, "Time that a collection takes", "Half and 99 % of the collections took less.", "s", []query{
			{"99 % {{collector}}", `histogram_quantile(0.99, sum by (collector, le) (rate(kubetide_collection_duration_seconds_bucket{$servers, collector=~"$collector"}[$__rate_interval])))`},
			{"50 % {{collector}}", `histogram_quantile(0.5, sum by (collector, le) (rate(kubetide_collection_duration_seconds_bucket{$servers, collector=~"$collector"}[$__rate_interval])))`},
		}, nil},
		{lines, "Requests to sources", "Requests that left Kubetide or were refused, by their result.", "reqps", []query{
			{"{{collector}} {{result}}", `sum by (collector, result) (rate(kubetide_outbound_requests_total{$servers, collector=~"$collector"}[$__rate_interval]))`},
		}, nil},
		{rows, "Metrics without a value, by name", "Their HPAs' Events name the cause.", "short", []query{
			{"", `max by (namespace, hpa, metric) (kubetide_metric_failing{$servers, namespace=~"$namespace"})`},
		}, nil},
		{rows, "Metrics on a fallback, by name", "Their sources are silent, and their HPAs' annotations say what is served.", "short", []query{
			{"", `max by (namespace, hpa, metric) (kubetide_metric_fallback{$servers, namespace=~"$namespace"})`},
		}, nil},
		{lines, "Answers of the metrics APIs", "What HPAs and others have read: a value, a fallback, or none.", "reqps", []query{
			{"{{api}} {{result}}", `sum by (api, result) (rate(kubetide_answers_total{$servers}[$__rate_interval]))`},
		}, nil},
		{lines, "Collections that are running", "Collections that have begun and not ended.", "short", []query{
			{"{{collector}}", `sum by (collector) (kubetide_collections_running{$servers, collector=~"$collector"})`},
		}, nil},
	},
}, {
	name: "workload", title: "Workload", metric: "kubetide_ihpa_online_replicas",
	about: "One IntelligentHorizontalPodAutoscaler: what its portraits ask for, what comes of it, and how its pods get there.",
	more: []variable{
		{name: "namespace", label: "Namespace", metric: "kubetide_ihpa_online_replicas", selector: "$servers", single: true},
		{name: "ihpa", label: "IHPA", metric: "kubetide_ihpa_online_replicas", selector: `$servers, namespace=~"$namespace"`, single: true},
	},
	panels: []panel{
		{number, "Online", "Running pods that get traffic.", "short", []query{
			{"", `max(kubetide_ihpa_online_replicas{$servers, namespace=~"$namespace", ihpa=~"$ihpa"})`},
		}, nil},
		{number, "Desired", "Replicas that the workload is going to.", "short", []query{
			{"", `max(kubetide_ihpa_desired_replicas{$servers, namespace=~"$namespace", ihpa=~"$ihpa"})`},
		}, nil},
		{number, "Gray run", "How much of the gray run is done; 100 when none is on its way.", "percent", []query{
			{"", `max(kubetide_ihpa_gray_percent{$servers, namespace=~"$namespace", ihpa=~"$ihpa"})`},
		}, &full},
		{number, "Changes in an hour", "How often the desired replicas have changed within the last hour.", "short", []query{
			{"", `max(changes(kubetide_ihpa_desired_replicas{$servers, namespace=~"$namespace", ihpa=~"$ihpa"}[1h]))`},
		}, nil},
		{lines, "Portraits", "Replicas that each portrait asks for. One without an opinion has no line.", "short", []query{
			{"{{portrait}}", `max by (portrait) (kubetide_ihpa_portrait_replicas{$servers, namespace=~"$namespace", ihpa=~"$ihpa"})`},
		}, nil},
		{lines, "Merge result", "Wanted is what the winning portrait asks for, desired what is left of it after behavior, bounds and hold.", "short", []query{
			{"wanted", `max(kubetide_ihpa_wanted_replicas{$servers, namespace=~"$namespace", ihpa=~"$ihpa"})`},
			{"desired", `max(kubetide_ihpa_desired_replicas{$servers, namespace=~"$namespace", ihpa=~"$ihpa"})`},
		}, nil},
		{lines, "Demand against capacity", "What is asked for, what serves, and the bounds that hold. Demand above the maximum is not met.", "short", []query{
			{"demand", `max(kubetide_ihpa_wanted_replicas{$servers, namespace=~"$namespace", ihpa=~"$ihpa"})`},
			{"capacity", `max(kubetide_ihpa_online_replicas{$servers, namespace=~"$namespace", ihpa=~"$ihpa"})`},
			{"minimum", `max(kubetide_ihpa_min_replicas{$servers, namespace=~"$namespace", ihpa=~"$ihpa"})`},
			{"maximum", `max(kubetide_ihpa_max_replicas{$servers, namespace=~"$namespace", ihpa=~"$ihpa"})`},
		}, nil},
		{lines, "Pods by state", "Online pods get traffic. Cutoff and Standby ones run without, and are deleted when the gray run ends.", "short", []query{
			{"online", `max(kubetide_ihpa_online_replicas{$servers, namespace=~"$namespace", ihpa=~"$ihpa"})`},
			{"cutoff", `max(kubetide_ihpa_cutoff_replicas{$servers, namespace=~"$namespace", ihpa=~"$ihpa"})`},
			{"standby", `max(kubetide_ihpa_standby_replicas{$servers, namespace=~"$namespace", ihpa=~"$ihpa"})`},
		}, nil},
		{lines, "Progress of the gray run", "How much of the gray run is done; 100 when none is on its way.", "percent", []query{
			{"done", `max(kubetide_ihpa_gray_percent{$servers, namespace=~"$namespace", ihpa=~"$ihpa"})`},
		}, &full},
		{bands, "Conditions", "The conditions of the status. GrayStalled, Conflict and ScalingLimited should be False, ScalingActive and PortraitsHealthy True.", "bool", []query{
			{"{{condition}}", `max by (condition) (kubetide_ihpa_condition{$servers, namespace=~"$namespace", ihpa=~"$ihpa"})`},
		}, nil},
	},
}, {
	name: "stacks", title: "Stacks and traffic", metric: "stackset_errors_count",
	about: "StackSets: which Stack is to have which share of the traffic, which it has, and what is in between. The leader tells of them.",
	more: []variable{
		{name: "namespace", label: "Namespace", metric: "stackset_stackset_stacks", selector: "$servers"},
		{name: "application", label: "Application", metric: "stackset_stackset_stacks", selector: `$servers, namespace=~"$namespace"`},
	},
	panels: []panel{
		{number, "StackSets", "StackSets that are looked after.", "short", []query{
			{"", `count(max by (namespace, stackset) (stackset_stackset_stacks{$servers, namespace=~"$namespace", application=~"$application"}))`},
		}, nil},
		{number, "Stacks", "All their Stacks.", "short", []query{
			{"", `sum(max by (namespace, stackset) (stackset_stackset_stacks{$servers, namespace=~"$namespace", application=~"$application"}))`},
		}, nil},
		{number, "Traffic on its way", "Percent of the traffic that is not where it should be, of the StackSet that lacks most.", "percent", []query{
			{"", `max(abs(stackset_stack_desired_traffic_weight{$servers, namespace=~"$namespace", application=~"$application"}
				- stackset_stack_actual_traffic_weight{$servers, namespace=~"$namespace", application=~"$application"}))`},
		}, &full},
		{number, "Prescaled Stacks", "Stacks for whose traffic pods are held.", "short", []query{
			{"", `sum(max by (namespace, stack) (stackset_stack_prescaling_active{$servers, namespace=~"$namespace", application=~"$application"}))`},
		}, nil},
		{lines, "Traffic that Stacks have", "Percent of the StackSet's traffic.", "percent", []query{
			{"{{namespace}}/{{stack}}", `max by (namespace, stack) (stackset_stack_actual_traffic_weight{$servers, namespace=~"$namespace", application=~"$application"})`},
		}, &full},
		{lines, "Traffic that Stacks should have", "Percent of the StackSet's traffic.", "percent", []query{
			{"{{namespace}}/{{stack}}", `max by (namespace, stack) (stackset_stack_desired_traffic_weight{$servers, namespace=~"$namespace", application=~"$application"})`},
		}, &full},
		{bands, "Ready for traffic", "Whether the Stack could take traffic: its objects are there and current, and enough pods are ready and known to routers.", "bool", []query{
			{"{{namespace}}/{{stack}}", `max by (namespace, stack) (stackset_stack_ready{$servers, namespace=~"$namespace", application=~"$application"})`},
		}, nil},
		{lines, "Pods held for traffic", "Floor under the Stack's autoscaler while its traffic comes.", "short", []query{
			{"{{namespace}}/{{stack}}", `max by (namespace, stack) (stackset_stack_prescaling_replicas{$servers, namespace=~"$namespace", application=~"$application"})`},
		}, nil},
		{lines, "Stacks by StackSet", "How many Stacks each StackSet has, those without traffic included.", "short", []query{
			{"{{namespace}}/{{stackset}}", `max by (namespace, stackset) (stackset_stackset_stacks{$servers, namespace=~"$namespace", application=~"$application"})`},
		}, nil},
		{lines, "Switches", "Changes of weights that have come into force, of all StackSets.", "ops", []query{
			{"switches", `sum(rate(kubetide_stackset_switches_total{$servers}[$__rate_interval]))`},
		}, nil},
		{lines, "Errors and panics", "Looks at StackSets that failed or found something wrong that does not mend itself, and panics. The StackSet's conditions say what.", "ops", []query{
			{"errors", `sum(rate(stackset_errors_count{$servers}[$__rate_interval]))`},
			{"panics", `sum(rate(stackset_errors_panic_count{$servers}[$__rate_interval]))`},
		}, nil},
	},
}, {
	name: "health", title: "Health", metric: "kubetide_gate_wait_seconds_count", // which each has, whatever its modules are
	about: "Kubetide itself: whether it leads, keeps up, asks the API server, and what it takes.",
	panels: []panel{
		{number, "Servers", "Servers of Kubetide that are scraped.", "short", []query{
			{"", `count(process_start_time_seconds{$servers})`},
		}, nil},
		{number, "Leaders", "Servers that lead: one for each Lease.", "short", []query{
			{"{{name}}", `sum by (name) (leader_election_master_status{$servers})`},
		}, nil},
		{number, "Collections", "Collections by all servers together.", "ops", []query{
			{"", `sum(rate(kubetide_collections_total{$servers}[$__rate_interval])) or vector(0)`},
		}, nil},
		{number, "Failed collections", "Share of the collections without a value, for another reason than that the source has none.", "percentunit", []query{
			{"", `((sum(rate(kubetide_collections_total{$servers, result!~"success|partial|no_data"}[$__rate_interval])) or vector(0))
				/ sum(rate(kubetide_collections_total{$servers}[$__rate_interval]))) or vector(0)`},
		}, nil},
		{bands, "Who leads", "The leader carries out IHPAs, Steps and StackSets. All others serve metrics, and wait.", "bool", []query{
			{"{{instance}} {{name}}", `max by (instance, name) (leader_election_master_status{$servers})`},
		}, nil},
		{lines, "Start of collections after they were due", "99 % began sooner. Above a second Kubetide needs more cpu.", "s", []query{
			{"{{instance}}", `histogram_quantile(0.99, sum by (instance, le) (rate(kubetide_collection_lag_seconds_bucket{$servers}[$__rate_interval])))`},
		}, nil},
		{lines, "Objects that wait", "Objects in the queues of the controllers.", "short", []query{
			{"{{name}}", `sum by (name) (workqueue_depth{$servers})`},
		}, nil},
		{lines, "Looks at objects", "How often the controllers look at an object, by what came of it.", "ops", []query{
			{"{{controller}} {{result}}", `sum by (controller, result) (rate(controller_runtime_reconcile_total{$servers}[$__rate_interval]))`},
		}, nil},
		{lines, "Errors and panics of controllers", "Looks that failed and are repeated, and panics. The log has the causes.", "ops", []query{
			{"{{controller}} errors", `sum by (controller) (rate(controller_runtime_reconcile_errors_total{$servers}[$__rate_interval]))`},
			{"{{controller}} panics", `sum by (controller) (rate(controller_runtime_reconcile_panics_total{$servers}[$__rate_interval]))`},
		}, nil},
		{lines, "Time that a look takes", "99 % took less.", "s", []query{
			{"{{controller}}", `histogram_quantile(0.99, sum by (controller, le) (rate(controller_runtime_reconcile_time_seconds_bucket{$servers}[$__rate_interval])))`},
		}, nil},
		{lines, "Requests to the API server", "Requests by method and the answer's code; <error> is no answer.", "reqps", []query{
			{"{{method}} {{code}}", `sum by (method, code) (rate(rest_client_requests_total{$servers}[$__rate_interval]))`},
		}, nil},
		{lines, "Requests to sources in flight", "Requests whose answer is not complete.", "short", []query{
			{"{{instance}}", `sum by (instance) (kubetide_outbound_requests_in_flight{$servers})`},
		}, nil},
		{lines, "Wait for the readiness gate", "How long ready pods waited until their gate was opened: 99 % waited less.", "s", []query{
			{"pods", `histogram_quantile(0.99, sum by (le) (rate(kubetide_gate_wait_seconds_bucket{$servers}[$__rate_interval])))`},
		}, nil},
		{lines, "Writes for Steps", "Writes for Steps and Pipelines that the API server took.", "ops", []query{
			{"writes", `sum(rate(kubetide_step_writes_total{$servers}[$__rate_interval])) or vector(0)`},
		}, nil},
		{lines, "Memory", "Memory of the process, and what of it holds objects.", "bytes", []query{
			{"{{instance}} resident", `sum by (instance) (process_resident_memory_bytes{$servers})`},
			{"{{instance}} heap", `sum by (instance) (go_memstats_heap_alloc_bytes{$servers})`},
		}, nil},
		{lines, "Processor", "Processors that are in use.", "short", []query{
			{"{{instance}}", `sum by (instance) (rate(process_cpu_seconds_total{$servers}[$__rate_interval]))`},
		}, nil},
		{lines, "Goroutines", "A number that only ever grows is a fault.", "short", []query{
			{"{{instance}}", `sum by (instance) (go_goroutines{$servers})`},
		}, nil},
		{lines, "Time since the start", "It falls to 0 when a server has been started again.", "s", []query{
			{"{{instance}}", `time() - max by (instance) (process_start_time_seconds{$servers})`},
		}, nil},
	},
}, {
	name: "cluster", title: "Cluster", metric: "kubetide_cluster_nodes",
	about: "Servers that share the collecting: who sees whom, who collects what, and how samples travel. A server alone has nothing of it.",
	panels: []panel{
		{number, "Active nodes", "Nodes that are active, as the server sees it that sees most.", "short", []query{
			{"", `max(kubetide_cluster_nodes{$servers, status="active"})`},
		}, nil},
		{number, "Nodes that are not seen by all", "How many active nodes the server lacks that sees fewest. Above 0 for long, the cluster is split.", "short", []query{
			{"", `count(kubetide_cluster_nodes{$servers, status="active"}) - min(kubetide_cluster_nodes{$servers, status="active"})`},
		}, nil},
		{number, "Greatest lag", "How far the server is behind that is most, with what the others send.", "s", []query{
			{"", `max(kubetide_replication_lag_seconds{$servers})`},
		}, nil},
		{number, "Take-overs in an hour", "Queries that another node took over, for whatever reason.", "short", []query{
			{"", `sum(increase(kubetide_cluster_takeovers_total{$servers}[1h]))`},
		}, nil},
		{lines, "Nodes by status", "Nodes that each server knows, itself included.", "short", []query{
			{"{{instance}} {{status}}", `max by (instance, status) (kubetide_cluster_nodes{$servers})`},
		}, nil},
		{lines, "Nodes that come and go", "Other nodes that have come, left or failed, as each server saw it.", "ops", []query{
			{"{{instance}} come", `sum by (instance) (rate(kubetide_cluster_joins_total{$servers}[$__rate_interval]))`},
			{"{{instance}} {{reason}}", `sum by (instance, reason) (rate(kubetide_cluster_leaves_total{$servers}[$__rate_interval]))`},
		}, nil},
		{lines, "Queries by owner", "Queries that are each node's to collect, as it sees the cluster.", "short", []query{
			{"{{instance}}", `max by (instance) (kubetide_cluster_owned_queries{$servers})`},
		}, nil},
		{lines, "Owners of a query", "Queries that are owned, against those that there are: 1 when each has one owner.", "short", []query{
			{"owners", `sum(kubetide_cluster_owned_queries{$servers}) / sum(max by (collector) (kubetide_queries{$servers}))`},
		}, nil},
		{lines, "Take-overs", "Queries of other nodes that a node took over, by what became of the owner; joined is its own coming.", "ops", []query{
			{"{{reason}}", `sum by (reason) (rate(kubetide_cluster_takeovers_total{$servers}[$__rate_interval]))`},
		}, nil},
		{lines, "Time until the new owner's first sample", "From the change of a query's owner: 99 % took less.", "s", []query{
			{"hand-over", `histogram_quantile(0.99, sum by (le) (rate(kubetide_cluster_handover_seconds_bucket{$servers}[$__rate_interval])))`},
		}, nil},
		{lines, "Collected twice", "Samples of a query that another node had collected less than half an interval before.", "ops", []query{
			{"{{instance}}", `sum by (instance) (rate(kubetide_cluster_duplicate_collections_total{$servers}[$__rate_interval]))`},
		}, nil},
		{lines, "Replication lag", "How far others are behind with what each server sends.", "s", []query{
			{"{{instance}}", `max by (instance) (kubetide_replication_lag_seconds{$servers})`},
		}, nil},
		{lines, "Replicated bytes", "Bytes between the servers, before encryption.", "Bps", []query{
			{"{{instance}} {{direction}}", `sum by (instance, direction) (rate(kubetide_replication_bytes_total{$servers}[$__rate_interval]))`},
		}, nil},
		{lines, "Replicated samples", "Samples that came from other servers.", "ops", []query{
			{"{{instance}}", `sum by (instance) (rate(kubetide_replication_samples_total{$servers}[$__rate_interval]))`},
		}, nil},
		{lines, "Dropped samples", "Samples that were not sent or not used; replaced by newer ones they are no loss.", "ops", []query{
			{"{{reason}}", `sum by (reason) (rate(kubetide_replication_dropped_total{$servers}[$__rate_interval]))`},
		}, nil},
		{lines, "Refused", "Messages, nodes and streams that were refused; docs/metrics.md says what the words mean.", "ops", []query{
			{"gossip {{reason}}", `sum by (reason) (rate(kubetide_cluster_refused_total{$servers}[$__rate_interval]))`},
			{"stream {{reason}}", `sum by (reason) (rate(kubetide_replication_refused_total{$servers}[$__rate_interval]))`},
		}, nil},
	},
}}
