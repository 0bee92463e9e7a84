package v1alpha1

// Labels on what is made of Steps and Pipelines.
const (
	// StepLabel holds the name of the Step on its Deployment, pods, Service and HorizontalPodAutoscaler, and StepUIDLabel its UID, which
	// alone selects the pods.
	StepLabel    = "core.kai.io/step"
	StepUIDLabel = "core.kai.io/stepUID"
	// PipelineLabel and PipelineUIDLabel hold the name and the UID of the Pipeline on its Steps.
	PipelineLabel    = "core.kai.io/pipeline"
	PipelineUIDLabel = "core.kai.io/pipelineUID"
	// TemplateLabel on a Step of a Pipeline holds the metadata.name of the template that it is made of, if that has one. It is not
	// passed on to what is made of the Step. A Kubetide addition.
	TemplateLabel = "kubetide.io/pipeline-step"
)

// Annotations of Kubetide's own.
const (
	// CopiedAnnotation on a generated object lists the labels and annotations that were copied to it, so that they go when they go from
	// where they came from. Keys that the object has anyway are left out, and with none there is no annotation.
	CopiedAnnotation = "kubetide.io/copied-from-owner"
	// ProgressDeadlineAnnotation on a Step is the progressDeadlineSeconds of its Deployment; without it that is 60. It is not passed on.
	ProgressDeadlineAnnotation = "kubetide.io/progress-deadline-seconds"
)

// Conditions of Steps and Pipelines. Kai writes none.
const (
	// ConditionReady is true when the Service and the HorizontalPodAutoscaler are there and the Deployment is available; of a Pipeline,
	// when all its Steps are ready.
	ConditionReady = "Ready"
	// ConditionDeploymentAvailable is what the Deployment says of itself, once it has seen its latest spec.
	ConditionDeploymentAvailable = "DeploymentAvailable"
	// ConditionAutoscalerActive is what the HorizontalPodAutoscaler says of itself.
	ConditionAutoscalerActive = "AutoscalerActive"
	// ConditionInvalid is true when something in the spec cannot work, or works otherwise than written; the message names it.
	ConditionInvalid = "Invalid"
	// ConditionRuntimeFound says whether there is a ModelRuntime for the model. Steps without a model lack it.
	ConditionRuntimeFound = "RuntimeFound"
	// ConditionCredentialsFound says whether the credentials of the model's ServiceAccount could be read. Steps without one lack it.
	ConditionCredentialsFound = "CredentialsFound"
)

// Event sources of the controllers.
const (
	StepEventComponent     = "step-controller"
	PipelineEventComponent = "pipeline-controller"
)

// LeaderElectionID is the Lease of a server that runs Steps and no engine.
const LeaderElectionID = "kubetide-step"
