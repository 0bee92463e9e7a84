package job

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	kapacity "github.com/kubetide/kubetide/api/kapacity/v1alpha1"
)

const (
	// Label on a CronJob holds the UID of its HorizontalPortrait, the annotation of the same key its namespace/name: a CronJob in
	// another namespace cannot have it as its owner.
	Label = "kubetide.io/horizontal-portrait"
	// HashAnnotation is a digest of the spec that the CronJob was made from. Without it, a field that the template no longer has
	// could not be told from one that the API server filled in.
	HashAnnotation = "kubetide.io/template-hash"

	// algorithmContainer is the container that is told what to work for.
	algorithmContainer = "algorithm"

	envServer    = "METRICS_SERVER_ADDR"
	envNamespace = "HP_NAMESPACE"
	envName      = "HP_NAME"

	// maxName is how long a CronJob's name may be, in bytes: the names of its Jobs and pods have more behind it.
	maxName = 52
)

// Name is the name of the portrait's CronJob: both names joined by a dash, as Kapacity does. What would be too long for a CronJob is cut, and
// made distinct by a digest.
func Name(namespace, name string) string {
	full := namespace + "-" + name
	if len(full) <= maxName {
		return full
	}
	sum := sha256.Sum256([]byte(namespace + "/" + name))
	return strings.TrimRight(full[:maxName-9], "-.") + "-" + hex.EncodeToString(sum[:4])
}

// cronJob is what the template says, with the defaults filled in.
func (o Options) cronJob(hp *kapacity.HorizontalPortrait) (*batchv1.CronJob, error) {
	job := hp.Spec.Algorithm.ExternalJob
	if job == nil || job.Job.CronJob == nil { // admission refuses this
		return nil, fmt.Errorf("spec.algorithm.externalJob.job.cronJob is missing")
	}
	template := job.Job.CronJob.Template.DeepCopy()
	c := &batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: Name(hp.Namespace, hp.Name), Labels: template.Labels, Annotations: template.Annotations},
		Spec:       template.Spec,
	}
	pod := &c.Spec.JobTemplate.Spec.Template.Spec
	if pod.ServiceAccountName == "" && pod.DeprecatedServiceAccount == "" {
		pod.ServiceAccountName = o.ServiceAccount
	}
	for i := range pod.Containers {
		container := &pod.Containers[i]
		if container.Name != algorithmContainer {
			continue
		}
		if container.Image == "" {
			container.Image = o.Image
		}
		if container.Image == "" {
			return nil, fmt.Errorf("the container %q of the CronJob's template has no image, and there is no default: set --algorithm-job-default-image", algorithmContainer)
		}
		own := slices.DeleteFunc(container.Env, func(e corev1.EnvVar) bool { return e.Name == envNamespace || e.Name == envName })
		env := []corev1.EnvVar{{Name: envNamespace, Value: hp.Namespace}, {Name: envName, Value: hp.Name}}
		if o.MetricsServerAddr != "" && !slices.ContainsFunc(own, func(e corev1.EnvVar) bool { return e.Name == envServer }) {
			env = append(env, corev1.EnvVar{Name: envServer, Value: o.MetricsServerAddr})
		}
		container.Env = slices.Concat(env, own) // the template's can refer to ours
	}
	spec, err := json.Marshal(c.Spec)
	if err != nil {
		return nil, fmt.Errorf("the CronJob's template: %w", err)
	}
	sum := sha256.Sum256(spec)
	metav1.SetMetaDataLabel(&c.ObjectMeta, Label, string(hp.UID))
	metav1.SetMetaDataAnnotation(&c.ObjectMeta, Label, hp.Namespace+"/"+hp.Name)
	metav1.SetMetaDataAnnotation(&c.ObjectMeta, HashAnnotation, hex.EncodeToString(sum[:8]))
	return c, nil
}

// claim says why the CronJob cannot be the portrait's; nil if it is, or may become so. One without our label is Kapacity's, or a
// person's, unless it works for another portrait.
func claim(c *batchv1.CronJob, hp *kapacity.HorizontalPortrait) error {
	of := c.Annotations[Label]
	uid, labeled := c.Labels[Label]
	switch {
	case uid == string(hp.UID), labeled && of == hp.Namespace+"/"+hp.Name: // the latter is that of a predecessor
		return nil
	case !labeled:
		namespace, name := worksFor(c)
		if of = namespace + "/" + name; of == "/" || of == hp.Namespace+"/"+hp.Name {
			return nil
		}
	}
	return fmt.Errorf("CronJob %s/%s belongs to HorizontalPortrait %s: namespace and name, joined by a dash, are the same; rename one of the two", c.Namespace, c.Name, of)
}

// worksFor returns the portrait that the CronJob's algorithm is told to work for.
func worksFor(c *batchv1.CronJob) (namespace, name string) {
	for _, container := range c.Spec.JobTemplate.Spec.Template.Spec.Containers {
		if container.Name != algorithmContainer {
			continue
		}
		for _, e := range container.Env {
			switch e.Name {
			case envNamespace:
				namespace = e.Value
			case envName:
				name = e.Value
			}
		}
	}
	return namespace, name
}

// merge makes live what want says, and leaves what others have added: labels, annotations, fields that the API server filled in.
func merge(live, want *batchv1.CronJob) {
	if live.Annotations[HashAnnotation] != want.Annotations[HashAnnotation] || !within(want.Spec, live.Spec) {
		live.Spec = want.Spec
	}
	live.Labels, live.Annotations = merged(live.Labels, want.Labels), merged(live.Annotations, want.Annotations)
}

func merged(have, more map[string]string) map[string]string {
	out := maps.Clone(have)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, more)
	return out
}

// within tells whether all that want says stands in have. What want leaves open may be anything: compared as JSON, since there
// what is empty is left out.
func within(want, have any) bool {
	tree := func(o any) (out any) {
		text, err := json.Marshal(o)
		if err != nil || json.Unmarshal(text, &out) != nil {
			return nil
		}
		return out
	}
	return contains(tree(have), tree(want))
}

func contains(have, want any) bool {
	switch want := want.(type) {
	case nil:
		return true
	case map[string]any:
		have, ok := have.(map[string]any)
		for key, value := range want {
			if value != nil && !contains(have[key], value) {
				return false
			}
		}
		return ok || len(want) == 0
	case []any:
		have, ok := have.([]any)
		if !ok && len(want) > 0 || len(have) < len(want) {
			return false
		}
		for i, value := range want { // what is injected comes after
			if !contains(have[i], value) {
				return false
			}
		}
		return true
	}
	return have == want
}
