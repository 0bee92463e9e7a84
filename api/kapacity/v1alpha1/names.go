package v1alpha1

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Names that clients of Kapacity rely on.
const (
	// Finalizer is set on IHPAs, HorizontalPortraits and ReplicaProfiles while something has to be undone
	// before they may go.
	Finalizer = "kapacitystack.io/finalizer"

	// PodStateLabel on a pod holds its PodState. Absent, unknown or Online means Online; only Cutoff and Standby
	// are written.
	PodStateLabel = "kapacitystack.io/pod-state"

	// OnlineConditionType is the type of the readiness gate, and of the pod condition, that decides whether a pod
	// gets traffic.
	OnlineConditionType = "kapacitystack.io/online"

	// InjectReadinessGateLabel, with the value InjectReadinessGateValue, opts a pod in to the webhook that adds the
	// readiness gate.
	InjectReadinessGateLabel = "kapacitystack.io/inject-pod-readiness-gate"
	// InjectReadinessGateValue is the only value of InjectReadinessGateLabel that opts a pod in.
	InjectReadinessGateValue = "true"

	// PodWebhookPath is where the webhook that adds the readiness gate is served.
	PodWebhookPath = "/mutate-v1-pod"
	// PodWebhookName is that webhook's name in its configuration.
	PodWebhookName = "mpod.kb.io"
	// ValidationWebhookPath is where the API server sends objects of this group to be validated, and ValidationWebhookName the name of
	// that webhook. Kubetide additions.
	ValidationWebhookPath = "/validate-autoscaling-kapacitystack-io-v1alpha1"
	ValidationWebhookName = "vscaling.kubetide.io"

	// LeaderElectionID is the name of Kapacity's own lease. Two engines that respect it never write at once.
	LeaderElectionID = "kapacity-manager.kapacitystack.io"
)

// Components (sources) of events.
const (
	IHPAEventComponent               = "ihpa_controller"
	ReplicaProfileEventComponent     = "replica_profile_controller"
	HorizontalPortraitEventComponent = "horizontal_portrait_controller"
)

// Ids of providers, as they stand in status.
const (
	StaticProviderID = "Static"
	CronProviderID   = "Cron"
	// ScheduleProviderIDPrefix stands before the schedule's name: Schedule-evening. A Kubetide addition.
	ScheduleProviderIDPrefix = "Schedule-"
	// DynamicProviderIDPrefix stands before the portrait type: Dynamic-Reactive.
	DynamicProviderIDPrefix = "Dynamic-"
)

// Types of conditions of an IntelligentHorizontalPodAutoscaler.
const (
	// ConditionScalingActive is True while the object scales its target, or would if its mode were Auto.
	ConditionScalingActive = "ScalingActive"
	// ConditionScalingLimited is True while minReplicas or maxReplicas changes what the providers ask for.
	ConditionScalingLimited = "ScalingLimited"
	// ConditionGrayProgressing is True while the online count is not yet what the providers ask for.
	ConditionGrayProgressing = "GrayProgressing"
	// ConditionPortraitsHealthy is False while a provider fails. A Kubetide addition.
	ConditionPortraitsHealthy = "PortraitsHealthy"
	// ConditionGrayStalled is True while a step of a gray run was written but is not applied in time. A Kubetide
	// addition.
	ConditionGrayStalled = "GrayStalled"
	// ConditionConflict is True while somebody else writes the target's replicas; the message names them. A
	// Kubetide addition.
	ConditionConflict = "Conflict"
	// ConditionHeld is True while spec.hold keeps the replica count. A Kubetide addition.
	ConditionHeld = "Held"
	// ConditionStable is False while a stability checker has stopped or undone the gray run. A Kubetide addition.
	ConditionStable = "Stable"
)

// Reasons of ConditionScalingActive. All but SucceededAutoscaling and ScalingPaused are also reasons of Warning
// events.
const (
	ReasonSucceededAutoscaling              = "SucceededAutoscaling"
	ReasonScalingPaused                     = "ScalingPaused"
	ReasonNoValidPortraitValue              = "NoValidPortraitValue"
	ReasonFailedUpdateAndFetchPortraitValue = "FailedUpdateAndFetchPortraitValue"
	ReasonFailedGetReplicaProfile           = "FailedGetReplicaProfile"
	ReasonFailedCreateReplicaProfile        = "FailedCreateReplicaProfile"
	ReasonFailedUpdateReplicaProfile        = "FailedUpdateReplicaProfile"
	ReasonFailedDeleteReplicaProfile        = "FailedDeleteReplicaProfile"
)

// Messages of ConditionScalingActive. Those that take an error end in %v.
const (
	MessageSucceededAutoscaling              = "the autoscaling process is functional"
	MessageScalingPaused                     = "scaling is paused"
	MessageNoValidPortraitValue              = "no valid portrait value for now"
	MessageFailedUpdateAndFetchPortraitValue = "failed to update and fetch portrait value: %v"
	MessageFailedGetReplicaProfile           = "failed to get ReplicaProfile: %v"
	MessageFailedCreateReplicaProfile        = "failed to create ReplicaProfile: %v"
	MessageFailedUpdateReplicaProfile        = "failed to patch ReplicaProfile: %v"
	MessageFailedDeleteReplicaProfile        = "failed to delete ReplicaProfile: %v"
)

// DefaultTolerance is the algorithm KubeHPA's, as the API fills it in.
const DefaultTolerance = "0.1"

// Defaults of the algorithm KubeHPA, as the API fills them in.
var (
	DefaultSyncPeriod              = metav1.Duration{Duration: 15 * time.Second}
	DefaultCPUInitializationPeriod = metav1.Duration{Duration: 5 * time.Minute}
	DefaultInitialReadinessDelay   = metav1.Duration{Duration: 30 * time.Second}
)

// Reasons and messages of ConditionScalingLimited.
const (
	ReasonDesiredWithinRange  = "DesiredWithinRange"
	ReasonTooFewReplicas      = "TooFewReplicas"
	ReasonTooManyReplicas     = "TooManyReplicas"
	MessageDesiredWithinRange = "the desired replica count of current portrait value is within the acceptable range"
	MessageTooFewReplicas     = "the desired replica count of current portrait value is less than the minimum replica count"
	MessageTooManyReplicas    = "the desired replica count of current portrait value is more than the maximum replica count"
)

// Reasons and messages of ConditionGrayProgressing.
const (
	ReasonReplicasMatchPortrait     = "ReplicasMatchPortrait"
	ReasonReplicasNotMatchPortrait  = "ReplicasNotMatchPortrait"
	MessageReplicasMatchPortrait    = "online replica count matches replica count of current portrait value"
	MessageReplicasNotMatchPortrait = "online replica count does not match replica count of current portrait value"
)

// Reasons of the conditions that Kubetide adds to an IntelligentHorizontalPodAutoscaler.
const (
	// PortraitsHealthy.
	ReasonProvidersHealthy = "ProvidersHealthy"
	ReasonProviderFailed   = "ProviderFailed"
	// GrayStalled.
	ReasonStepNotApplied = "StepNotApplied"
	ReasonGrayRunning    = "GrayRunning"
	ReasonGrayNotRunning = "GrayNotRunning"
	// Conflict.
	ReasonNoConflict        = "NoConflict"
	ReasonAnotherAutoscaler = "AnotherAutoscaler"
	ReasonReplicasWritten   = "ReplicasWrittenByOther"
	// Stable. The first two are also reasons of Warning events.
	ReasonGrayPaused     = "GrayPaused"
	ReasonGrayRolledBack = "GrayRolledBack"
	ReasonStable         = "Stable"
	// Held. The first two are also reasons of Normal events.
	ReasonHoldBegan = "HoldBegan"
	ReasonHoldEnded = "HoldEnded"
	ReasonNotHeld   = "NotHeld"
)

// Reasons of the Normal events of the IHPA controller, and their texts. The misspelling is part of the contract.
const (
	EventCreateReplicaProfile        = "CreateReplicaProfile"
	EventUpdateReplicaProfile        = "UpdateReplicaProfile"
	EventMessageCreateReplicaProfile = "create ReplicaProfile with onlineReplcas: %d, cutoffReplicas: %d, standbyReplicas: %d"
	EventMessageUpdateReplicaProfile = "update ReplicaProfile with onlineReplcas: %d -> %d, cutoffReplicas: %d -> %d, standbyReplicas: %d -> %d"
)

// ConditionPortraitGenerated is the type of the condition of a HorizontalPortrait.
const ConditionPortraitGenerated = "PortraitGenerated"

// ConditionSelectorShared is the type of the condition of a HorizontalPortrait that is there, and True, while the selector of its workload
// matches pods of another one as well; ReasonPodsOfOthers is its reason. Kubetide additions.
const (
	ConditionSelectorShared = "SelectorShared"
	ReasonPodsOfOthers      = "PodsOfOthers"
)

// Reasons of ConditionPortraitGenerated; all but the first are also reasons of Warning events.
const (
	ReasonSucceededGeneratePortrait             = "SucceededGeneratePortrait"
	ReasonFailedReconcileExternalAlgorithmJob   = "FailedReconcileExternalAlgorithmJob"
	ReasonFailedFetchExternalAlgorithmJobResult = "FailedFetchExternalAlgorithmJobResult"
	ReasonFailedCleanupExternalAlgorithmJob     = "FailedCleanupExternalAlgorithmJob"
	ReasonFailedGetPortraitGenerator            = "FailedGetPortraitGenerator"
	ReasonFailedGeneratePortrait                = "FailedGeneratePortrait"
	MessageSucceededGeneratePortrait            = "portrait has been successfully generated"
	// MessageUnknownPortraitType is the message of FailedGetPortraitGenerator.
	MessageUnknownPortraitType = "unknown portrait type %q"
)

// The ConfigMap in which an external algorithm leaves its result is named after the HorizontalPortrait, in its
// namespace.
const (
	// ResultConfigMapSuffix follows the HorizontalPortrait's name.
	ResultConfigMapSuffix = "-result"
	// ResultKeyType holds TimeSeries.
	ResultKeyType = "type"
	// ResultKeyExpireTime holds a time in RFC 3339.
	ResultKeyExpireTime = "expireTime"
	// ResultKeyTimeSeries holds a JSON object from Unix seconds (a string) to a replica count.
	ResultKeyTimeSeries = "timeSeries"
)

// Types of conditions of a ReplicaProfile.
const (
	// ConditionApplied is True when every operation that the profile needs has been carried out.
	ConditionApplied = "Applied"
	// ConditionEnsured is True when the counts of the running pods are those of the profile.
	ConditionEnsured = "Ensured"
)

// Reasons and messages of ConditionApplied and ConditionEnsured; the Failed ones, InvalidSelector and
// PodSorterNotSupportedByWorkload are also reasons of Warning events and carry the error's text.
const (
	ReasonReplicaProfileApplied           = "ReplicaProfileApplied"
	ReasonStateChangeSkipped              = "StateChangeSkipped"
	ReasonReplicaProfilePaused            = "ReplicaProfilePaused"
	ReasonFailedGetWorkload               = "FailedGetWorkload"
	ReasonPodSorterNotSupportedByWorkload = "PodSorterNotSupportedByWorkload"
	ReasonFailedGetPodSorter              = "FailedGetPodSorter"
	ReasonFailedGetPodTrafficController   = "FailedGetPodTrafficController"
	ReasonFailedCalculateStateChange      = "FailedCalculateStateChange"
	ReasonFailedOnlinePods                = "FailedOnlinePods"
	ReasonFailedCutoffPods                = "FailedCutoffPods"
	ReasonFailedSetPodState               = "FailedSetPodState"
	ReasonFailedSelectPodsToDelete        = "FailedSelectPodsToDelete"
	ReasonFailedUpdateScale               = "FailedUpdateScale"
	ReasonReplicaProfileEnsured           = "ReplicaProfileEnsured"
	ReasonReplicaNumberNotSatisfied       = "ReplicaNumberNotSatisfied"
	ReasonFailedGetScale                  = "FailedGetScale"
	ReasonInvalidSelector                 = "InvalidSelector"
	ReasonFailedListPods                  = "FailedListPods"
	MessageReplicaProfileApplied          = "all the operations for ensuring the replica profile are applied"
	MessageStateChangeSkipped             = "state change skipped as the number of current running pods observed mismatch the desired replicas of the target workload"
	MessageReplicaProfilePaused           = "the replica profile is paused"
	MessageReplicaProfileEnsured          = "current replica profile is ensured"
	MessageReplicaNumberNotSatisfied      = "the number of replicas of some states do not meet the expectation"
)

// Reasons of the Normal events of the ReplicaProfile controller, and their texts. Lists of pods print as Go slices
// of names.
const (
	EventOnlinePods                = "OnlinePods"
	EventCutoffPods                = "CutoffPods"
	EventStandbyPods               = "StandbyPods"
	EventSelectPodsToDelete        = "SelectPodsToDelete"
	EventUpdateScale               = "UpdateScale"
	EventMessageOnlinePods         = "online pods: %v"
	EventMessageCutoffPods         = "cutoff pods: %v"
	EventMessageStandbyPods        = "standby pods: %v"
	EventMessageSelectPodsToDelete = "select pods to delete: %v"
	EventMessageUpdateScale        = "rescale target workload from %d to %d replicas"
)
