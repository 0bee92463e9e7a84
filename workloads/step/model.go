package step

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	kai "github.com/kubetide/kubetide/api/kai/v1alpha1"
)

// How a model comes into the pods. All names are Kai's.
const (
	initializerName  = "storage-initializer"
	initializerImage = "kserve/storage-initializer:v0.10.1"
	modelVolume      = "kai-mount-location"
	modelPath        = "/mnt/models"
	modelContainer   = "kai-container"
)

// ErrNoRuntime is what Choose returns where there is no ModelRuntime for a model.
var ErrNoRuntime = errors.New("no supporting modelruntime found")

// Model is what a Step with a model needs besides its own spec.
type Model struct {
	Runtime     *kai.ModelRuntime
	Credentials Credentials
}

// Choose returns the runtime of the Step's model: the one that it names, or else the first that supports its format. Those of the
// Step's namespace come before those of others, else they are ordered by name.
func Choose(step *kai.Step, runtimes []kai.ModelRuntime) (*kai.ModelRuntime, error) {
	model := step.Spec.Model
	var found []*kai.ModelRuntime
	for i := range runtimes {
		r := &runtimes[i]
		if model.ModelRuntime != "" && r.Name == model.ModelRuntime ||
			model.ModelRuntime == "" && model.ModelFormat != "" && slices.Contains(r.Spec.SupportedModelFormats, model.ModelFormat) {
			found = append(found, r)
		}
	}
	if len(found) == 0 {
		if model.ModelRuntime != "" {
			return nil, fmt.Errorf("%w: spec.model.modelRuntime: there is none with the name %q", ErrNoRuntime, model.ModelRuntime)
		}
		return nil, fmt.Errorf("%w: spec.model.modelFormat: none supports %q", ErrNoRuntime, model.ModelFormat)
	}
	return slices.MinFunc(found, func(a, b *kai.ModelRuntime) int {
		foreign := func(r *kai.ModelRuntime) int {
			if r.Namespace == step.Namespace {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(foreign(a), foreign(b)), strings.Compare(a.Name, b.Name), strings.Compare(a.Namespace, b.Namespace))
	}), nil
}

// mount puts the runtime's containers and the model into the pods.
func (m *Model) mount(pods *corev1.PodSpec, model kai.ModelSpec) {
	location := corev1.VolumeMount{Name: modelVolume, MountPath: modelPath}
	initializer := corev1.Container{
		Name: initializerName, Image: initializerImage, Args: []string{model.URI, modelPath},
		Env:          slices.Clone(m.Credentials.Env),
		VolumeMounts: append([]corev1.VolumeMount{location}, m.Credentials.Mounts...),
	}
	pods.InitContainers = append([]corev1.Container{initializer}, pods.InitContainers...)
	pods.Containers = nil
	for i := range m.Runtime.Spec.Containers {
		c := m.Runtime.Spec.Containers[i].DeepCopy()
		if c.Name == modelContainer {
			c.VolumeMounts = append(c.VolumeMounts, location)
		}
		pods.Containers = append(pods.Containers, *c)
	}
	pods.Volumes = append(pods.Volumes, corev1.Volume{Name: modelVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	pods.Volumes = append(pods.Volumes, m.Credentials.Volumes...)
}

// Credentials are what the storage initializer gets from the Secrets of a ServiceAccount: references, never values.
type Credentials struct {
	Env     []corev1.EnvVar
	Mounts  []corev1.VolumeMount
	Volumes []corev1.Volume
}

// The keys in Secrets by which KServe, and so Kai, tells whose credentials they are.
const (
	s3KeyID, s3Key = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
	gcsFile        = "gcloud-application-credentials.json"
	gcsVolume      = "user-gcp-sa"
	gcsPath        = "/var/secrets/"
)

var azureKeys = []string{"AZURE_SUBSCRIPTION_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_STORAGE_ACCESS_KEY"}

// s3Settings are annotations of a Secret with S3 credentials, and the variables that they become.
var s3Settings = []struct{ annotation, env string }{
	{"serving.kserve.io/s3-verifyssl", "S3_VERIFY_SSL"},
	{"serving.kserve.io/s3-useanoncredential", "awsAnonymousCredential"},
	{"serving.kserve.io/s3-usevirtualbucket", "S3_USER_VIRTUAL_BUCKET"},
	{"serving.kserve.io/s3-region", "AWS_DEFAULT_REGION"},
	{"serving.kserve.io/s3-cabundle", "AWS_CA_BUNDLE"},
}

// ReadCredentials makes credentials of Secrets, in their order. Only the names of their keys are looked at. A variable that two
// Secrets bring is the first one's.
func ReadCredentials(secrets []corev1.Secret) Credentials {
	var out Credentials
	env := func(name, value string, from *corev1.EnvVarSource) {
		if !slices.ContainsFunc(out.Env, func(e corev1.EnvVar) bool { return e.Name == name }) {
			out.Env = append(out.Env, corev1.EnvVar{Name: name, Value: value, ValueFrom: from})
		}
	}
	for _, s := range secrets {
		key := func(name, key string) {
			env(name, "", &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: s.Name}, Key: key}})
		}
		has := func(key string) bool { return len(s.Data[key]) > 0 }
		switch {
		case has(s3KeyID):
			key(s3KeyID, s3KeyID)
			key(s3Key, s3Key)
			if endpoint := s.Annotations["serving.kserve.io/s3-endpoint"]; endpoint != "" {
				scheme := "https://"
				if https := s.Annotations["serving.kserve.io/s3-usehttps"]; https != "" {
					if https == "0" {
						scheme = "http://"
					}
					env("S3_USE_HTTPS", https, nil)
				}
				env("S3_ENDPOINT", endpoint, nil)
				env("AWS_ENDPOINT_URL", scheme+endpoint, nil)
			}
			for _, setting := range s3Settings {
				if value := s.Annotations[setting.annotation]; value != "" {
					env(setting.env, value, nil)
				}
			}
		case has(gcsFile):
			if len(out.Volumes) > 0 {
				continue
			}
			out.Volumes = []corev1.Volume{{Name: gcsVolume, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: s.Name}}}}
			out.Mounts = []corev1.VolumeMount{{Name: gcsVolume, MountPath: gcsPath, ReadOnly: true}}
			env("GOOGLE_APPLICATION_CREDENTIALS", gcsPath+gcsFile, nil)
		default:
			for _, name := range azureKeys {
				for _, k := range []string{name, strings.Replace(name, "AZURE_", "AZ_", 1)} {
					if has(k) {
						key(name, k)
					}
				}
			}
		}
	}
	return out
}
