package v1alpha1

import corev1 "k8s.io/api/core/v1"

// PodSpec is that of Kubernetes as Kai takes it: with the containers optional, and the fields that there were at its time.
type PodSpec struct {
	// Volumes that the containers can mount.
	// +kubebuilder:validation:MaxItems=1000
	// +listType=map
	// +listMapKey=name
	// +optional
	Volumes []corev1.Volume `json:"volumes,omitempty"`

	// Containers that run one after another before the others start. With a model, its fetching comes first.
	// +kubebuilder:validation:MaxItems=1000
	// +listType=map
	// +listMapKey=name
	// +optional
	InitContainers []corev1.Container `json:"initContainers,omitempty"`

	// The containers. With a model, those of the ModelRuntime stand in their place.
	// +kubebuilder:validation:MaxItems=1000
	// +listType=map
	// +listMapKey=name
	// +optional
	Containers []corev1.Container `json:"containers,omitempty"`

	// Containers for debugging. Kubernetes takes none in a Deployment's pods.
	// +kubebuilder:validation:MaxItems=1000
	// +listType=map
	// +listMapKey=name
	// +optional
	EphemeralContainers []corev1.EphemeralContainer `json:"ephemeralContainers,omitempty"`

	// Kubernetes takes only Always in a Deployment's pods.
	// +optional
	RestartPolicy corev1.RestartPolicy `json:"restartPolicy,omitempty"`

	// How long the pod has to stop, in seconds. The default is 30.
	// +optional
	TerminationGracePeriodSeconds *int64 `json:"terminationGracePeriodSeconds,omitempty"`

	// Kubernetes takes none in a Deployment's pods.
	// +optional
	ActiveDeadlineSeconds *int64 `json:"activeDeadlineSeconds,omitempty"`

	// How names are resolved. The default is ClusterFirst.
	// +optional
	DNSPolicy corev1.DNSPolicy `json:"dnsPolicy,omitempty"`

	// Labels that the node must have.
	// +mapType=atomic
	// +optional
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`

	// The ServiceAccount that the pod runs as.
	// +optional
	ServiceAccountName string `json:"serviceAccountName,omitempty"`

	// The old name of serviceAccountName.
	// +optional
	DeprecatedServiceAccount string `json:"serviceAccount,omitempty"`

	// Whether the token of the ServiceAccount is mounted.
	// +optional
	AutomountServiceAccountToken *bool `json:"automountServiceAccountToken,omitempty"`

	// The node that the pod must run on.
	// +optional
	NodeName string `json:"nodeName,omitempty"`

	// Whether the pod uses the node's network.
	// +optional
	HostNetwork bool `json:"hostNetwork,omitempty"`

	// Whether the pod sees the node's processes.
	// +optional
	HostPID bool `json:"hostPID,omitempty"`

	// Whether the pod uses the node's IPC namespace.
	// +optional
	HostIPC bool `json:"hostIPC,omitempty"`

	// Whether the containers see each other's processes.
	// +optional
	ShareProcessNamespace *bool `json:"shareProcessNamespace,omitempty"`

	// Users, groups and other security settings of all containers.
	// +optional
	SecurityContext *corev1.PodSecurityContext `json:"securityContext,omitempty"`

	// Secrets for pulling the images.
	// +kubebuilder:validation:MaxItems=1000
	// +listType=map
	// +listMapKey=name
	// +optional
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`

	// The host name of the pod.
	// +optional
	Hostname string `json:"hostname,omitempty"`

	// The subdomain of the pod's host name.
	// +optional
	Subdomain string `json:"subdomain,omitempty"`

	// Where the pod should and must be scheduled.
	// +optional
	Affinity *corev1.Affinity `json:"affinity,omitempty"`

	// Which scheduler places the pod.
	// +optional
	SchedulerName string `json:"schedulerName,omitempty"`

	// Taints of nodes that the pod tolerates.
	// +kubebuilder:validation:MaxItems=1000
	// +listType=atomic
	// +optional
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`

	// Entries for the pod's hosts file.
	// +kubebuilder:validation:MaxItems=1000
	// +listType=map
	// +listMapKey=ip
	// +optional
	HostAliases []corev1.HostAlias `json:"hostAliases,omitempty"`

	// The PriorityClass of the pod.
	// +optional
	PriorityClassName string `json:"priorityClassName,omitempty"`

	// The priority of the pod.
	// +optional
	Priority *int32 `json:"priority,omitempty"`

	// Settings for resolving names.
	// +optional
	DNSConfig *corev1.PodDNSConfig `json:"dnsConfig,omitempty"`

	// Conditions that the pod needs to be ready, besides its containers.
	// +kubebuilder:validation:MaxItems=1000
	// +listType=atomic
	// +optional
	ReadinessGates []corev1.PodReadinessGate `json:"readinessGates,omitempty"`

	// The RuntimeClass of the pod.
	// +optional
	RuntimeClassName *string `json:"runtimeClassName,omitempty"`

	// Whether Services are told to the containers as environment variables.
	// +optional
	EnableServiceLinks *bool `json:"enableServiceLinks,omitempty"`

	// Whether the pod may drive others out.
	// +optional
	PreemptionPolicy *corev1.PreemptionPolicy `json:"preemptionPolicy,omitempty"`

	// What the RuntimeClass costs by itself.
	// +optional
	Overhead corev1.ResourceList `json:"overhead,omitempty"`

	// How pods spread over the cluster.
	// +kubebuilder:validation:MaxItems=1000
	// +listType=map
	// +listMapKey=topologyKey
	// +listMapKey=whenUnsatisfiable
	// +optional
	TopologySpreadConstraints []corev1.TopologySpreadConstraint `json:"topologySpreadConstraints,omitempty"`

	// Whether the host name is the full domain name.
	// +optional
	SetHostnameAsFQDN *bool `json:"setHostnameAsFQDN,omitempty"`

	// The operating system of the containers.
	// +optional
	OS *corev1.PodOS `json:"os,omitempty"`

	// Whether the pod uses the node's user namespace.
	// +optional
	HostUsers *bool `json:"hostUsers,omitempty"`

	// What holds the pod back from being scheduled.
	// +kubebuilder:validation:MaxItems=1000
	// +listType=map
	// +listMapKey=name
	// +optional
	SchedulingGates []corev1.PodSchedulingGate `json:"schedulingGates,omitempty"`

	// Claims of devices that must be there before the pod starts.
	// +kubebuilder:validation:MaxItems=1000
	// +listType=map
	// +listMapKey=name
	// +optional
	ResourceClaims []corev1.PodResourceClaim `json:"resourceClaims,omitempty"`
}
