package kubelet

import (
	"context"

	"k8s.io/client-go/rest"
)

type Options struct {
	Config            *rest.Config
	Nodes             []string
	PodCIDR           string
	APIServer         [2]string
	Listen            string
	CertFile, KeyFile string
	Dir, LogDir       string
	Binary            func(image string) (string, bool)
}
type Kubelet struct{}

func Main()                                                  {}
func Start(ctx context.Context, o Options) (*Kubelet, error) { return &Kubelet{}, nil }
func (k *Kubelet) Stop()                                     {}
