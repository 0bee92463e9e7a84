package metricsapi

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	genericapiserver "k8s.io/apiserver/pkg/server"
	openapicommon "k8s.io/kube-openapi/pkg/common"
	"sigs.k8s.io/custom-metrics-apiserver/pkg/apiserver"
)

// Group is an API group that is served beside the metrics, behind the same authentication and authorization.
type Group struct {
	Info        *genericapiserver.APIGroupInfo
	Definitions openapicommon.GetOpenAPIDefinitions
}

// schemes are those of all groups.
func (o ServerOptions) schemes() []*runtime.Scheme {
	out := []*runtime.Scheme{apiserver.Scheme}
	for _, g := range o.Groups {
		out = append(out, g.Info.Scheme)
	}
	return out
}

func (o ServerOptions) installGroups(server *genericapiserver.GenericAPIServer) error {
	for _, g := range o.Groups {
		if err := server.InstallAPIGroup(g.Info); err != nil {
			return fmt.Errorf("API group %s: %w", g.Info.PrioritizedVersions[0].Group, err)
		}
	}
	return nil
}
