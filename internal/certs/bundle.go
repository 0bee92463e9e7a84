package certs

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
)

var (
	apiServices        = schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"}
	mutatingWebhooks   = schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"}
	validatingWebhooks = schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"}
)

// bundle is one object with one or several CA bundles to keep.
type bundle struct {
	keeper   *Keeper
	resource schema.GroupVersionResource
	name     string
	informer cache.SharedIndexInformer
	// skipped is why the object was last left alone; it is logged when it changes.
	skipped string
}

func newBundle(k *Keeper, resource schema.GroupVersionResource, name string, tweak func(*metav1.ListOptions)) *bundle {
	return &bundle{
		keeper: k, resource: resource, name: name,
		informer: dynamicinformer.NewFilteredDynamicInformer(k.Dynamic, resource, metav1.NamespaceAll, 0, cache.Indexers{}, tweak).Informer(),
	}
}

type patchOp struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// sync writes the Secret's CA bundle into the object where it differs.
func (b *bundle) sync(ctx context.Context, secret *corev1.Secret) error {
	obj, exists, _ := b.informer.GetStore().GetByKey(b.name)
	if !exists {
		return nil
	}
	stored := obj.(*unstructured.Unstructured)
	ops, skipped := b.patch(stored.Object, secret.Data[keyCACerts])
	if skipped != b.skipped && skipped != "" {
		b.keeper.Log.Info("The CA bundle is left alone", b.resource.Resource, b.name, "because", skipped)
	}
	b.skipped = skipped
	if len(ops) == 0 {
		return nil
	}
	// A replica that has not seen a rotation yet would put the old bundle back.
	live, err := b.keeper.Client.CoreV1().Secrets(secret.Namespace).Get(ctx, secret.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("secret %s/%s: %w", secret.Namespace, secret.Name, err)
	}
	if !bytes.Equal(live.Data[keyCACerts], secret.Data[keyCACerts]) {
		return nil // the informer is about to tell
	}
	if rv := stored.GetResourceVersion(); rv != "" {
		ops = append([]patchOp{{"test", "/metadata/resourceVersion", rv}}, ops...)
	}
	body, err := json.Marshal(ops)
	if err != nil {
		return err
	}
	if _, err := b.keeper.Dynamic.Resource(b.resource).Patch(ctx, b.name, types.JSONPatchType, body,
		metav1.PatchOptions{FieldManager: fieldManager}); err != nil {
		return fmt.Errorf("CA bundle of %s %s: %w", b.resource.Resource, b.name, err)
	}
	b.keeper.Log.Info("CA bundle written", b.resource.Resource, b.name)
	return nil
}

// patch returns what to change in the object, and why something is left alone that is not ours to change.
func (b *bundle) patch(object map[string]any, ca []byte) (ops []patchOp, skipped string) {
	want := base64.StdEncoding.EncodeToString(ca)
	check := func(holder map[string]any, path string) {
		service, _, _ := unstructured.NestedMap(holder, "service")
		name, _ := service["name"].(string)
		insecure, _, _ := unstructured.NestedBool(holder, "insecureSkipTLSVerify")
		switch {
		case !slices.Contains(b.keeper.Services, name) || service["namespace"] != b.keeper.Namespace:
			skipped = fmt.Sprintf("it leads to the service %v/%v", service["namespace"], service["name"])
		case insecure:
			skipped = "insecureSkipTLSVerify is set"
		case holder["caBundle"] != want:
			ops = append(ops, patchOp{"add", path + "/caBundle", want})
		}
	}
	if b.resource == apiServices {
		spec, _, _ := unstructured.NestedMap(object, "spec")
		check(spec, "/spec")
		return ops, skipped
	}
	webhooks, _, _ := unstructured.NestedSlice(object, "webhooks")
	for i, w := range webhooks {
		webhook, _ := w.(map[string]any)
		clientConfig, _, _ := unstructured.NestedMap(webhook, "clientConfig")
		check(clientConfig, fmt.Sprintf("/webhooks/%d/clientConfig", i))
	}
	return ops, skipped
}
