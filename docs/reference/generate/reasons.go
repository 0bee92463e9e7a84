package main

import (
	"fmt"
	"slices"
	"strings"
)

// subject is a kind, or two that are told of alike, with all that is told of it. What stands here is held to the code by a test, which
// follows each reason to where it is written.
type subject struct {
	kinds []string
	// packages are those that write its conditions and Events.
	packages []string
	// source is the component that the Events name.
	source string
	// about is said of its conditions, before the table.
	about      string
	conditions []condition
	// events are those whose reason is none of a condition.
	events []event
}

type condition struct {
	name, about string
	reasons     []reason
}

// reason is one of a condition. event is the type of the Event that tells of it, or empty.
type reason struct {
	name, status, event string
	means, todo         string
}

// event is told for itself. A name that ends in <Kind> stands for one for each kind.
type event struct {
	name, types string
	means, todo string
}

const (
	normal  = "Normal"
	warning = "Warning"
	either  = normal + ", " + warning

	yes     = "True"
	no      = "False"
	unknown = "Unknown"
)

const (
	retried    = "the message is the API server's; it is tried again, at growing intervals"
	nothing    = "nothing"
	wait       = "wait"
	gone       = "nothing, if that was meant"
	rolesOfOwn = "give Kubetide the right, or mend what the message names"
)

var subjects = []subject{
	{
		kinds:    []string{"HorizontalPodAutoscaler"},
		packages: []string{"adapter/discovery", "scaler/scheduled"},
		source:   "`kubetide`; `scheduled-scaling` of ScalingAdjusted",
		events: []event{
			{"CreateNewMetricsCollector", warning, "A metric is not collected, because its settings are missing or wrong, or name no collector that there is.", "mend the annotation or field that the message names; the page of the collector has the messages"},
			{"MetricConfigIgnored", warning, "An annotation changes nothing: it is misspelt, belongs to no metric of the HPA, or loses to another one. The metric is collected all the same.", "mend or remove the annotation that the message names"},
			{"MetricConflict", warning, "An older HPA of the namespace, or an earlier metric of this one, asks for the same metric with other settings, and is served.", "tell the two apart by a label in the metric's selector, or another name"},
			{"MetricCollectionFailed", warning, "A metric cannot be collected, or was not from all pods. Each cause is told once until the metric is well again.", "the message has the source's own words; the page of the collector says what helps"},
			{"MetricCollectionWarning", warning, "A value is served, but may not be the one that was meant: of several the first, for example.", "make the setting say which value is meant"},
			{"MetricCollectionRecovered", normal, "A metric that failed is collected again.", nothing},
			{"MetricFallbackStarted", warning, "The source has no value, and the fallback is served: the last known value, or the fixed one.", "mend the source; the message names the cause, and until when the value is held"},
			{"MetricFallbackEnded", either, "Normal: the source has a value again. Warning: the time of the hold is over, there is no fixed value, and the metric is an error.", "after a Warning: mend the source"},
			{"ScalingAdjusted", normal, "A schedule's window is open, and the HPA's tolerance would have kept the replicas below what the schedule asks for: they were raised to that.", nothing},
		},
	},
	{
		kinds:    []string{"ScalingSchedule", "ClusterScalingSchedule"},
		packages: []string{"scaler/scheduled"},
		source:   "`scheduled-scaling`",
		events: []event{
			{"InvalidSchedule", warning, "The schedule was stored before there was validation, and cannot be used: metrics of it are errors.", "mend the field that the message names"},
		},
	},
	{
		kinds:    []string{"IntelligentHorizontalPodAutoscaler"},
		packages: []string{"scaler/ihpa"},
		source:   "`ihpa_controller`",
		conditions: []condition{
			{"ScalingActive", "True while it scales its target, or would in the mode Auto.", []reason{
				{"SucceededAutoscaling", yes, "", "It works.", nothing},
				{"ScalingPaused", no, "", "`spec.paused` is true.", "set it to false to go on"},
				{"NoValidPortraitValue", no, warning, "No provider has a value: the replicas stay.", "see PortraitsHealthy and the windows; a Static provider of low priority always has one"},
				{"AnotherAutoscaler", no, "", "It stands down; see Conflict.", "see Conflict"},
				{"ReplicaProfileNotApplied", no, "", "The ReplicaProfile of the same name cannot be applied. The message begins with the reason there.", "see the reasons of ReplicaProfiles"},
				{"FailedGetWorkload", no, warning, "The target cannot be read, or is not there.", "mend `spec.scaleTargetRef`, or give Kubetide the right to read the target"},
				{"FailedGetScale", no, warning, "The `/scale` of the target cannot be read.", rolesOfOwn},
				{"FailedGetReplicaProfile", no, warning, "The ReplicaProfile cannot be read.", retried},
				{"FailedCreateReplicaProfile", no, warning, "The ReplicaProfile cannot be created.", retried},
				{"FailedUpdateReplicaProfile", no, warning, "The ReplicaProfile cannot be changed.", retried},
				{"FailedDeleteReplicaProfile", no, warning, "The ReplicaProfile of an earlier target or mode cannot be deleted.", retried},
			}},
			{"ScalingLimited", "True while the bounds or the behavior allow another count than the providers ask for.", []reason{
				{"DesiredWithinRange", no, "", "What is asked for is allowed.", nothing},
				{"TooFewReplicas", yes, "", "Less than `minReplicas` is asked for.", gone},
				{"TooManyReplicas", yes, "", "More than `maxReplicas` is asked for.", "raise `maxReplicas` if the load is real"},
				{"ScaleUpLimit", yes, "", "`behavior.scaleUp` lets the count rise more slowly than asked for.", gone},
				{"ScaleDownLimit", yes, "", "`behavior.scaleDown` lets the count fall more slowly than asked for.", gone},
			}},
			{"GrayProgressing", "True while the online count is not yet what is wanted. Absent in the mode Preview, and while another autoscaler goes first.", []reason{
				{"ReplicasMatchPortrait", no, "", "The online count is the one that is wanted.", nothing},
				{"ReplicasNotMatchPortrait", yes, "", "A change is under way.", wait},
			}},
			{"PortraitsHealthy", "False while a provider fails. Nothing is scaled down then, if the provider would rank at or above the winner.", []reason{
				{"ProvidersHealthy", yes, "", "All providers answer. Warnings stand in the message.", nothing},
				{"ProviderFailed", no, warning, "The message names each provider and its cause.", "mend the source, the rule or the HorizontalPortrait that is named"},
			}},
			{"GrayStalled", "True while a step of a gray run is not carried out in time. Nothing is scaled down further until it is.", []reason{
				{"StepNotApplied", yes, warning, "The message names the step, and since when it is waited for.", "see the condition Applied of the ReplicaProfile, and the pods that are still ready"},
				{"GrayRunning", no, "", "A gray run goes on.", nothing},
				{"GrayNotRunning", no, "", "There is no gray run.", nothing},
			}},
			{"Conflict", "True while somebody else scales the target.", []reason{
				{"NoConflict", no, "", "Nobody else does.", nothing},
				{"AnotherAutoscaler", yes, warning, "The message names a HorizontalPodAutoscaler, or an older IHPA, of the same target. This one stands down.", "delete one of the two, or set this one's `scaleMode` to Preview"},
				{"ReplicasWrittenByOther", yes, warning, "Somebody wrote other replicas; the message names the field manager. Scaling goes on.", "take `replicas` out of the manifest that is applied, or stop who writes it"},
			}},
			{"Held", "True while `spec.hold` keeps the count. Absent as long as nothing was ever held.", []reason{
				{"HoldBegan", yes, normal, "The message has the count, who holds it, until when and why.", "remove `spec.hold` to let go"},
				{"HoldEnded", no, normal, "The hold's time is over. The Event also tells of a hold that was removed.", nothing},
				{"NotHeld", no, "", "The hold was removed.", nothing},
			}},
			{"Stable", "False while a stability checker stops or undoes a gray run. Absent in the mode Preview, and while another autoscaler goes first.", []reason{
				{"Stable", yes, "", "No checker objects. What checkers cannot see stands in the message.", nothing},
				{"GrayPaused", no, warning, "The run stands still. The message has the metric, its value and since when.", "find out why the metric is bad; the run goes on by itself afterwards"},
				{"GrayRolledBack", no, warning, "The pods that were cut off have their traffic back.", "find out why the metric is bad; a new run begins afterwards"},
			}},
		},
		events: []event{
			{"CreateReplicaProfile", normal, "The ReplicaProfile was created; the message has its counts.", nothing},
			{"UpdateReplicaProfile", normal, "The ReplicaProfile was changed: one step of the scaling.", nothing},
			{"PortraitWarning", warning, "All providers answer, but something in the spec does not do what it seems to.", "mend what the message names"},
		},
	},
	{
		kinds:    []string{"ReplicaProfile"},
		packages: []string{"scaler/replicaprofile"},
		source:   "`replica_profile_controller`",
		conditions: []condition{
			{"Applied", "True when every operation that the profile needs has been carried out.", []reason{
				{"ReplicaProfileApplied", yes, "", "All is done.", nothing},
				{"StateChangeSkipped", no, "", "The pods are not yet what `/scale` says, or somebody else keeps writing it; the message says which.", wait + "; if it stays, see Conflict and the pods"},
				{"ReplicaProfilePaused", no, "", "`spec.paused` is true.", "set `paused` of the IHPA to false to go on"},
				{"WorkloadUpdating", no, normal, "The workload replaces its pods: cut pods have their traffic back until it is done.", wait + "; a rollout that stands still has to be mended"},
				{"ReadinessGateMissing", no, warning, "Pods that are to be cut off have no readiness gate, and keep their traffic.", "label the pod template `kapacitystack.io/inject-pod-readiness-gate: \"true\"`; new pods then have the gate"},
				{"AnotherAutoscaler", no, warning, "Another ReplicaProfile has the same target and goes first.", "delete one of the two IHPAs"},
				{"FailedGetWorkload", no, warning, "The target cannot be read, is not there, or is of a kind whose pods cannot be cut off.", "mend `scaleTargetRef`, or give Kubetide the right to read the target"},
				{"FailedGetScale", no, warning, "The `/scale` of the target cannot be read.", rolesOfOwn},
				{"InvalidSelector", no, warning, "The selector in `/scale` cannot be read.", "mend the workload, or the `labelSelectorPath` of its CRD"},
				{"FailedListPods", no, warning, "The pods cannot be listed.", rolesOfOwn},
				{"PodSorterNotSupportedByWorkload", no, warning, "`podSorter` of type External is asked for, which is not carried out.", "write WorkloadDefault"},
				{"FailedGetPodTrafficController", no, warning, "`podTrafficController` of type External is asked for, which is not carried out.", "write ReadinessGate"},
				{"FailedOnlinePods", no, warning, "Pods could not be given their traffic back; also told when the profile goes.", retried},
				{"FailedCutoffPods", no, warning, "Pods could not be cut off.", retried},
				{"FailedSetPodState", no, warning, "Pods could not be set to standby.", retried},
				{"FailedSelectPodsToDelete", no, warning, "The deletion cost of pods could not be written, or a pod not be deleted.", retried},
				{"FailedUpdateScale", no, warning, "The replicas could not be written.", "the message is the API server's, perhaps that of a quota or a webhook; it is tried again"},
			}},
			{"Ensured", "True while the counts of the running pods are those of the profile. False with the reason of Applied while they cannot be found out.", []reason{
				{"ReplicaProfileEnsured", yes, "", "The counts are as wanted.", nothing},
				{"ReplicaNumberNotSatisfied", no, "", "They are not, or not yet.", wait},
			}},
			{"Conflict", "There while somebody else has written the replicas, until the profile changes.", []reason{
				{"ReplicasWrittenByOther", yes, "", "The message names who, and both numbers. The IHPA tells of it.", "see Conflict of the IHPA"},
			}},
		},
		events: []event{
			{"OnlinePods", normal, "These pods have their traffic back.", nothing},
			{"CutoffPods", normal, "These pods get no more traffic.", nothing},
			{"StandbyPods", normal, "These pods are on standby: no traffic.", nothing},
			{"SelectPodsToDelete", normal, "These pods are to be deleted first when the workload is scaled down, or were deleted.", nothing},
			{"UpdateScale", normal, "The replicas of the target were written, from and to.", nothing},
		},
	},
	{
		kinds:    []string{"Pod"},
		packages: []string{"scaler/replicaprofile"},
		conditions: []condition{
			{"kapacitystack.io/online", "The readiness gate: a pod that has it in its spec is Ready only while this is True.", []reason{
				{"Online", yes, "", "The pod may have traffic.", nothing},
				{"Cutoff", no, "", "A ReplicaProfile has cut it off.", "see the IHPA"},
				{"Standby", no, "", "A ReplicaProfile has set it to standby.", "see the IHPA"},
			}},
		},
	},
	{
		kinds:    []string{"HorizontalPortrait"},
		packages: []string{"scaler/horizontalportrait"},
		source:   "`horizontal_portrait_controller`",
		conditions: []condition{
			{"PortraitGenerated", "True while the last attempt gave a portrait. The one before stays in status otherwise, until it expires.", []reason{
				{"SucceededGeneratePortrait", yes, warning, "There is a portrait. The Event is sent when some of the metrics failed: those are left out, and nothing is lowered.", "after a Warning: mend the metric that the message names"},
				{"FailedGeneratePortrait", no, warning, "The algorithm KubeHPA has no result; the message names metric and cause.", "mend the metric, or the target"},
				{"FailedGetPortraitGenerator", no, warning, "There is no such algorithm or type, or jobs are switched off.", "choose another, or let the operator set `--algorithm-job-namespace`"},
				{"FailedReconcileExternalAlgorithmJob", no, warning, "The CronJob of an external algorithm could not be made or changed.", rolesOfOwn},
				{"FailedFetchExternalAlgorithmJobResult", no, warning, "The result of an external algorithm is not there, or cannot be read.", "look at the job's log; the message names the ConfigMap"},
				{"FailedCleanupExternalAlgorithmJob", no, warning, "The CronJob that is no longer needed could not be deleted.", retried},
			}},
			{"SelectorShared", "There while the selector of the workload matches pods of another one as well.", []reason{
				{"PodsOfOthers", yes, warning, "Metrics of pods count those of others. The message names whose.", "make the selectors distinct, or set `kubeHPA.podSelection` to Owner"},
			}},
		},
		events: []event{
			{"MetricConfigIgnored", warning, "An annotation of a metric changes nothing, or a metric has a mistake that does not stop it.", "mend or remove what the message names"},
		},
	},
	{
		kinds:    []string{"Step", "Pipeline"},
		packages: []string{"workloads/step"},
		source:   "`step-controller`, `pipeline-controller`",
		about:    "A Pipeline has Ready and Invalid only.",
		conditions: []condition{
			{"Ready", "True while all objects are there and the Deployment is available; of a Pipeline, while all its Steps are ready. A Deployment that makes no progress gives its own reason.", []reason{
				{"Ready", yes, normal, "All is there and serves.", nothing},
				{"DeploymentUnavailable", no, "", "The Deployment has too few pods that are available.", wait + "; if it stays, look at the pods"},
				{"ProgressDeadlineExceeded", no, warning, "New pods do not become ready in time.", "look at the pods"},
				{"StepsNotReady", no, "", "Steps of the Pipeline are not ready; the message names them.", "see the Steps"},
				{"RuntimeNotFound", no, warning, "There is no ModelRuntime for the model.", "make one, or mend `spec.model`"},
				{"CredentialsNotFound", no, warning, "The ServiceAccount of the model or one of its Secrets cannot be read.", "make it, or bind the ClusterRole `kubetide-secrets` in the namespace"},
				{"NameTaken", no, warning, "An object of that name was not made for this one.", "delete it, or choose another name"},
				{"WaitingForDeletion", no, "", "What an earlier owner of the name left is being deleted.", wait},
				{"RefusedByAPIServer", no, warning, "The API server refuses an object; the message is its own.", "mend the spec"},
				{"WriteFailed", no, warning, "An object could not be read or written.", retried},
				{"NameInvalid", no, warning, "No valid names can be made of the name.", "choose a shorter name, without dots, that begins with a letter"},
				{"NoContainers", no, warning, "There are neither containers nor a model.", "give one of the two"},
				{"DuplicateName", no, warning, "Two templates of the Pipeline have one name.", "rename one"},
			}},
			{"DeploymentAvailable", "What the Deployment says of its condition Available, by its own reason.", []reason{
				{"Missing", no, "", "There is no Deployment.", "see Ready"},
				{"Pending", unknown, "", "It has not said anything yet.", wait},
			}},
			{"AutoscalerActive", "What the HorizontalPodAutoscaler says of AbleToScale and ScalingActive, by its own reason. A Warning by that reason is sent when it was well before.", []reason{
				{"Missing", no, "", "There is no HorizontalPodAutoscaler.", "see Ready"},
				{"Pending", unknown, "", "It has not said anything yet.", wait},
			}},
			{"Invalid", "True while something in the spec cannot work, or works otherwise than written.", []reason{
				{"Valid", no, "", "All is well.", nothing},
				{"NameInvalid", yes, warning, "See Ready.", "choose another name"},
				{"NoContainers", yes, warning, "See Ready.", "give containers or a model"},
				{"DuplicateName", yes, warning, "See Ready.", "rename a template"},
				{"MaxReplicasBelowMin", yes, warning, "`maxReplicas` is below `minReplicas`; the message says what is used.", "mend one of the two"},
				{"MinReplicasRaised", yes, warning, "`minReplicas: 0` counts as 1; the message says why.", "write 1, or allow 0 with `--step-scale-to-zero` and a metric of type Object or External"},
				{"ContainersIgnored", yes, warning, "`spec.containers` is not used, since the model's ModelRuntime has the containers.", "remove them"},
				{"AnnotationInvalid", yes, warning, "An annotation cannot be read, and the default is used.", "mend the annotation that the message names"},
				{"RefusedByAPIServer", yes, warning, "See Ready.", "mend the spec"},
			}},
			{"RuntimeFound", "Of Steps with a model only.", []reason{
				{"Found", yes, "", "There is a ModelRuntime.", nothing},
				{"RuntimeNotFound", no, "", "There is none; Ready tells of it.", "see Ready"},
			}},
			{"CredentialsFound", "Of Steps whose model names a ServiceAccount only.", []reason{
				{"Found", yes, "", "The credentials could be read.", nothing},
				{"CredentialsNotFound", no, "", "They could not; Ready tells of it.", "see Ready"},
			}},
		},
		events: []event{
			{"Created", normal, "An object was created; the message has its kind and name.", nothing},
			{"Updated", normal, "An object was brought back to what the spec says, or followed a change of it.", nothing},
			{"Deleted", normal, "A Step was deleted, because its Pipeline has no template for it any more.", gone},
			{"Woken", normal, "The Deployment was scaled from 0, since `minReplicas` does not allow 0 any more.", nothing},
		},
	},
	{
		kinds:    []string{"StackSet", "Stack"},
		packages: []string{"workloads/stackset"},
		source:   "`stackset-controller`",
		about:    "What is wrong with a Stack is told of the Stack, and of its StackSet with the Stack's name before it.",
		conditions: []condition{
			{"Ready", "Of a StackSet True while all Stacks that should have traffic are ready, and have it; of a Stack while it could take traffic.", []reason{
				{"Ready", yes, "", "It is.", nothing},
				{"NotReady", no, "", "Of a Stack: the message names what it lacks.", wait + ", or look at its pods"},
				{"StacksNotReady", no, "", "Of a StackSet: the message names each Stack and what it lacks.", wait + ", or look at their pods"},
				{"NoStacks", no, "", "There is no Stack: it was deleted by hand, or could not be made.", "set another version"},
				{"FailedManageSegments", no, "", "See Degraded.", "see Degraded"},
			}},
			{"Progressing", "True while there is something to wait for: pods, or traffic that waits for them.", []reason{
				{"Settled", no, "", "There is nothing to wait for.", nothing},
				{"Waiting", yes, "", "The message of Ready says for what.", wait},
			}},
			{"TrafficSwitched", "True while the traffic is shared out as it should be.", []reason{
				{"Switched", yes, "", "It is.", nothing},
				{"NoIngress", yes, "", "There is no way in, and so nothing to share out.", nothing},
				{"StacksNotReady", no, "", "Stacks that should get more are not ready for it; the message names them, and why. The Event is TrafficNotSwitched.", wait + ", or look at their pods"},
				{"FailedManageSegments", no, "", "See Degraded.", "see Degraded"},
			}},
			{"Degraded", "True while something is wrong that does not mend itself. The reason is the first one, the message has all.", []reason{
				{"Healthy", no, "", "Nothing is.", nothing},
				{"InvalidTraffic", yes, warning, "`spec.traffic` names a Stack that does not exist, or has weights that cannot be.", "mend the entry that the message names"},
				{"InvalidAnnotation", yes, warning, "An annotation of the StackSet cannot be read; the default counts.", "mend the annotation"},
				{"FailedCreateStack", yes, warning, "The Stack of the version cannot be made.", "choose a shorter version, without dots; or the name is somebody else's"},
				{"FailedManageSegments", yes, warning, "A segment cannot be written. Traffic stays as it was.", "the message is the API server's"},
				{"FailedManageDeployment", yes, warning, "The Deployment cannot be written or scaled.", "the message is the API server's"},
				{"FailedManageHPA", yes, warning, "The autoscaler cannot be made: a metric lacks a field, or the annotation `kubetide.io/ihpa` cannot be read.", "mend what the message names"},
				{"FailedManageService", yes, warning, "The Service cannot be made.", "`backendPort` must be a port of the Service"},
				{"FailedManageIngress", yes, warning, "The Ingress of the Stack's own host name cannot be written.", "the message is the API server's"},
				{"FailedManageRouteGroup", yes, warning, "The RouteGroup cannot be written, or RouteGroups are switched off.", "mend what the message names; `--enable-routegroup-support`"},
				{"FailedManageIngressSegment", yes, warning, "The Ingress with the Stack's share of the traffic cannot be written.", "the message is the API server's"},
				{"FailedManageRouteGroupSegment", yes, warning, "The RouteGroup with the Stack's share of the traffic cannot be written.", "the message is the API server's"},
				{"FailedManageConfigMap", yes, warning, "A ConfigMap that the Stack holds cannot be made.", "the message names what it lacks, or who has its name"},
				{"FailedManageConfigMapRefs", yes, warning, "A ConfigMap that the Stack names is missing, or another's; or a name in `configurationResources` does not begin with the Stack's.", "make it, rename it, or bind the ClusterRole that the message names"},
				{"FailedManageSecretRefs", yes, warning, "A Secret that the Stack names is missing, or another's.", "make it, or bind the ClusterRole that the message names"},
				{"FailedManagePlatformCredentialsSet", yes, warning, "A PlatformCredentialsSet cannot be made.", "the message names what it lacks, or who has its name"},
				{"PrescalingDeadlineExceeded", yes, warning, "The pods for more traffic were not ready in time. Traffic stays as it is.", "mend the pods, and ask for another weight"},
			}},
		},
		events: []event{
			{"CreatedStack", normal, "The Stack of a new version was made.", nothing},
			{"DeletedExcessStack", normal, "A Stack was deleted, since there are more than `stackLifecycle.limit`.", gone},
			{"FailedDeleteStack", warning, "A Stack that is too many could not be deleted.", retried},
			{"TrafficSwitched", normal, "Traffic was moved; the message has each Stack's share before and after.", nothing},
			{"TrafficNotSwitched", warning, "Traffic cannot be moved yet; see the condition TrafficSwitched.", wait + ", or look at the pods of the Stack that is named"},
			{"UpdatedStackSet", normal, "The weights that count were written to `spec.traffic`.", "annotation `kubetide.io/traffic-write-back: \"false\"` if the spec is applied from a repository"},
			{"FailedUpdateStackStatus", warning, "The status of a Stack could not be written.", retried},
			{"Created<Kind>", normal, "An object of the Stack was created. The kind is Deployment, Service, HPA, IHPA, Ingress, RouteGroup, ConfigMap or PlatformCredentialsSet.", nothing},
			{"Updated<Kind>", normal, "An object of the Stack was changed, or adopted; Secrets too.", nothing},
			{"Deleted<Kind>", normal, "An object that the Stack should not have any more was deleted. Of a StackSet: the segment of a Stack that is gone.", nothing},
		},
	},
}

func (s subject) title() string { return strings.Join(s.kinds, " and ") }

// told are the Events of the subject by name: those for themselves, and those of conditions, which are told once for all that have
// the reason.
func (s subject) told() []event {
	out := slices.Clone(s.events)
	for _, c := range s.conditions {
		for _, r := range c.reasons {
			if r.event == "" {
				continue
			}
			if i := slices.IndexFunc(out, func(e event) bool { return e.name == r.name }); i >= 0 {
				continue
			}
			out = append(out, event{r.name, r.event, fmt.Sprintf("Condition %s is %s. %s", c.name, r.status, r.means), r.todo})
		}
	}
	slices.SortFunc(out, func(a, b event) int { return strings.Compare(a.name, b.name) })
	return out
}

func eventsPage(all []subject) string {
	var b strings.Builder
	fmt.Fprintf(&b, generated, "docs/reference/generate/reasons.go, which a test holds to the code")
	b.WriteString(`# Events

Every Event that Kubetide sends, by the kind that it is about. What repeats is told once, not at every look. ` + "`kubectl describe`" + ` shows them,
and ` + "`kubectl get events --field-selector reason=MetricCollectionFailed`" + ` all of one reason. Conditions with all of their reasons:
[conditions](conditions.md). Metrics: [metrics](../metrics.md).
`)
	for _, s := range all {
		events := s.told()
		if len(events) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\nSource: %s.\n\n| reason | type | what it means | what to do |\n|---|---|---|---|\n", s.title(), s.source)
		for _, e := range events {
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", code(e.name), e.types, prose(e.means), prose(e.todo))
		}
	}
	return b.String()
}

func conditionsPage(all []subject) string {
	var b strings.Builder
	fmt.Fprintf(&b, generated, "docs/reference/generate/reasons.go, which a test holds to the code")
	b.WriteString(`# Conditions

Every condition that Kubetide writes into a status, and each of its reasons. ` + "`observedGeneration`" + ` says which spec a condition is about. The
column "Event" says whether an [Event](events.md) of that type and reason tells of it.
`)
	for _, s := range all {
		if len(s.conditions) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n", s.title())
		if s.about != "" {
			fmt.Fprintf(&b, "\n%s\n", prose(s.about))
		}
		for _, c := range s.conditions {
			fmt.Fprintf(&b, "\n### %s of %s\n\n%s\n\n| reason | status | Event | what it means | what to do |\n|---|---|---|---|---|\n", c.name, s.title(), prose(c.about))
			for _, r := range c.reasons {
				fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", code(r.name), r.status, r.event, prose(r.means), prose(r.todo))
			}
		}
	}
	return b.String()
}
