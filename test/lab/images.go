package lab

import (
	"context"
	"fmt"
	"path/filepath"
	"sort"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// RegisterImage makes pods with a container of this image run as real processes of the binary at path, on the process nodes.
// An image without tag stands for all its tags. Pods that exist already are not moved. It returns when new pods obey.
func (l *Lab) RegisterImage(ctx context.Context, image, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.images[image] = path
	images := make([]string, 0, len(l.images))
	for image := range l.images {
		images = append(images, image)
	}
	l.mu.Unlock()
	sort.Strings(images)
	if err := l.placeProcesses(ctx, images); err != nil {
		return fmt.Errorf("register image %s: %w", image, err)
	}
	return l.awaitPlacement(ctx, image)
}

// binary returns the binary that stands for an image.
func (l *Lab) binary(image string) (string, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if path, ok := l.images[image]; ok {
		return path, true
	}
	name, _, _ := strings.Cut(image, "@")
	if path, ok := l.images[name]; ok {
		return path, true
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		path, ok := l.images[name[:i]]
		return path, ok
	}
	return "", false
}

const placementPolicy = "lab-process-pods"

// placeProcesses keeps an admission policy that sends pods of these images to the process nodes.
func (l *Lab) placeProcesses(ctx context.Context, images []string) error {
	var match []string
	for _, image := range images {
		match = append(match, fmt.Sprintf("c.image == %[1]q || c.image.startsWith(%[2]q) || c.image.startsWith(%[3]q)", image, image+":", image+"@"))
	}
	patch := fmt.Sprintf(`[
		JSONPatch{op: "add", path: "/spec/nodeSelector", value: has(object.spec.nodeSelector) ? object.spec.nodeSelector : {}},
		JSONPatch{op: "add", path: "/spec/nodeSelector/" + jsonpatch.escapeKey(%[1]q), value: %[2]q},
		JSONPatch{op: "add", path: "/spec/tolerations", value: has(object.spec.tolerations) ? object.spec.tolerations : []},
		JSONPatch{op: "add", path: "/spec/tolerations/-", value: Object.spec.tolerations{key: %[1]q, operator: "Exists"}}
	]`, nodeLabel, nodeProcess)
	spec := admissionv1.MutatingAdmissionPolicySpec{
		FailurePolicy:      ptr.To(admissionv1.Fail),
		ReinvocationPolicy: admissionv1.NeverReinvocationPolicy,
		MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
			RuleWithOperations: admissionv1.RuleWithOperations{
				Operations: []admissionv1.OperationType{admissionv1.Create},
				Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
			},
		}}},
		MatchConditions: []admissionv1.MatchCondition{{
			Name: "process-image", Expression: "object.spec.containers.exists(c, " + strings.Join(match, " || ") + ")",
		}},
		Mutations: []admissionv1.Mutation{{
			PatchType: admissionv1.PatchTypeJSONPatch, JSONPatch: &admissionv1.JSONPatch{Expression: patch},
		}},
	}
	policies := l.client.AdmissionregistrationV1().MutatingAdmissionPolicies()
	existing, err := policies.Get(ctx, placementPolicy, metav1.GetOptions{})
	if err == nil {
		existing.Spec = spec
		_, err = policies.Update(ctx, existing, metav1.UpdateOptions{})
		return err
	}
	if !apierrors.IsNotFound(err) {
		return err
	}
	policy := &admissionv1.MutatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: placementPolicy}, Spec: spec}
	if _, err := policies.Create(ctx, policy, metav1.CreateOptions{}); err != nil {
		return err
	}
	_, err = l.client.AdmissionregistrationV1().MutatingAdmissionPolicyBindings().Create(ctx, &admissionv1.MutatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: placementPolicy},
		Spec:       admissionv1.MutatingAdmissionPolicyBindingSpec{PolicyName: placementPolicy},
	}, metav1.CreateOptions{})
	return err
}

// awaitPlacement waits until a pod of the image would be sent to a process node: kube-apiserver learns of policies by a watch.
func (l *Lab) awaitPlacement(ctx context.Context, image string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "lab-placement-"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "probe", Image: image}}},
	}
	for {
		got, err := l.client.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil && got.Spec.NodeSelector[nodeLabel] == nodeProcess {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("register image %s: the admission policy does not take effect: %w (last: %w)", image, ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
