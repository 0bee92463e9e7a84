package kubelet

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// environment is a container's environment.
type environment map[string]string

func (e environment) list() []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(e)) {
		list = append(list, name+"="+e[name])
	}
	return list
}

// expand replaces $(NAME) for each variable that is set; $$ stands for one dollar.
func (e environment) expand(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '$' && i+1 < len(text) {
			if text[i+1] == '$' {
				out.WriteByte('$')
				i++
				continue
			}
			if text[i+1] == '(' {
				if end := strings.IndexByte(text[i:], ')'); end > 0 {
					if value, ok := e[text[i+2:i+end]]; ok {
						out.WriteString(value)
						i += end
						continue
					}
				}
			}
		}
		out.WriteByte(text[i])
	}
	return out.String()
}

// environment computes a container's environment from its spec.
func (w *worker) environment(ctx context.Context, c *corev1.Container) (environment, error) {
	pod := w.latest()
	env := environment{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME": hostname(pod),
		"KUBERNETES_SERVICE_HOST": w.kubelet.APIServer[0], "KUBERNETES_SERVICE_PORT": w.kubelet.APIServer[1],
		"KUBERNETES_SERVICE_PORT_HTTPS": w.kubelet.APIServer[1],
	}
	for _, from := range c.EnvFrom {
		var data map[string]string
		var err error
		switch {
		case from.ConfigMapRef != nil:
			data, err = w.configMap(ctx, from.ConfigMapRef.Name, from.ConfigMapRef.Optional)
		case from.SecretRef != nil:
			data, err = w.secret(ctx, from.SecretRef.Name, from.SecretRef.Optional)
		}
		if err != nil {
			return nil, err
		}
		for name, value := range data {
			env[from.Prefix+name] = value
		}
	}
	for _, v := range c.Env {
		if v.ValueFrom == nil {
			env[v.Name] = env.expand(v.Value)
			continue
		}
		value, ok, err := w.value(ctx, c, v.ValueFrom)
		if err != nil {
			return nil, fmt.Errorf("environment variable %s: %w", v.Name, err)
		}
		if ok {
			env[v.Name] = value
		}
	}
	return env, nil
}

func (w *worker) value(ctx context.Context, c *corev1.Container, from *corev1.EnvVarSource) (string, bool, error) {
	var data map[string]string
	var key string
	var optional *bool
	var err error
	switch {
	case from.FieldRef != nil:
		value, err := w.field(from.FieldRef.FieldPath)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err := resourceField(c, from.ResourceFieldRef)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		key, optional = from.ConfigMapKeyRef.Key, from.ConfigMapKeyRef.Optional
		data, err = w.configMap(ctx, from.ConfigMapKeyRef.Name, optional)
	case from.SecretKeyRef != nil:
		key, optional = from.SecretKeyRef.Key, from.SecretKeyRef.Optional
		data, err = w.secret(ctx, from.SecretKeyRef.Name, optional)
	default:
		return "", false, fmt.Errorf("the lab does not know this source")
	}
	value, ok := data[key]
	if err == nil && !ok && (optional == nil || !*optional) {
		err = fmt.Errorf("key %q is missing", key)
	}
	return value, ok, err
}

// field returns a field of the pod by its path in the downward API.
func (w *worker) field(path string) (string, error) {
	pod := w.latest()
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return formatMap(pod.Labels), nil
	case "metadata.annotations":
		return formatMap(pod.Annotations), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP", "status.hostIPs":
		return "127.0.0.1", nil
	case "status.podIP", "status.podIPs":
		return w.address.String(), nil
	}
	for prefix, values := range map[string]map[string]string{"metadata.labels['": pod.Labels, "metadata.annotations['": pod.Annotations} {
		if key, ok := strings.CutPrefix(path, prefix); ok {
			return values[strings.TrimSuffix(key, "']")], nil
		}
	}
	return "", fmt.Errorf("the lab does not know the field %q", path)
}

func formatMap(m map[string]string) string {
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, key+"="+strconv.Quote(m[key]))
	}
	return strings.Join(lines, "\n")
}

// resourceField returns a request or limit in units of the divisor, rounded up. What has no limit gets a machine's worth.
func resourceField(c *corev1.Container, ref *corev1.ResourceFieldSelector) (string, error) {
	list, name, _ := strings.Cut(ref.Resource, ".")
	quantity, ok := c.Resources.Limits[corev1.ResourceName(name)]
	if list == "requests" {
		quantity, ok = c.Resources.Requests[corev1.ResourceName(name)]
	}
	if !ok {
		switch ref.Resource {
		case "limits.cpu":
			quantity = resource.MustParse("2")
		case "limits.memory":
			quantity = resource.MustParse("4Gi")
		case "requests.cpu", "requests.memory":
		default:
			return "", fmt.Errorf("the lab does not know the resource %q", ref.Resource)
		}
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if name == "cpu" {
		return strconv.FormatInt((quantity.MilliValue()+divisor.MilliValue()-1)/divisor.MilliValue(), 10), nil
	}
	return strconv.FormatInt((quantity.Value()+divisor.Value()-1)/divisor.Value(), 10), nil
}

// configMap returns a ConfigMap's data; nothing if it is optional and missing.
func (w *worker) configMap(ctx context.Context, name string, optional *bool) (map[string]string, error) {
	namespace := w.latest().Namespace
	// Resource version 0 reads the API server's cache.
	object, err := w.kubelet.client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, unlessOptional(err, optional)
	}
	data := maps.Clone(object.Data)
	if data == nil {
		data = map[string]string{}
	}
	for key, value := range object.BinaryData {
		data[key] = string(value)
	}
	return data, nil
}

// secret returns a Secret's data; nothing if it is optional and missing.
func (w *worker) secret(ctx context.Context, name string, optional *bool) (map[string]string, error) {
	namespace := w.latest().Namespace
	object, err := w.kubelet.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, unlessOptional(err, optional)
	}
	data := map[string]string{}
	for key, value := range object.Data {
		data[key] = string(value)
	}
	return data, nil
}

func unlessOptional(err error, optional *bool) error {
	if apierrors.IsNotFound(err) && optional != nil && *optional {
		return nil
	}
	return err
}
