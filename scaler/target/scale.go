package target

import (
	"context"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// anyScale translates /scale: controller-runtime's client wants an unstructured one for an unstructured object, which is what a workload of
// an unknown kind is, and its fake one wants none.
type anyScale struct{ client.Client }

func (c anyScale) SubResource(name string) client.SubResourceClient {
	inner := c.Client.SubResource(name)
	if name == "scale" {
		return scaleClient{inner}
	}
	return inner
}

type scaleClient struct{ client.SubResourceClient }

func (c scaleClient) Get(ctx context.Context, o, into client.Object, opts ...client.SubResourceGetOption) error {
	scale, typed := into.(*autoscalingv1.Scale)
	if _, unknown := o.(*unstructured.Unstructured); !unknown || !typed {
		return c.SubResourceClient.Get(ctx, o, into, opts...)
	}
	body := &unstructured.Unstructured{}
	body.SetGroupVersionKind(autoscalingv1.SchemeGroupVersion.WithKind("Scale"))
	if err := c.SubResourceClient.Get(ctx, o, body, opts...); err != nil {
		return err
	}
	return runtime.DefaultUnstructuredConverter.FromUnstructured(body.Object, scale)
}

func (c scaleClient) Update(ctx context.Context, o client.Object, opts ...client.SubResourceUpdateOption) error {
	scale, typed := (&client.SubResourceUpdateOptions{}).ApplyOptions(opts).SubResourceBody.(*autoscalingv1.Scale)
	if _, unknown := o.(*unstructured.Unstructured); unknown && typed {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(scale)
		if err != nil {
			return err
		}
		body := &unstructured.Unstructured{Object: content}
		body.SetGroupVersionKind(autoscalingv1.SchemeGroupVersion.WithKind("Scale"))
		opts = append(opts, client.WithSubResourceBody(body))
	}
	return c.SubResourceClient.Update(ctx, o, opts...)
}
