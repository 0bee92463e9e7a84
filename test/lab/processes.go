package lab

import (
	"net/netip"
	"syscall"
)

// PodPID returns the process id, inside the namespaces, of the first container of a process pod.
func (l *Lab) PodPID(namespace, name string) (int, error) { return l.kubelet.PID(namespace, name) }

// KillPod sends a signal to the process of the first container of a process pod: SIGKILL is a crash, SIGSTOP a hang.
func (l *Lab) KillPod(namespace, name string, signal syscall.Signal) error {
	return l.kubelet.Signal(namespace, name, signal)
}

// Logs returns what all containers of a process pod printed, over all restarts; of a pod that is gone, the last of its name.
func (l *Lab) Logs(namespace, name string) (string, error) { return l.kubelet.Logs(namespace, name) }

// CutOff has all get lost that a process pod and some addresses send each other, also on connections that exist. The pod has to have
// been made with the annotation lab.kubetide.io/network: own. Everything in the lab's own network (the API server, the test, the kubelet)
// sends from its HostAddress if it binds no other.
func (l *Lab) CutOff(namespace, name string, from ...netip.Addr) error {
	network, err := l.kubelet.Network(namespace, name)
	if err != nil {
		return err
	}
	return network.CutOff(from...)
}

// Heal takes back what CutOff did to a pod.
func (l *Lab) Heal(namespace, name string) error {
	network, err := l.kubelet.Network(namespace, name)
	if err != nil {
		return err
	}
	return network.Heal()
}
